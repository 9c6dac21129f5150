//! `keyfold init` and `keyfold migrate`

use crate::args::{Init, Migrate};
use crate::failure::{Exit, Failure};
use crate::{opening, print_done};
use keyfold_open::{NewKeyring, Options};
use serde_json::json;
use std::io::Write;
use std::path::Path;

pub(crate) fn run(args: &Init, out: &mut impl Write) -> Result<(), Failure> {
    let options = Options { passphrase: opening::passphrase_of(&args.passphrase), ..Options::default() };
    let new = NewKeyring {
        name: args.name.clone(),
        environment: args.environment.clone(),
        store: args.store.clone(),
        keks: args.keks.iter().cloned().collect(),
    };
    if new.keks.len() != args.keks.len() {
        return Err(Failure::new(Exit::Usage, "--kek names an alias twice: each KEK has one of its own"));
    }
    let made = pollster::block_on(keyfold_open::init_with(&args.dir, &new, &options))?;
    let pins: Vec<String> = made.created.config.root_pins.iter().map(|pin| hex(pin)).collect();
    let config = made.config.display();
    let done = format!("the keyring was made: {config} has its root pin, and says where the rest is");
    if args.json {
        let made = json!({
            "config": made.config, "kek": made.kek, "store": made.store, "high_water": made.high_water,
            "environment": args.environment, "lineage": made.created.config.lineage.to_string(), "root_pins": pins,
        });
        return print_done(out, &made.to_string(), &done);
    }
    let store = made.store.as_deref().unwrap_or(Path::new("the database"));
    let kek = match &made.kek {
        Some(file) => format!(
            "  {}  the key-encryption key; whoever has it and the store has every key: keep a copy offline, apart from the store\n",
            file.display()
        ),
        None => new.keks.iter().map(|(alias, uri)| format!("  KEK {alias} at {uri}  opens the keyring\n")).collect(),
    };
    let text = format!(
        "Made a keyring in {}:\n  {}  the configuration; add fields to it, or policies with --policy\n  {}  the store of key \
         records; losing it is losing the data\n  {}  what this machine has seen of the keyring, by which an older copy of the store is \
         noticed; it stays on this machine\n{kek}Root pin {}",
        args.dir.display(),
        made.config.display(),
        store.display(),
        made.high_water.display(),
        pins.join(" "),
    );
    print_done(out, &text, &done)
}

pub(crate) fn migrate(args: &Migrate, out: &mut impl Write) -> Result<(), Failure> {
    keyfold_open::migrate(&args.store, Path::new("."))?;
    let text = "The tables of the key store are as this version needs them.";
    print_done(out, text, "the tables are as this version needs them all the same")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
