//! Which key of which token, how to log in, and how to wrap.

use crate::credentials::SecretSource;
use crate::layer::Limits;
use crate::uri::KekUri;
use keyfold::{Error, ErrorKind, Result, WrappedKey};
use std::fmt;
use std::path::{Path, PathBuf};

const FORM: &str = "pkcs11://token=LABEL;object=LABEL?module-path=FILE&pin_file=FILE&…";
const SESSIONS: usize = 4;

/// How the HSM wraps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Wrapping {
    /// `CKM_AES_GCM` with the context as associated data and a nonce from the token's generator.
    #[default]
    AesGcm,
    /// The same for HSMs that choose the nonce themselves and write it into the parameters, as some do in FIPS mode.
    AesGcmHsmNonce,
    /// `CKM_AES_KEY_WRAP_PAD` (RFC 5649) by way of a session object, for HSMs that offer nothing better. Binds no context:
    /// the keyring does.
    AesKwp,
}

impl Wrapping {
    /// The word in the KEK version of what was wrapped so.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AesGcm | Self::AesGcmHsmNonce => "aes-gcm",
            Self::AesKwp => "aes-kwp",
        }
    }
}

/// A secret key of a token.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Pkcs11Config {
    /// The shared library of the HSM's maker. Whoever can replace it has the process.
    pub module: PathBuf,
    /// The label of the token.
    pub token: String,
    /// The serial number of the token, where several have that label.
    pub serial: Option<String>,
    /// The label of the key (`CKA_LABEL`).
    pub object: String,
    /// The ID of the key (`CKA_ID`), where several have that label.
    pub id: Option<Vec<u8>>,
    /// Where the user PIN is. Read at each login.
    pub pin: SecretSource,
    /// How to wrap. What was wrapped otherwise still opens.
    pub wrapping: Wrapping,
    /// Most sessions, and so requests to the token at one time: 1 to 64.
    pub sessions: usize,
    /// Deadline, attempts, rate.
    pub limits: Limits,
}

impl Pkcs11Config {
    /// The key labelled `object` on the token labelled `token`, with AES-GCM, 4 sessions and the usual limits.
    #[must_use]
    pub fn new(module: impl Into<PathBuf>, token: &str, object: &str, pin: SecretSource) -> Self {
        Self {
            module: module.into(),
            token: token.to_owned(),
            serial: None,
            object: object.to_owned(),
            id: None,
            pin,
            wrapping: Wrapping::default(),
            sessions: SESSIONS,
            limits: Limits::default(),
        }
    }

    /// The key that `uri` names, much as RFC 7512 does:
    /// `pkcs11://token=LABEL;object=LABEL[;serial=SERIAL][;id=%01…]?OPTION=VALUE&…`, with `%XX` for what is no letter or digit.
    /// Paths are relative to `folder`.
    ///
    /// | option | meaning |
    /// |---|---|
    /// | `module-path` | the shared library of the HSM's maker |
    /// | `pin_file`, `pin_env` | where the user PIN is; it never stands in the URI |
    /// | `mechanism` | `aes-gcm` (the default), `aes-gcm-hsm-nonce` or `aes-kwp`: see [`Wrapping`] |
    /// | `sessions` | most sessions: 4 by default |
    /// | `timeout`, `attempts`, `rate` | limits: see [`Limits`] |
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names what is wrong, never a PIN.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        let mut uri = KekUri::parse(uri, "pkcs11", folder)?;
        if uri.has("pin-value") {
            return Err(pin_in_uri());
        }
        let attributes = Attributes::parse(&uri.address)?;
        let module =
            uri.take_path("module-path").ok_or_else(|| wrong("the URI of the KEK lacks an option", "module-path"))?;
        let pin = uri
            .take_secret("pin")?
            .ok_or_else(|| wrong("the URI of the KEK lacks an option", "pin_file or pin_env"))?;
        let lacks = |name| wrong("the URI of the KEK lacks an attribute", name);
        let mut config = Self::new(
            module,
            &attributes.token.ok_or_else(|| lacks("token"))?,
            &attributes.object.ok_or_else(|| lacks("object"))?,
            pin,
        );
        (config.serial, config.id) = (attributes.serial, attributes.id);
        config.wrapping = match uri.take("mechanism").as_deref() {
            None | Some("aes-gcm") => Wrapping::AesGcm,
            Some("aes-gcm-hsm-nonce") => Wrapping::AesGcmHsmNonce,
            Some("aes-kwp") => Wrapping::AesKwp,
            Some(_) => {
                return Err(wrong("the option mechanism of a KEK is aes-gcm, aes-gcm-hsm-nonce or aes-kwp", FORM));
            }
        };
        if let Some(sessions) = uri.take("sessions") {
            config.sessions = sessions.parse().map_err(|_| wrong("an option is a whole number", "sessions"))?;
        }
        config.limits = uri.take_limits()?;
        uri.finish()?;
        config.check()?;
        Ok(config)
    }

    /// Checks names and limits.
    pub(super) fn check(&self) -> Result<()> {
        if self.token.is_empty() || self.object.is_empty() {
            return Err(wrong("the KEK is named by the labels of its token and of its key", FORM));
        }
        if self.version(self.wrapping).len() > WrappedKey::MAX_VERSION_LEN {
            return Err(wrong("the labels of token and key are longer than a record can hold", FORM));
        }
        if !(1..=64).contains(&self.sessions) {
            return Err(wrong("an HSM is used in 1 to 64 sessions", FORM));
        }
        self.limits.check()
    }

    /// What a record says about the key: `MECHANISM;token=LABEL;object=LABEL`.
    pub(super) fn version(&self, wrapping: Wrapping) -> String {
        format!("{};{}", wrapping.name(), self.name())
    }

    /// How it was wrapped, if `version` is of this key.
    pub(super) fn wrapping_of(&self, version: &str) -> Option<Wrapping> {
        [Wrapping::AesGcm, Wrapping::AesKwp].into_iter().find(|&wrapping| self.version(wrapping) == version)
    }

    fn name(&self) -> String {
        format!("token={};object={}", escaped(&self.token), escaped(&self.object))
    }
}

/// Token and key, for errors and logs.
impl fmt::Display for Pkcs11Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkcs11://{}", self.name())?;
        for (name, value) in [("serial", self.serial.as_deref().map(str::as_bytes)), ("id", self.id.as_deref())] {
            if let Some(value) = value {
                write!(f, ";{name}={}", escaped(value))?;
            }
        }
        Ok(())
    }
}

/// The part of the URI before the options.
#[derive(Default)]
struct Attributes {
    token: Option<String>,
    serial: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
}

impl Attributes {
    fn parse(text: &str) -> Result<Self> {
        let mut found = Self::default();
        for part in text.split(';') {
            let (name, value) =
                part.split_once('=').ok_or_else(|| wrong("an attribute of the KEK has no value", FORM))?;
            let bytes = unescaped(value).filter(|bytes| !bytes.is_empty());
            let bytes = bytes.ok_or_else(|| wrong("an attribute of the KEK is empty or has a wrong escape", FORM))?;
            if name == "id" {
                if found.id.replace(bytes).is_some() {
                    return Err(wrong("the KEK has an attribute twice", "id"));
                }
                continue;
            }
            let place = match name {
                "token" => &mut found.token,
                "serial" => &mut found.serial,
                "object" => &mut found.object,
                "pin-value" => return Err(pin_in_uri()),
                // The name is not repeated: it may be a PIN in the wrong place.
                _ => return Err(wrong("the KEK has an attribute other than token, serial, object and id", FORM)),
            };
            let text = String::from_utf8(bytes).map_err(|_| wrong("an attribute of the KEK is not text", FORM))?;
            if place.replace(text).is_some() {
                return Err(wrong("the KEK has an attribute twice", FORM));
            }
        }
        Ok(found)
    }
}

fn pin_in_uri() -> Error {
    wrong(
        "a PIN never stands in the URI of a KEK, where others read it: change it",
        "pin_file= or pin_env= says where it is",
    )
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

pub(super) fn escaped(text: impl AsRef<[u8]>) -> String {
    text.as_ref().iter().map(|&b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        // `from_str_radix` would take a sign as well.
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    Some(out)
}

fn wrong(message: &'static str, detail: &str) -> Error {
    Error::new(ErrorKind::Configuration, message).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(uri: &str) -> Result<Pkcs11Config> {
        Pkcs11Config::from_uri(uri, Path::new("/etc/keyfold"))
    }

    #[test]
    fn a_uri_names_module_token_and_key() {
        let found = config(
            "pkcs11://token=My%20HSM;object=kek-2026;id=%01%ff;serial=42?module-path=/usr/lib/hsm.so&pin_file=pin",
        )
        .unwrap();
        assert_eq!((found.token.as_str(), found.object.as_str()), ("My HSM", "kek-2026"));
        assert_eq!((found.id, found.serial.as_deref()), (Some(vec![1, 0xFF]), Some("42")));
        assert!(matches!(found.pin, SecretSource::File(path) if path == Path::new("/etc/keyfold/pin")));
        assert_eq!(found.wrapping, Wrapping::AesGcm);
        let found = config("pkcs11://token=a;object=b?module-path=m&pin_env=PIN&mechanism=aes-kwp&sessions=1").unwrap();
        assert_eq!(found.to_string(), "pkcs11://token=a;object=b");
        assert_eq!(found.version(found.wrapping), "aes-kwp;token=a;object=b");
        assert_eq!(found.wrapping_of("aes-gcm;token=a;object=b"), Some(Wrapping::AesGcm));
        assert_eq!(found.wrapping_of("aes-gcm;token=a;object=c"), None);
    }

    #[test]
    fn wrong_uris_are_refused_and_show_no_pin() {
        let long = "x".repeat(240);
        let wrong = [
            "pkcs11://token=a;object=b?module-path=m".to_owned(),
            "pkcs11://token=a;object=b?module-path=m&pin_env=P&pin-value=9471".to_owned(),
            "pkcs11://token=a;object=b;pin-value=9471?module-path=m&pin_env=P".to_owned(),
            "pkcs11://token=a;object=b;9471?module-path=m&pin_env=P".to_owned(),
            "pkcs11://token=a?module-path=m&pin_env=P".to_owned(),
            "pkcs11://object=a?module-path=m&pin_env=P".to_owned(),
            "pkcs11://token=a;token=b;object=c?module-path=m&pin_env=P".to_owned(),
            "pkcs11://token=a;object=?module-path=m&pin_env=P".to_owned(),
            "pkcs11://token=a;object=%4?module-path=m&pin_env=P".to_owned(),
            "pkcs11://token=a;object=%+4?module-path=m&pin_env=P".to_owned(),
            "pkcs11://token=a;object=b?pin_env=P".to_owned(),
            "pkcs11://token=a;object=b?module-path=m&pin_env=P&mechanism=aes-cbc".to_owned(),
            "pkcs11://token=a;object=b?module-path=m&pin_env=P&sessions=0".to_owned(),
            "pkcs11://token=a;object=b?module-path=m&pin_env=P&sessions=65".to_owned(),
            format!("pkcs11://token=a;object={long}?module-path=m&pin_env=P"),
        ];
        for uri in wrong {
            let error = config(&uri).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{uri}");
            assert!(!format!("{error} {error:?}").contains("9471"), "{uri}");
        }
    }
}
