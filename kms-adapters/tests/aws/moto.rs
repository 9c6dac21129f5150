//! The server of the tests, by what an administrator does.

use crate::common::{here, post, server};
use keyfold_kms::aws::AwsKek;
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) const REGION: &str = "eu-central-1";
const ACCOUNT: &str = "123456789012";

pub(crate) struct Moto {
    pub(crate) endpoint: String,
    faults: String,
    /// A file with a profile for each identity.
    pub(crate) credentials: String,
}

impl Moto {
    /// `None`, said aloud, where no server was started.
    pub(crate) fn given() -> Option<Self> {
        let endpoint = server("KEYFOLD_TEST_AWS", "python3 tools/servers/aws_kms.py COMMAND")?;
        let variable = |name: &str| std::env::var(name).expect("set together");
        let (faults, credentials) = (variable("KEYFOLD_TEST_AWS_FAULTS"), variable("KEYFOLD_TEST_AWS_CREDENTIALS"));
        Some(Self { endpoint, faults, credentials })
    }

    pub(crate) fn admin(&self, operation: &str, asked: Value) -> Value {
        let target = format!("TrentService.{operation}");
        let headers = [
            ("x-amz-target", target.as_str()),
            ("x-test-admin", REGION),
            ("content-type", "application/x-amz-json-1.1"),
        ];
        let (status, answer) = post(&self.endpoint, &headers, &asked);
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    /// A new key; its ARN.
    pub(crate) fn key(&self, asked: Value) -> String {
        self.admin("CreateKey", asked)["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned()
    }

    pub(crate) fn alias(&self, name: &str, key: &str) {
        let id = key.rsplit('/').next();
        self.admin("CreateAlias", json!({ "AliasName": format!("alias/{name}"), "TargetKeyId": id }));
    }

    pub(crate) fn alias_arn(&self, name: &str) -> String {
        format!("arn:aws:kms:{REGION}:{ACCOUNT}:alias/{name}")
    }

    pub(crate) fn kek(&self, arn: &str, profile: &str) -> AwsKek {
        self.kek_with(arn, profile, "")
    }

    pub(crate) fn kek_with(&self, arn: &str, profile: &str, options: &str) -> AwsKek {
        let Self { endpoint, credentials, .. } = self;
        let uri = format!(
            "awskms://{arn}?endpoint={endpoint}&credentials_file={credentials}&profile={profile}&rate=10000{options}"
        );
        AwsKek::from_uri(&uri, here()).expect("opened")
    }

    /// By way of microburst, with a deadline that makes tests of faults short.
    pub(crate) fn faulty_kek(&self, arn: &str) -> AwsKek {
        let Self { faults, credentials, .. } = self;
        let uri = format!("awskms://{arn}?endpoint={faults}&credentials_file={credentials}&profile=service&attempts=2");
        let kek = AwsKek::from_uri(&uri, here()).expect("opened");
        kek.with_deadline(Duration::from_secs(2)).expect("a deadline")
    }

    /// Makes microburst do this, and nothing else, until the next fault.
    pub(crate) fn fault(&self, rule: Value) {
        let url = format!("{}/_microburst/rules", self.faults);
        let (status, answer) = post(&url, &[("content-type", "application/json")], &json!([rule]));
        assert!(status < 300, "{status} {answer}");
    }

    /// What no log may show.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.credentials).expect("the credentials file");
        let values = text.lines().filter_map(|line| line.split_once(" = "));
        values.filter(|(name, _)| *name != "aws_access_key_id").map(|(_, value)| value.to_owned()).collect()
    }
}
