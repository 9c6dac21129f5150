//! `fips = "required"`: what is refused before anything else is looked at.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{init, policy};
use keyfold::ErrorKind;
use std::fs;

#[test]
fn a_kek_behind_a_passphrase_is_refused_where_fips_is_required_whatever_it_wraps() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), "test", None);
    let (config, policies) = (folder.path().join("keyfold.toml"), [policy(folder.path())]);
    let plain = fs::read_to_string(&config).unwrap();
    let ring = keyfold_open::open(&config, &policies).unwrap();
    let audit = "[audit]\nfile = \"audit.jsonl\"\nkek = \"offline\"\n";
    for (wraps, more) in [("roots", ""), ("scopes", ""), ("audit", audit)] {
        let kek = format!("[keks.offline]\nuri = \"passphrase:offline.kek\"\nwraps = \"{wraps}\"\n{more}");
        let with = |rule: &str| {
            let keyring = format!("[keyring]\nfips = \"{rule}\"");
            fs::write(&config, plain.replacen("[keyring]", &keyring, 1) + &kek).unwrap();
            let reloaded = keyfold_open::reload(&ring, &config, &policies);
            [keyfold_open::open(&config, &policies).map(drop), reloaded]
                .map(|done| done.err().map(|error| (error.kind(), error.to_string())))
        };
        for refused in with("required") {
            let (kind, text) = refused.expect("refused");
            assert_eq!(kind, ErrorKind::Configuration, "{wraps}");
            assert!(text.contains("Argon2id") && text.contains("KEK offline"), "{wraps}: {text}");
        }
        let labelled = with("labelled").map(|refused| refused.map_or_else(String::new, |(_, text)| text));
        assert!(labelled.iter().all(|text| !text.contains("Argon2id")), "{wraps}: {labelled:?}");
    }
}
