//! How many copies of what a key service unwraps are in the memory of a process that has the allocator which erases, and in core dumps: while
//! keys are in use, and afterwards (docs/MEMORY.md). The service is a stand-in for Vault in this test, over TLS.
//!
//! The process is this test program started again: it opens a keyring that was made before. Its parent is the service, so it knows what to look for.
#![cfg(all(target_os = "linux", feature = "vault"))]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "../../kms-adapters/tests/common/server.rs"]
#[allow(dead_code, reason = "the tests of the adapters use the rest")]
mod server;

use common::residue::{count, dump_of, memory_of, out, skipped};
use common::{open, policy, seal};
use data_encoding::{BASE64, HEXLOWER};
use keyfold::{KekAlias, Value};
use keyfold_memory::ErasingAllocator;
use keyfold_open::NewKeyring;
use serde_json::{Value as Json, json};
use server::{Reply, Server, data};
use std::alloc::System;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

#[global_allocator]
static ALLOCATOR: ErasingAllocator<System> = ErasingAllocator(System);

const FOLDER: &str = "KEYFOLD_TEST_NETWORK_RESIDUE";
/// With a KEK of its own, which unwraps its data key: one request for each such scope.
const SCOPE: &str = "tenant 7";
const ENDED: &str = "everything is dropped";

// The process that is looked at

/// Stops after each step. Does nothing unless its parent asks for it.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let ring = open(Path::new(&folder));
    let step = |name: &str| {
        // A connection ends on the thread for it right behind the answer.
        for _ in 0..100 {
            keyfold_background::block(async { Ok(()) }).unwrap();
        }
        out(&format!("@{name}"));
        std::io::stdin().read_line(&mut String::new()).unwrap();
    };
    step("the keyring is open");
    let sealed = seal(&ring, "one value");
    step("a value is sealed");
    ring.invalidate();
    assert_eq!(common::reveal(&ring, &sealed).unwrap(), "one value");
    step("it is opened after keys were forgotten");
    pollster::block_on(async {
        let scope = ring.field("note").unwrap().scope(SCOPE).encryptor().await.unwrap();
        scope.encrypt(Value::Text("of the tenant"), None).unwrap();
        step("an isolated scope is made and sealed under");
        ring.invalidate();
        drop(scope);
        ring.field("note").unwrap().scope(SCOPE).encryptor().await.unwrap();
        step("its key is fetched again");
        ring.rotate_root().await.unwrap();
        step("a new root is made");
    });
    ring.close();
    step("the keyring is closed");
    drop(ring);
    step(ENDED);
}

// Its parent

/// What the transit engine was given to wrap, in base64, by the ciphertext and context that open it.
#[derive(Clone, Default)]
struct Transit(Arc<Mutex<BTreeMap<(String, String), String>>>);

impl Transit {
    fn serve(&self) -> Server {
        let transit = self.clone();
        Server::start_tls("server-loopback.pem", move |request| {
            let body: Json = serde_json::from_str(&request.body).unwrap_or_default();
            let text = |name: &str| body[name].as_str().map(str::to_owned);
            transit.answer(request.line.contains("/encrypt/"), text("plaintext"), text("ciphertext"), text("context"))
        })
    }

    fn answer(
        &self,
        wraps: bool,
        plaintext: Option<String>,
        ciphertext: Option<String>,
        context: Option<String>,
    ) -> Reply {
        let refused = |text: &str| Reply::json(400, json!({ "errors": [text] }).to_string());
        let good = |name: &str, value: &str| Reply::json(200, json!({ "data": { name: value } }).to_string());
        let mut wrapped = self.0.lock().unwrap();
        match (context, plaintext, ciphertext) {
            (Some(context), Some(plaintext), None) if wraps => {
                let number = wrapped.len().to_be_bytes();
                let ciphertext = format!("vault:v1:{}", BASE64.encode(&number.repeat(8)));
                wrapped.insert((ciphertext.clone(), context), plaintext);
                good("ciphertext", &ciphertext)
            }
            (Some(context), None, Some(ciphertext)) => match wrapped.get(&(ciphertext, context)) {
                Some(plaintext) => good("plaintext", plaintext),
                None => refused("cipher: message authentication failed"),
            },
            (None, ..) => refused("missing 'context' for key derivation; the key was created using a derived key"),
            // A login, such as the renewal of a token.
            _ => refused("lease is not renewable"),
        }
    }

    /// Of each key that was wrapped, by name, 16 bytes at several places: as they are, and in base64 and hexadecimal digits.
    fn secrets(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for (n, text) in self.0.lock().unwrap().values().enumerate() {
            let key = BASE64.decode(text.as_bytes()).unwrap()[..32].to_vec();
            let hex = HEXLOWER.encode(&key).into_bytes();
            // The last digit that is of the key alone is the 42nd.
            let forms = [("as it is", &key[..]), ("in base64", &text.as_bytes()[..42]), ("in hexadecimal", &hex)];
            for (form, bytes) in forms {
                let places = [0, (bytes.len() - 16) / 2, bytes.len() - 16];
                all.extend(places.map(|at| (format!("key {n} {form}, from {at}"), bytes[at..at + 16].to_vec())));
            }
        }
        all
    }
}

/// A process at a point where it waits.
struct Waiting {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Waiting {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .current_dir(folder)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, input, output }
    }

    /// The step that it has done next.
    fn hear(&mut self) -> String {
        let mut lines = (&mut self.output).lines().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix('@').map(str::to_owned)).expect("it goes on")
    }

    fn go_on(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A keyring in `folder` whose root, and the keys of a scope, the service at `server` wraps for who has `token`.
fn keyring(folder: &Path, server: &Server, token: &str) {
    fs::write(folder.join("token"), token).unwrap();
    let ca = data("server-loopback.pem").canonicalize().unwrap();
    let uri = |key: &str| format!("vault://{}/transit/{key}?token_file=token&ca={}", server.address, ca.display());
    let keks = BTreeMap::from([(KekAlias::new("vault").unwrap(), uri("roots"))]);
    let new = NewKeyring { name: "ring".to_owned(), environment: "test".to_owned(), keks, ..NewKeyring::default() };
    pollster::block_on(keyfold_open::init_with(folder, &new, &keyfold_open::Options::default())).unwrap();
    let config = fs::read_to_string(folder.join("keyfold.toml")).unwrap();
    let tenant = format!(
        "[keks.tenant]\nuri = \"{}\"\nwraps = \"scopes\"\n[scopes.\"{SCOPE}\"]\nkeks = [\"tenant\"]\n",
        uri("scopes")
    );
    fs::write(folder.join("keyfold.toml"), format!("{config}\n{tenant}")).unwrap();
    fs::write(policy(folder), common::POLICY).unwrap();
}

/// Those of `secrets` that are in `bytes`, and how often.
fn found_in(bytes: &[u8], secrets: &[(String, Vec<u8>)]) -> Vec<String> {
    let counts = count(bytes, secrets.iter().map(|(_, part)| &part[..]));
    let found = secrets.iter().zip(counts).filter(|(_, count)| *count > 0);
    found.map(|((name, _), count)| format!("{name}: {count}")).collect()
}

// Failures T4, T5
#[test]
fn what_a_key_service_unwrapped_is_nowhere_but_in_guarded_memory() {
    let (folder, transit) = (tempfile::tempdir().unwrap(), Transit::default());
    let server = transit.serve();
    // Not in the program itself.
    let token = format!("s.CANARYTOKEN{}", std::process::id());
    keyring(folder.path(), &server, &token);
    let mut process = Waiting::start(folder.path());
    let mut found = Vec::new();
    let (mut kept, mut asked) = (0, server.seen().len());
    loop {
        let step = process.hear();
        let requests = server.seen().len() - asked;
        asked += requests;
        let (memory, secrets) = (memory_of(process.process.id()), transit.secrets());
        let open: Vec<_> = memory.iter().filter(|mapping| !mapping.is_guarded).collect();
        let read: usize = open.iter().map(|mapping| mapping.bytes.len()).sum();
        let copies: Vec<_> = open.iter().flat_map(|mapping| found_in(&mapping.bytes, &secrets)).collect();
        out(&format!("{step}, {requests} requests, {read} bytes read, {} secrets: {copies:?}", secrets.len()));
        let tokens = open.iter().map(|mapping| count(&mapping.bytes, [token.as_bytes()].into_iter())[0]).sum::<usize>();
        kept = kept.max(tokens);
        found.extend(copies.into_iter().map(|copies| format!("{step}: {copies}")));
        match dump_of(process.process.id(), folder.path()) {
            Err(why) => skipped(&why),
            Ok(path) => {
                let dump = fs::read(&path).unwrap();
                fs::remove_file(path).unwrap();
                assert!(count(&dump, [FOLDER.as_bytes()].into_iter())[0] > 0, "what is there is not found");
                found.extend(found_in(&dump, &secrets).into_iter().map(|copies| format!("{step}, dump: {copies}")));
            }
        }
        process.go_on();
        if step == ENDED {
            out(&format!("the token: {tokens} copies in the end, {kept} at most"));
            break;
        }
    }
    assert!(kept > 0, "the search finds what is there: a token while it is in use");
    assert!(found.is_empty(), "{found:#?}");
}
