//! Evidence for tests: keys of chosen ages, and trails of chosen lines.

use crate::{Evidence, HighWaterFile, Key, Service, Trail, Watch};
use keyfold::config::Config;
use keyfold::testing::{SampleRecord, block_on};
use keyfold::{Lineage, Record};
use std::collections::BTreeMap;

/// When sample records were made.
const MADE: u64 = 1_790_000_000;

/// A configuration with a trail.
pub(crate) fn config() -> Config {
    let text = format!(
        "version = 1\n[keyring]\nname = \"clinic\"\nenvironment = \"test\"\nlineage = \"{:032x}\"\nroot_pins = [\"{:064}\"]\nscope_names = \"{:048}\"\n\
         [store]\nuri = \"sqlite:keys.db\"\n[keks.local]\nuri = \"local:local.kek\"\n[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n\
         [audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\n",
        1, 0, 0
    );
    Config::parse(&text, "keyfold.toml").expect("a configuration")
}

/// The data key of a generation that was made at a time; nobody vouches for it.
pub(crate) fn key(generation: u32, made: u64) -> Record {
    let sample = SampleRecord::new(Lineage::from_bytes([7; 16]), generation).build();
    let mut bytes = sample.as_bytes().to_vec();
    for sequence in 0..2 {
        let (old, new) = ((MADE + sequence).to_be_bytes(), (made + sequence).to_be_bytes());
        while let Some(at) = bytes.windows(8).position(|window| window == old) {
            bytes[at..at + 8].copy_from_slice(&new);
        }
    }
    Record::parse(&bytes).expect("a record")
}

/// A line of a trail, which nobody has authenticated.
pub(crate) fn line(time: &str, action: &str, more: &str) -> Vec<u8> {
    let (chain, mac) = ("ab".repeat(16), "00".repeat(32));
    format!(
        "{{\"chain\":\"{chain}\",\"seq\":1,\"at\":0,\"time\":\"{time}\",\"action\":\"{action}\",\"outcome\":\"ok\",\"actor\":\"api\"{more},\"mac\":\"{mac}\"}}"
    )
    .into_bytes()
}

/// The evidence at a time of keys and the lines of a trail.
pub(crate) fn evidence(at: u64, keys: Vec<Record>, lines: &[Vec<u8>]) -> Evidence {
    let verification = block_on(keyfold_audit::verify(&[], &keyfold_audit::Expected::default()));
    let mut evidence = Evidence {
        at,
        as_of: true,
        services: vec![Service::new(config())],
        keys: keys.into_iter().map(|record| Key { record, verified: None }).collect(),
        not_verified: None,
        high_water: HighWaterFile::NotSet,
        trail: Some(Trail::new(verification, Vec::new())),
        watch: Watch { hours: None, burst: 10, unknown_max: 10_000 },
        prices: None,
        places: BTreeMap::new(),
    };
    lines.iter().for_each(|line| evidence.read_line(line));
    evidence
}
