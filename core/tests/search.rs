//! Finding deterministic values while their keys are being replaced (DESIGN F20).

use crate::common::lab::*;
use crate::common::{block_on, refused};
use keyfold::{ErrorKind, KeyClass, Keyring, KeyringConfig, Value};

const NEW_LOOKUP: u32 = 9;

fn find(ring: &Keyring, field: &str, text: &str) -> keyfold::Result<Vec<Vec<u8>>> {
    block_on(ring.field(field)?.searcher())?.ciphertexts(Value::Text(text))
}

#[test]
fn what_was_sealed_is_found_under_every_live_key() {
    let lab = Lab::new();
    let before = lab.process();
    let old = encryptor(&before, "mrn", None).unwrap().encrypt(Value::Text("M-1"), None).unwrap();
    assert_eq!(find(&before, "mrn", "M-1").unwrap(), std::slice::from_ref(&old));
    assert_eq!(find(&before, "ref", "M-1").unwrap(), std::slice::from_ref(&old), "a joined field");
    assert_ne!(find(&before, "mrn", "M-2").unwrap(), std::slice::from_ref(&old));
    assert_ne!(find(&before, "alone", "M-1").unwrap(), std::slice::from_ref(&old));

    // A new key seals, the old one is still searched.
    let next = ours(KeyClass::Lookup, DEFAULT_PARTITION, NEW_LOOKUP);
    lab.store.plant(&record(&child_parts(next, root())));
    let mut config = lab.config.clone();
    let keys = config.lookup.get_mut("default").unwrap();
    keys.opens = vec![keys.seals];
    keys.seals = next.key_id();
    let after = lab.process_with(config.clone());
    let new = encryptor(&after, "mrn", None).unwrap().encrypt(Value::Text("M-1"), None).unwrap();
    assert_eq!(find(&after, "mrn", "M-1").unwrap(), [new, old]);

    // A key is asked once even if the configuration names it twice.
    let keys = config.lookup.get_mut("default").unwrap();
    keys.opens.push(keys.seals);
    assert_eq!(find(&lab.process_with(config), "mrn", "M-1").unwrap().len(), 2);
}

#[test]
fn what_cannot_be_found_is_refused() {
    let lab = Lab::new();
    let ring = lab.process();
    assert_eq!(refused(find(&ring, "plain", "x"), "a randomised field"), ErrorKind::PolicyRefused);
    let searcher = block_on(ring.field("mrn").unwrap().searcher()).unwrap();
    assert_eq!(refused(searcher.ciphertexts(Value::Decimal("x")), "no number"), ErrorKind::InvalidInput);
    ring.close();
    assert_eq!(refused(searcher.ciphertexts(Value::Text("x")), "closed"), ErrorKind::Closed);
    assert_eq!(refused(block_on(searcher.ready()), "closed"), ErrorKind::Closed);

    // A key of another partition finds nothing there.
    let mut config: KeyringConfig = lab.config.clone();
    let other = config.lookup["other"].seals;
    config.lookup.get_mut("default").unwrap().opens = vec![other];
    assert_eq!(refused(find(&lab.process_with(config), "mrn", "x"), "another partition"), ErrorKind::WrongScope);
}
