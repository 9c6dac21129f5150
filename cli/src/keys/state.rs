//! `keyfold keys state`: the state of a single key, by hand.

use crate::args::{KeysState, NewState};
use crate::failure::Failure;
use crate::opening;
use crate::print_done;
use keyfold::{KeyClass, KeyState};
use serde_json::json;
use std::collections::BTreeSet;
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
    // A key that was compromised comes back as nothing else. The change says what is wrong, if anything is.
    let before = pollster::block_on(ring.states_of(&BTreeSet::from([args.key_id]))).unwrap_or_default();
    let back = match before.get(&args.key_id) {
        Some(KeyState::Compromised) => "`keyfold keys state KEY compromised` takes that back",
        Some(KeyState::DestroyPending) => "`deactivated` takes that back, or `compromised` if it was that before",
        _ => "`keyfold keys state KEY deactivated` takes that back",
    };
    let record = pollster::block_on(ring.change_state(args.key_id, args.state.into()))?;
    let (key_id, state) = (record.key_id(), record.state());
    let follows = match state {
        KeyState::Active => "it seals and opens",
        KeyState::Deactivated => "it opens, and does not seal",
        // No setting lets a compromised root open anything.
        KeyState::Compromised if record.class() == KeyClass::Root => {
            "nothing opens under it any more; whoever has it has the keys that it wrapped too: docs/runbooks/kek-compromised.md"
        }
        KeyState::Compromised => {
            "it opens only where open_compromised is set: seal its values again, and treat them as possibly forged"
        }
        _ => &format!("it does not open; {back}"),
    };
    let text = if args.json {
        json!({ "key_id": key_id.to_string(), "state": state.name(), "sequence": record.sequence() }).to_string()
    } else {
        format!("{key_id} is {}: {follows}", state.name())
    };
    print_done(out, &text, &format!("{key_id} is {} now; `keyfold keys list` shows it", state.name()))
}
