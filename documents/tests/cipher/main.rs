//! Documents by policy, with a keyring in memory: what comes back, and what an attacker who can write documents achieves.

mod attacks;
mod bundles;
mod handles;
mod inserted;
mod tokens;
mod vectors;
#[allow(dead_code, reason = "the tests of core use all of it")]
#[path = "../../../core/tests/support/world.rs"]
mod world;

use keyfold::testing::{FakeKms, block_on};
use keyfold::{Clock, Context, ErrorKind, KekAlias, Keyring, Kms, MemoryHighWater, SystemClock};
use keyfold_documents::{
    Direction, DocumentCipher, DocumentCounts, DocumentError, DocumentOptions, DocumentText, FieldKeys, SharedTokens,
};
use keyfold_store::MemoryStore;
use std::collections::BTreeMap;
use std::sync::Arc;

const PROTECT: Direction = Direction::Protect { seal_sealed: false };

/// A keyring under a policy.
struct Lab {
    ring: Keyring,
    options: DocumentOptions,
    tokens: Option<SharedTokens>,
}

type Outcome = Result<(String, DocumentCounts), DocumentError>;

impl Lab {
    fn new(policy: &str) -> Self {
        Self::with_clock(policy, Arc::new(SystemClock))
    }

    fn with_clock(policy: &str, clock: Arc<dyn Clock>) -> Self {
        let store = Arc::new(MemoryStore::new());
        let kms: Arc<dyn Kms> = Arc::new(FakeKms::new());
        let keks = BTreeMap::from([(KekAlias::new("test").expect("an alias"), kms)]);
        let high_water = Arc::new(MemoryHighWater::default());
        let created = Keyring::create("test", "test", store.clone(), keks.clone(), high_water.clone());
        let mut config = block_on(created).expect("an empty store takes a keyring").config;
        keyfold::config::add_policy(&mut config.policy, policy, "policy.toml").expect("a policy");
        let ring = Keyring::open_with_clock(config, store, keks, high_water, clock).expect("it was just made");
        Self { ring, options: DocumentOptions { many_lines: true, ..DocumentOptions::default() }, tokens: None }
    }

    fn passing_unmatched(mut self) -> Self {
        self.options.pass_unmatched = true;
        self
    }

    fn cipher(&self, direction: Direction) -> Result<DocumentCipher<'static>, DocumentError> {
        let (ring, tokens) = (&self.ring, self.tokens.clone());
        let keys = FieldKeys { ring, direction, scope: None, context: Context::new(), tokens };
        DocumentCipher::new(&keys, self.options)
    }

    fn run(&self, direction: Direction, text: &str) -> Outcome {
        run(&self.cipher(direction)?, text)
    }

    #[track_caller]
    fn protect(&self, text: &str) -> String {
        self.run(PROTECT, text).expect("it is protected").0
    }

    fn reveal(&self, text: &str) -> Outcome {
        self.run(Direction::Reveal, text)
    }

    /// What was protected comes back byte for byte.
    #[track_caller]
    fn returns(&self, text: &str) -> String {
        let sealed = self.protect(text);
        assert_eq!(self.reveal(&sealed).expect("it is revealed").0, text, "{sealed}");
        sealed
    }

    #[track_caller]
    fn refuses(&self, direction: Direction, text: &str, kind: ErrorKind, says: &str) {
        let error = self.run(direction, text).map(|(text, _)| text).expect_err("it is refused");
        assert!(error.kind() == kind && error.to_string().contains(says), "{error:?}");
    }
}

fn run(cipher: &DocumentCipher<'_>, text: &str) -> Outcome {
    let mut done = cipher.transform_all(&[DocumentText { content: text.as_bytes(), line: 1 }])?;
    let text = String::from_utf8(done.texts.remove(0).to_vec()).expect("UTF-8");
    Ok((text, done.counts))
}
