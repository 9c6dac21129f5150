//! The replies of `kms_faults.json`, and how each must be sorted. The file is read where it is: see [`shared`].

use super::server::Reply;
use keyfold::{ErrorKind, KmsErrorKind};
use serde_json::Value;
use std::path::PathBuf;

/// One reply and what it means.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) provider: String,
    /// The provider's own name of the operation, or `unwrap`.
    pub(crate) operation: String,
    /// `None`: a good answer.
    pub(crate) expected: Option<ErrorKind>,
    pub(crate) retryable: bool,
    pub(crate) fault: Fault,
}

/// How the answer goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Reply(Reply),
    ConnectRefused,
    NoSuchHost,
    WrongName,
}

impl Case {
    fn parse(case: &Value) -> Self {
        let text = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
        let fault = match case["transport"]["kind"].as_str() {
            Some("connect_refused") => Fault::ConnectRefused,
            Some("accept_then_silence") => Fault::Reply(Reply::Silence),
            Some("dns_nxdomain") => Fault::NoSuchHost,
            Some("tls_cert_wrong_name") => Fault::WrongName,
            Some(other) => panic!("{}: a transport fault that no test knows: {other}", text("id")),
            None => Fault::Reply(reply(&case["http"])),
        };
        Self {
            id: text("id"),
            provider: text("provider"),
            operation: text("operation"),
            expected: class(case["expect_class"].as_str().expect("a class")),
            retryable: case["retryable"].as_bool().expect("a boolean"),
            fault,
        }
    }
}

fn reply(http: &Value) -> Reply {
    let headers = http["headers"].as_object().into_iter().flatten();
    Reply::Http {
        status: http["status"].as_u64().and_then(|status| status.try_into().ok()).expect("a status"),
        headers: headers.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect(),
        body: http["body"].as_str().unwrap_or_default().to_owned(),
    }
}

/// Our kind for a class of the file.
fn class(name: &str) -> Option<ErrorKind> {
    let kms = |name: &str| KmsErrorKind::ALL.iter().find(|kind| kind.name() == name).map(|&kind| ErrorKind::Kms(kind));
    match name {
        "Ok" => None,
        "Config" => Some(ErrorKind::Configuration),
        "KeyInvalidState" => kms("KeyDisabled"),
        "Unknown" => kms("Rejected"),
        other => Some(kms(other).unwrap_or_else(|| panic!("a class that keyfold does not have: {other}"))),
    }
}

/// The file `name` of the folder that KEYFOLD_SHARED names, or of `shared` beside the repository. `None`, said aloud,
/// where it is missing.
pub(crate) fn shared(name: &str) -> Option<Value> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let folder = std::env::var_os("KEYFOLD_SHARED").map_or_else(|| root.join("shared"), PathBuf::from);
    let path = folder.join("testvectors/own").join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        super::skip(&format!("{} does not exist", path.display()));
        return None;
    };
    Some(serde_json::from_str(&text).expect("JSON"))
}

/// All cases of kms_faults.json.
pub(crate) fn cases() -> Option<Vec<Case>> {
    let file = shared("kms_faults.json")?;
    Some(file["cases"].as_array().expect("cases").iter().map(Case::parse).collect())
}
