//! `keyfold init`

use crate::args::Init;
use crate::failure::Failure;
use crate::print_failed;
use serde_json::json;
use std::io::Write;

pub(crate) fn run(args: &Init, out: &mut impl Write) -> Result<(), Failure> {
    let made = pollster::block_on(keyfold_open::init(&args.dir, &args.name, &args.environment))?;
    let pins: Vec<String> = made.created.config.root_pins.iter().map(|pin| hex(pin)).collect();
    if args.json {
        let made = json!({
            "config": made.config, "kek": made.kek, "store": made.store,
            "environment": args.environment, "lineage": made.created.config.lineage.to_string(), "root_pins": pins,
        });
        return writeln!(out, "{made}").map_err(print_failed);
    }
    let text = format!(
        "Made a keyring in {}:\n  {}  the configuration; add fields to it, or policies with --policy\n  {}  the store of key \
         records; losing it is losing the data\n  {}  the key-encryption key; whoever has it and the store has every key: keep a \
         copy offline, apart from the store\nRoot pin {}\n",
        args.dir.display(),
        made.config.display(),
        made.store.display(),
        made.kek.display(),
        pins.join(" "),
    );
    out.write_all(text.as_bytes()).map_err(print_failed)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
