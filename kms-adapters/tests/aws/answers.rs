//! Rows of the error table and URIs, without a service of AWS. What else may be answered: `tests/faults.rs`.

use crate::common::here;
use crate::common::rest::providers;
use crate::common::server::Reply;
use crate::common::unwrap;
use keyfold::ErrorKind;
use keyfold_kms::aws::{AwsKek, TABLE};
use serde_json::json;
use std::time::Duration;

/// Covers KC-26, KC-28.
// Failure A21
#[test]
fn each_row_of_the_table_is_reached() {
    let provider = providers().into_iter().find(|provider| provider.name == "aws").expect("the adapter");
    for row in TABLE.iter().filter(|row| !row.code.is_empty()) {
        let body = json!({ "__type": format!("com.amazonaws.kms#{}", row.code), "message": row.text });
        let server = provider.serve(Reply::json(400, body.to_string()));
        let opened = provider.kek(&format!("http://{}", server.address), Duration::from_secs(10), "");
        let error = unwrap(&*opened.kek, &(provider.wrapped)()).err().expect("refused");
        assert_eq!(error.kind(), row.kind, "{}", row.code);
        assert!(error.to_string().starts_with(row.message) && error.to_string().contains(row.code), "{error}");
    }
}

#[test]
fn what_a_uri_may_not_say() {
    for wrong in [
        "awskms://alias/clinic",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?endpoint=http://kms.example",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?endpoint=http://localhost:1",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?endpoint=https://a:b@kms.example",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?endpoint=https://kms.example&fips=on",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?fips=off",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?access_key=AKIA",
        "awskms://arn:aws:kms:eu-central-1:111122223333:alias/x?opens=arn:aws:kms:eu-central-1:111122223333:alias/y",
        "awskms://arn:aws:kms:eu-central-1:111122223333:alias/x?opens=arn:aws:kms:eu-west-1:111122223333:key/y",
        "awskms://arn:aws:kms:eu-central-1:111122223333:alias/x?opens=",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?deadline=5s",
    ] {
        let error = AwsKek::from_uri(wrong, here()).expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong}");
    }
}
