//! `keyfold keys state`: the state of a single key, by hand.

use crate::args::{KeysState, NewState};
use crate::failure::Failure;
use crate::opening;
use crate::print_done;
use keyfold::KeyState;
use serde_json::json;
use std::io::Write;

impl From<NewState> for KeyState {
    fn from(state: NewState) -> Self {
        match state {
            NewState::Active => Self::Active,
            NewState::Deactivated => Self::Deactivated,
            NewState::Compromised => Self::Compromised,
            NewState::DestroyPending => Self::DestroyPending,
        }
    }
}

/// Moves a key to another state and says what follows.
pub(crate) fn change_state(args: &KeysState, out: &mut impl Write) -> Result<(), Failure> {
    let ring = opening::open(&args.source, &[])?;
    let record = pollster::block_on(ring.change_state(args.key_id, args.state.into()))?;
    let (key_id, state) = (record.key_id(), record.state());
    let follows = match state {
        KeyState::Active => "it seals and opens",
        KeyState::Deactivated => "it opens, and does not seal",
        KeyState::Compromised => {
            "it opens only where open_compromised is set: seal its values again, and treat them as possibly forged"
        }
        _ => "it does not open; `keyfold keys state KEY deactivated` takes that back",
    };
    let text = if args.json {
        json!({ "key_id": key_id.to_string(), "state": state.name(), "sequence": record.sequence() }).to_string()
    } else {
        format!("{key_id} is {}: {follows}", state.name())
    };
    print_done(out, &text, &format!("{key_id} is {} now; `keyfold keys list` shows it", state.name()))
}
