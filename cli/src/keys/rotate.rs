//! `keyfold keys rotate`: the next generation of a key.

use super::time;
use crate::args::KeysRotate;
use crate::failure::{Exit, Failure};
use crate::init::hex;
use crate::opening;
use crate::print_done;
use keyfold::config::Config;
use keyfold::{KekAlias, KeyState, Keyring, LookupKeys, Record, Rotated};
use serde_json::json;
use std::io::Write;

/// Makes a new generation of the keyring's data key, of a scope's, or of the root.
pub(crate) fn rotate(args: &KeysRotate, out: &mut impl Write) -> Result<(), Failure> {
    let ring = opening::open(&args.source, &args.policy)?;
    if let Some(name) = &args.partition {
        return rotate_partition(&ring, name, args.json, out);
    }
    let rotated = pollster::block_on(rotated(&ring, args))?;
    let new = rotated.new.key_id();
    let pin = hex(rotated.new.commitment());
    let waits = rotated.new.state() == KeyState::PreActive;
    let seals_from = rotated.new.created_at().saturating_add(ring.rotation().lead.as_secs());
    let missing = ring.missing_keks(&rotated.new);
    let text = if args.json {
        json!({
            "new": new.to_string(), "generation": new.generation(), "state": rotated.new.state().name(),
            "old": rotated.old.map(|old| old.to_string()), "by_other": rotated.by_other,
            "root_pin": args.root.then_some(&pin),
            "missing_keks": missing.iter().map(KekAlias::as_str).collect::<Vec<_>>(),
        })
        .to_string()
    } else {
        let mut text = if waits {
            format!("generation {} is published and seals from {}: {new}", new.generation(), time(seals_from))
        } else {
            format!("generation {} seals from now on: {new}", new.generation())
        };
        if let Some(old) = rotated.old {
            let until = if waits { "seals until then and" } else { "still" };
            text.push_str(&format!("\ngeneration {} {until} opens: {old}", old.generation()));
        }
        if rotated.by_other {
            text.push_str("\nit was there already: another process made it at the same moment, or it was waiting");
        }
        if args.root {
            let when = if waits { format!(", not before {}", time(seals_from)) } else { String::new() };
            text.push_str(&format!(
                "\nnew root pin {pin}\nadd it to root_pins wherever this keyring is configured; run `keyfold keys reparent`{when}, and keep the old pin until that is done"
            ));
        }
        for alias in &missing {
            text.push_str(&format!(
                "\nit lacks the wrap of KEK {alias}: run `keyfold keys repair` when that can be reached"
            ));
        }
        text
    };
    let new = if args.root {
        format!(
            "the root was rotated: the new one is {new}, its pin {pin}; `keyfold keys list --json` shows both, the pin as its commitment"
        )
    } else {
        format!("the key was rotated: the new one is {new}; `keyfold keys list` shows it")
    };
    print_done(out, &text, &new)
}

/// Makes a new look-up key. Which key seals is the configuration's word, so nothing changes before somebody edits that.
fn rotate_partition(ring: &Keyring, name: &str, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let keys = pollster::block_on(ring.rotate_lookup_key(name))?;
    let Some((&new, older)) = keys.opens.split_last() else {
        return Err(Failure::new(Exit::Internal, "the new key is missing"));
    };
    let section = |seals, opens| Config::partition(name, &LookupKeys { partition: keys.partition, seals, opens });
    let publish = section(keys.seals, keys.opens.clone());
    let seal = section(new, [&[keys.seals], older].concat());
    let retire = section(new, Vec::new());
    let text = if json {
        json!({
            "name": name, "new": new.to_string(), "old": keys.seals.to_string(),
            "publish": publish, "seal": seal, "retire": retire,
        })
        .to_string()
    } else {
        format!(
            "# generation {} of the partition is there, and nobody uses it yet.\n\
             # 1. In every configuration, so that what others write under it is found:\n{publish}\n\n\
             # 2. When all processes have that, so that it is written under it:\n{seal}\n\n\
             # 3. When `keyfold index backfill` and `keyfold reencrypt` have left nothing under older ones:\n{retire}",
            new.generation()
        )
    };
    print_done(out, &text, &format!("look-up key {new} was made, and nobody uses it: a repeated command makes another"))
}

async fn rotated(ring: &Keyring, args: &KeysRotate) -> keyfold::Result<Rotated> {
    let scope = args.scope.as_deref();
    let rotated =
        if args.root { ring.rotate_root_without(&args.drop_kek).await? } else { ring.rotate_data_key(scope).await? };
    if !args.now || rotated.new.state() == KeyState::Active {
        return Ok(rotated);
    }
    let new: Record = if args.root { ring.activate_root().await? } else { ring.activate_data_key(scope).await? };
    Ok(Rotated { new, ..rotated })
}
