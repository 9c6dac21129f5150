//! `keyfold init` and `keyfold migrate`

use crate::args::{Init, Migrate};
use crate::failure::Failure;
use crate::print_failed;
use serde_json::json;
use std::io::Write;
use std::path::Path;

pub(crate) fn run(args: &Init, out: &mut impl Write) -> Result<(), Failure> {
    let made = pollster::block_on(async {
        match &args.store {
            Some(uri) => keyfold_open::init_with_store(&args.dir, &args.name, &args.environment, uri).await,
            None => keyfold_open::init(&args.dir, &args.name, &args.environment).await,
        }
    })?;
    let pins: Vec<String> = made.created.config.root_pins.iter().map(|pin| hex(pin)).collect();
    if args.json {
        let made = json!({
            "config": made.config, "kek": made.kek, "store": made.store,
            "environment": args.environment, "lineage": made.created.config.lineage.to_string(), "root_pins": pins,
        });
        return writeln!(out, "{made}").map_err(print_failed);
    }
    let store = made.store.as_deref().unwrap_or(Path::new("the database"));
    let text = format!(
        "Made a keyring in {}:\n  {}  the configuration; add fields to it, or policies with --policy\n  {}  the store of key \
         records; losing it is losing the data\n  {}  the key-encryption key; whoever has it and the store has every key: keep a \
         copy offline, apart from the store\nRoot pin {}\n",
        args.dir.display(),
        made.config.display(),
        store.display(),
        made.kek.display(),
        pins.join(" "),
    );
    out.write_all(text.as_bytes()).map_err(print_failed)
}

pub(crate) fn migrate(args: &Migrate, out: &mut impl Write) -> Result<(), Failure> {
    keyfold_open::migrate(&args.store, Path::new("."))?;
    writeln!(out, "The tables of the key store are as this version needs them.").map_err(print_failed)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
