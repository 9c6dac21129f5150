//! `keyfold keys partition`: the keys of a partition, and its section of the configuration.

use crate::args::KeysPartition;
use crate::failure::Failure;
use crate::opening;
use crate::print_done;
use keyfold::ErrorKind;
use keyfold::config::Config;
use serde_json::json;
use std::io::Write;

/// Makes the keys of a partition and prints the section to add, which nobody else does: the configuration decides what is trusted.
pub(crate) fn partition(args: &KeysPartition, out: &mut impl Write) -> Result<(), Failure> {
    let ring = opening::open(&args.source, &[])?;
    let keys = pollster::block_on(ring.create_partition(&args.name)).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => Failure::of_argument("NAME", error),
        _ => error.into(),
    })?;
    let section = Config::partition(&args.name, &keys);
    let text = if args.json {
        json!({
            "name": args.name, "partition": keys.partition.to_string(), "seals": keys.seals.to_string(), "section": section,
        })
        .to_string()
    } else {
        section
    };
    let partition = keys.partition;
    print_done(
        out,
        &text,
        &format!("the keys of partition {partition} were made, and nobody uses them: a repeated command makes others"),
    )
}
