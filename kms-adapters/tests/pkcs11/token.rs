//! The tokens that tests are given, as their administrator sees them.

use crate::common::{here, skip};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use keyfold_kms::pkcs11::Pkcs11Kek;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct Tokens {
    pub(crate) module: String,
    pub(crate) pin: String,
    /// The folder in which each token has one.
    pub(crate) tokens: PathBuf,
    folder: tempfile::TempDir,
}

impl Tokens {
    /// `None`, said aloud, where there are none.
    pub(crate) fn given() -> Option<Self> {
        let variable = |name: &str| std::env::var(format!("KEYFOLD_TEST_PKCS11_{name}"));
        let Ok(module) = variable("MODULE") else {
            skip("KEYFOLD_TEST_PKCS11_MODULE names no PKCS#11 library");
            return None;
        };
        let (pin, tokens) = (variable("PIN").expect("a PIN"), variable("TOKENS").expect("a folder").into());
        Some(Self { module, pin, tokens, folder: tempfile::tempdir().expect("a folder") })
    }

    /// A file with `text`.
    pub(crate) fn file(&self, text: &str) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = self.folder.path().join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::write(&path, text).expect("written");
        path
    }

    pub(crate) fn uri(&self, token: &str, object: &str, options: &str) -> String {
        let pin = self.file(&format!("{}\n", self.pin));
        self.uri_with_pin(token, object, &pin, options)
    }

    pub(crate) fn uri_with_pin(&self, token: &str, object: &str, pin: &std::path::Path, options: &str) -> String {
        format!(
            "pkcs11://token={token};object={object}?module-path={}&pin_file={}&{options}",
            self.module,
            pin.display()
        )
    }

    /// The key `object` of `token`, without a limit of its rate.
    pub(crate) fn kek(&self, token: &str, object: &str, options: &str) -> Pkcs11Kek {
        Pkcs11Kek::from_uri(&self.uri(token, object, &format!("rate=10000&{options}")), here()).expect("opened")
    }

    /// A session of the administrator, in this process: the library is initialised a second time, as another part of a
    /// program would.
    pub(crate) fn session(&self, token: &str) -> Session {
        let context = Pkcs11::new(&self.module).expect("loaded");
        let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slots = context.get_slots_with_token().expect("slots");
        let slot =
            slots.into_iter().find(|&slot| context.get_token_info(slot).is_ok_and(|found| found.label() == token));
        let session = context.open_rw_session(slot.expect("a token")).expect("a session");
        let _ = session.login(UserType::User, Some(&AuthPin::new(self.pin.clone().into())));
        session
    }

    pub(crate) fn find(session: &Session, label: &str) -> Vec<ObjectHandle> {
        session.find_objects(&[Attribute::Label(label.as_bytes().to_vec())]).expect("found")
    }
}
