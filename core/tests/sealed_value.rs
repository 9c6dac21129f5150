//! Sealed values as members of structs: text in JSON, bytes in CBOR, and nothing that is not one.

use crate::common::lab::*;
use keyfold::ErrorKind;
use keyfold::wire::SealedValue;
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Patient {
    ssn: SealedValue,
    note: Option<SealedValue>,
}

fn patient() -> (Vec<u8>, Patient) {
    let sealed = seal(&Lab::new().process(), None, "Canary").unwrap();
    let ssn = SealedValue::from_bytes(sealed.clone()).unwrap();
    (sealed, Patient { ssn, note: None })
}

#[test]
fn both_forms_come_back() {
    let (sealed, patient) = patient();
    let json = serde_json::to_string(&patient).unwrap();
    assert_eq!(json, format!("{{\"ssn\":\"{}\",\"note\":null}}", patient.ssn.to_text()));
    assert_eq!(serde_json::from_str::<Patient>(&json).unwrap(), patient);
    assert_eq!(serde_json::from_reader::<_, Patient>(json.as_bytes()).unwrap(), patient);

    let mut cbor = Vec::new();
    ciborium::into_writer(&patient, &mut cbor).unwrap();
    assert!(cbor.windows(sealed.len()).any(|window| window == sealed), "bytes, not an array of numbers");
    assert_eq!(ciborium::from_reader::<Patient, _>(&cbor[..]).unwrap(), patient);

    assert_eq!(SealedValue::from_text(&patient.ssn.to_text()).unwrap().into_bytes(), sealed);
    assert_eq!((patient.ssn.key_id(), patient.ssn.as_bytes()), (key_id_of(&sealed), &sealed[..]));
    assert_eq!(format!("{patient:?}"), "Patient { ssn: SealedValue(suite 01, generation 6), note: None }");
}

// Failure C15
#[test]
fn nothing_else_is_accepted_or_repeated_in_an_error() {
    let (sealed, patient) = patient();
    let text = patient.ssn.to_text();
    let spoilt = [
        "999-81-5679".to_owned(),
        String::new(),
        format!(" {text}"),
        format!("{text}="),
        text.replace("kf1.", "kf2."),
        text[..text.len() - 60].to_owned(),
    ];
    for wrong in &spoilt {
        assert_eq!(SealedValue::from_text(wrong).unwrap_err().kind(), ErrorKind::Malformed, "{wrong}");
        let json = serde_json::to_string(wrong).unwrap();
        let error = serde_json::from_str::<SealedValue>(&json).unwrap_err().to_string();
        assert!(wrong.is_empty() || !error.contains(wrong.trim()), "{error}");
    }
    for json in ["1", "null", "[245,1]", "{}", "true"] {
        assert!(serde_json::from_str::<SealedValue>(json).is_err(), "{json}");
    }
    let unsupported = text.replacen("kf1.01", "kf1.7f", 1);
    assert_eq!(SealedValue::from_text(&unsupported).unwrap_err().kind(), ErrorKind::Unsupported);

    for wrong in [&b"999-81-5679"[..], b"", &sealed[..40], &[&[0xF4], &sealed[1..]].concat()] {
        let mut cbor = Vec::new();
        ciborium::into_writer(&ciborium::Value::Bytes(wrong.to_vec()), &mut cbor).unwrap();
        assert!(ciborium::from_reader::<SealedValue, _>(&cbor[..]).is_err());
    }
    let mut cbor = Vec::new();
    ciborium::into_writer(&"999-81-5679", &mut cbor).unwrap();
    let error = ciborium::from_reader::<SealedValue, _>(&cbor[..]).unwrap_err().to_string();
    assert!(!error.contains("999-81"), "{error}");
}
