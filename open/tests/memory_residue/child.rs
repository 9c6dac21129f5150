//! The process that is looked at: this test program started again.

use crate::common::{self, residue::out};
use data_encoding::HEXLOWER;
use keyfold::{
    ColumnBytes, DocumentBody, DocumentValue, ErrorKind, Keyring, Kms, KmsErrorKind, UnwrapRequest, Value, key_memory,
};
use keyfold_kms::local::LocalKek;
use keyfold_open::NewKeyring;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The folder of the keyring, by which a process knows that it is to be looked at.
pub(crate) const FOLDER: &str = "KEYFOLD_TEST_RESIDUE";
/// The configuration that it opens: the keyring's with `[audit]`.
pub(crate) const AUDITED: &str = "audited.toml";
/// The folder, in that of the keyring, of another keyring that it makes.
pub(crate) const OTHER: &str = "other";
/// A scope that it makes.
const SCOPE: &str = "clinic";
/// Values of the column, whose key of AES-256-GCM the backend holds while they are sealed and opened.
const ROWS: usize = 1000;
/// What has a prefix of its own.
const VALUE: &str = "a single value";
const COLUMN: &str = "a column";
/// What has a salt or an ID of its own, of which a key is made.
pub(crate) const STREAM: &str = "a stream";
pub(crate) const FAILED: &str = "a stream that fails";
pub(crate) const DOCUMENT: &str = "a document";
/// Every key that is used is in use.
pub(crate) const IN_USE: &str = "a stream goes on";
/// The keyring is closed, and handles are left.
pub(crate) const CLOSED: &str = "the keyring is closed";
/// The keyring itself is left.
pub(crate) const WITHOUT_HANDLES: &str = "the handles are dropped";
pub(crate) const DROPPED: &str = "everything is dropped";

fn say(text: &str) {
    out(&format!("@{text}"));
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Seals and opens values of all sorts under a keyring that it opens, has calls fail, makes keys and drops all again; does nothing unless
/// its parent asks for it.
///
/// It stops after each step, before another one overwrites what that has left on the stack, and says of which prefix of a nonce, salt or ID it has made a key.
#[test]
fn steps() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let ring = keyfold_open::open(&folder.join(AUDITED), &[common::policy(folder)]).unwrap();
    let done = |step: &str, of: &str, sealed: &[u8]| say(&format!("{step}|{of}|{}", HEXLOWER.encode(&sealed[26..38])));
    pollster::block_on(async {
        let note = ring.field("note").unwrap().encryptor().await.unwrap();
        let single = note.encrypt(Value::Text("one value"), None).unwrap();
        done("a value is sealed", VALUE, &single);
        let reader = ring.field("note").unwrap().decryptor().await.unwrap();
        reader.load_keys(&[&single][..]).await.unwrap();
        reader.decrypt(&single, None).unwrap();
        done("it is opened", VALUE, &single);
        let mut changed = single.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(reader.decrypt(&changed, None).unwrap_err().kind(), ErrorKind::DecryptionFailed);
        done("it is refused with another tag", VALUE, &single);
        let column = note.encrypt_column(&[Value::Text("of many"); ROWS][..], None::<&[&[u8]]>).unwrap();
        done("a column is sealed", COLUMN, column.bytes(0));
        reader.load_keys(&column).await.unwrap();
        reader.decrypt_column(&column, None::<&[&[u8]]>).unwrap();
        done("it is opened", COLUMN, column.bytes(0));
        let mrn = ring.field("mrn").unwrap().encryptor().await.unwrap();
        mrn.encrypt(Value::Text("p-17"), None).unwrap();
        say("a deterministic value is sealed");
        let index = ring.field("note").unwrap().indexer("lookup").await.unwrap();
        index.tokens(Value::Text("p-17")).unwrap();
        say("a token is made");
        let phone = ring.field("phone").unwrap().format_preserver().await.unwrap();
        phone.encrypt("0301234567").unwrap();
        say("a format is preserved");
        let value = DocumentValue { field: "name", path: "$.name", value: Value::Text("p-17") };
        let sealed = ring.documents("loose").unwrap().sealer().await.unwrap().seal(None, &[value], &[], 1).unwrap();
        let of_document = [&sealed.header.as_bytes()[26..50], sealed.bodies.bytes(0)].concat();
        say(&format!("it is there|{DOCUMENT}|{}", HEXLOWER.encode(&of_document)));
        let opener = ring.documents("loose").unwrap().opener().await.unwrap();
        opener.load_key(&sealed.header).await.unwrap();
        let body = DocumentBody { field: "name", path: "$.name", body: sealed.bodies.bytes(0) };
        opener.open(&sealed.header, None, &[body], &[], sealed.manifest.as_ref()).unwrap();
        say("a document is opened");
        a_kek_refuses(&ring, folder).await;
        say("a KEK refuses a wrap that was changed");
        let sealer = ring.field("image").unwrap().stream_sealer().await.unwrap();
        let stream = sealer.begin(None).unwrap();
        say(&format!("it is begun|{FAILED}|{}", HEXLOWER.encode(&stream.header().as_bytes()[27..51])));
        let (input, mut calls) = (vec![1; 1_000_000], 0);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            // Behind what was sealed before the second call.
            stream.seal_all(&mut &input[..], &mut Vec::new(), NonZeroUsize::MIN, |_| {
                calls += 1;
                assert!(calls < 2, "on purpose");
                Ok(())
            })
        }));
        assert!(panicked.is_err() && calls == 2);
        say("code of the caller's panics while a stream is sealed");
        ring.rotate_data_key(None).await.unwrap();
        note.ready().await.unwrap();
        say("the data key is rotated");
        ring.field("note").unwrap().scope(SCOPE).encryptor().await.unwrap();
        say("a scope is made");
        ring.create_partition("second").await.unwrap();
        say("a partition is made");
        let new = NewKeyring { name: OTHER.to_owned(), environment: "test".to_owned(), ..NewKeyring::default() };
        std::fs::create_dir(folder.join(OTHER)).unwrap();
        keyfold_open::init_with(&folder.join(OTHER), &new, &keyfold_open::Options::default()).await.unwrap();
        say("another keyring is made");
        let (mut stream, mut out) = (sealer.begin(None).unwrap(), Vec::new());
        stream.update(&[1; 100_000], &mut out).unwrap();
        say(&format!("it is begun|{STREAM}|{}", HEXLOWER.encode(&stream.header().as_bytes()[27..51])));
        say(&format!("{IN_USE}, {:?}", key_memory()));
        stream.finish(&mut out).unwrap();
        ring.close();
        say(CLOSED);
    });
    say(WITHOUT_HANDLES);
    drop(ring);
    say(DROPPED);
}

/// Has the KEK of the keyring unwrap something that it did not wrap.
async fn a_kek_refuses(ring: &Keyring, folder: &Path) {
    let kek = LocalKek::open(folder.join("local.kek")).unwrap();
    let keys = ring.list(None, 100).await.unwrap();
    let (record, (_, wrapped)) =
        keys.iter().find_map(|key| Some((&key.record, key.record.kek_wraps().next()?))).unwrap();
    let mut wrapped = wrapped.clone();
    wrapped.bytes[20] ^= 1;
    let refused = kek.unwrap(UnwrapRequest::new(&wrapped, &record.kms_context())).await.map(drop);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Kms(KmsErrorKind::InvalidCiphertext));
}

/// Such a process at a point where it waits.
pub(crate) struct Waiting {
    pub(crate) process: Child,
    output: BufReader<ChildStdout>,
    /// The prefixes, salts and IDs that were used, by what they belong to.
    pub(crate) prefixes: BTreeMap<String, String>,
}

impl Waiting {
    pub(crate) fn start(folder: &Path, before: &str) -> Self {
        let script = format!("{before} exec \"$0\" --exact child::steps --nocapture --test-threads=1");
        let mut process = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .current_dir(folder)
            .env(FOLDER, folder)
            // A backtrace of the panic that it has on purpose reads all symbols into memory.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output, prefixes: BTreeMap::new() }
    }

    /// The step that it has done next.
    pub(crate) fn hear(&mut self) -> String {
        let mut lines = (&mut self.output).lines().map(Result::unwrap);
        let said = lines.find_map(|line| line.strip_prefix('@').map(str::to_owned)).expect("it goes on");
        if let [step, of, prefix] = said.split('|').collect::<Vec<_>>()[..] {
            self.prefixes.insert(of.to_owned(), prefix.to_owned());
            return format!("{step} ({of})");
        }
        said
    }

    /// Has it do all steps until `step`.
    pub(crate) fn go_on_until(&mut self, step: &str) {
        while !self.hear().starts_with(step) {
            self.go_on();
        }
    }

    pub(crate) fn go_on(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
