//! How many copies of keys are in the memory of a process, in its core dump and in pages that may be swapped: while they are in use,
//! and after they were dropped (docs/MEMORY.md).
//!
//! The process is this test program started again. It opens a keyring that was made before, seals and opens, drops everything, and
//! never has a key but by what the library does. Its parent makes the same keys from the files, and looks for them.
//!
//! A little over 500 lines: process, search and dumps are one experiment.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::open;
use data_encoding::HEXLOWER;
use keyfold::aead::Backend;
use keyfold::aead::hazmat::xaes256gcm_open;
use keyfold::vectors::Key;
use keyfold::{ColumnBytes, ErrorKind, KeyClass, Kms, Record, UnwrapRequest, Value, key_memory};
use keyfold_kms::local::LocalKek;
use keyfold_open::NewKeyring;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const FOLDER: &str = "KEYFOLD_TEST_RESIDUE";
const POLICY: &str = r#"version = 1
[fields.note]
row_binding = "none"
columns = ["note"]
index.lookup = { kind = "exact", bits = 8 }
[fields.mrn]
mode = "deterministic"
columns = ["mrn"]
[fields.phone]
mode = "format-preserving"
format = "digits"
columns = ["phone"]
[fields.image]
mode = "stream"
row_binding = "none"
"#;
/// Values of the column, whose key of AES-256-GCM the backend holds while they are sealed and opened.
const ROWS: usize = 1000;
/// What has a prefix of its own.
const VALUE: &str = "a single value";
const COLUMN: &str = "a column";
/// The last two steps.
const IN_USE: &str = "a stream goes on";
const DROPPED: &str = "everything is dropped";

// The process that is looked at

/// Not by `println!`, which the test harness swallows.
fn out(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

fn say(text: &str) {
    out(&format!("@{text}"));
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Seals and opens values of all sorts under a keyring that it opens; does nothing unless its parent asks for it.
///
/// It stops after each step, before another one overwrites what that has left on the stack, and says which prefix of a nonce it has used.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let ring = open(Path::new(&folder));
    let done = |step: &str, of: &str, sealed: &[u8]| say(&format!("{step}|{of}|{}", HEXLOWER.encode(&sealed[26..38])));
    pollster::block_on(async {
        let note = ring.field("note").unwrap().encryptor().await.unwrap();
        let single = note.encrypt(Value::Text("one value"), None).unwrap();
        done("a value is sealed", VALUE, &single);
        let reader = ring.field("note").unwrap().decryptor().await.unwrap();
        reader.load_keys(&[&single][..]).await.unwrap();
        reader.decrypt(&single, None).unwrap();
        done("it is opened", VALUE, &single);
        let column = note.encrypt_column(&[Value::Text("of many"); ROWS][..], None::<&[&[u8]]>).unwrap();
        done("a column is sealed", COLUMN, column.bytes(0));
        reader.load_keys(&column).await.unwrap();
        reader.decrypt_column(&column, None::<&[&[u8]]>).unwrap();
        done("it is opened", COLUMN, column.bytes(0));
        let mrn = ring.field("mrn").unwrap().encryptor().await.unwrap();
        mrn.encrypt(Value::Text("p-17"), None).unwrap();
        done("a deterministic value is sealed", COLUMN, column.bytes(0));
        let index = ring.field("note").unwrap().indexer("lookup").await.unwrap();
        index.tokens(Value::Text("p-17")).unwrap();
        done("a token is made", COLUMN, column.bytes(0));
        let phone = ring.field("phone").unwrap().format_preserver().await.unwrap();
        phone.encrypt("0301234567").unwrap();
        done("a format is preserved", COLUMN, column.bytes(0));
        let sealer = ring.field("image").unwrap().stream_sealer().await.unwrap();
        let (mut stream, mut out) = (sealer.begin(None).unwrap(), Vec::new());
        stream.update(&[1; 100_000], &mut out).unwrap();
        say(&format!("{IN_USE}, {:?}", key_memory()));
        stream.finish(&mut out).unwrap();
        ring.close();
    });
    drop(ring);
    say(DROPPED);
}

// Its parent

/// A process at a point where it waits.
struct Waiting {
    process: Child,
    output: BufReader<ChildStdout>,
    /// The prefixes that were used, by what they belong to.
    prefixes: BTreeMap<String, String>,
}

impl Waiting {
    fn start(folder: &Path, before: &str) -> Self {
        let script = format!("{before} exec \"$0\" --exact child --nocapture --test-threads=1");
        let mut process = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .current_dir(folder)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output, prefixes: BTreeMap::new() }
    }

    /// The step that it has done next.
    fn hear(&mut self) -> String {
        let mut lines = (&mut self.output).lines().map(Result::unwrap);
        let said = lines.find_map(|line| line.strip_prefix('@').map(str::to_owned)).expect("it goes on");
        if let [step, of, prefix] = said.split('|').collect::<Vec<_>>()[..] {
            self.prefixes.insert(of.to_owned(), prefix.to_owned());
            return format!("{step} ({of})");
        }
        said
    }

    /// Has it do all steps in which keys are in use.
    fn use_keys(&mut self) {
        while !self.hear().starts_with(IN_USE) {
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every key of the keyring in `folder`, by name: KEK, root, data and look-up keys, and the purpose keys of each.
fn keys_of(folder: &Path, prefixes: &BTreeMap<String, String>) -> Vec<(String, Vec<u8>)> {
    let ring = open(folder);
    let records: Vec<Record> =
        pollster::block_on(ring.list(None, 100)).unwrap().into_iter().map(|info| info.record).collect();
    let of = |record: &Record, bytes: [u8; 32]| Key {
        bytes,
        lineage: record.lineage(),
        class: record.class(),
        slot: record.slot_id(),
        generation: record.key_id().generation(),
    };
    let record = records.iter().find(|record| record.class() == KeyClass::Root).unwrap();
    let kek = LocalKek::open(folder.join("local.kek")).unwrap();
    let (_, wrapped) = record.kek_wraps().next().unwrap();
    let payload = pollster::block_on(kek.unwrap(UnwrapRequest::new(wrapped, &record.kms_context()))).unwrap();
    let root = of(record, *payload.expose().first_chunk().unwrap());
    let child_wrap = &root.purpose_keys().into_iter().find(|(label, _)| label.ends_with("child-wrap")).unwrap().1;
    let mut keys = vec![root];
    for record in records.iter().filter(|record| record.class() != KeyClass::Root) {
        let aad = [&of(record, [0; 32]).identity_bytes()[..], record.commitment()].concat();
        // nonce (24) ‖ ciphertext ‖ tag, wherever that is in the record.
        let opened = record.as_bytes().windows(72).find_map(|wrap| {
            let mut key = wrap[24..].to_vec();
            let nonce = wrap[..24].try_into().unwrap();
            let child_wrap = child_wrap[..].try_into().unwrap();
            xaes256gcm_open(Backend::default(), child_wrap, &nonce, &aad, &mut key).ok()?;
            Some(*key.first_chunk().unwrap())
        });
        keys.push(of(record, opened.expect("the key under the root")));
    }
    let kek = fs::read_to_string(folder.join("local.kek")).unwrap();
    let kek = kek.lines().nth(1).unwrap().as_bytes();
    let mut all = vec![("KEK".to_owned(), HEXLOWER.decode(kek).unwrap()), ("KEK in its file".to_owned(), kek.to_vec())];
    for key in keys {
        assert!(records.iter().any(|record| record.key_id() == key.key_id()), "not the key of its record");
        all.push((format!("{} {}", key.class.name(), key.generation), key.bytes.to_vec()));
        for (label, bytes) in key.purpose_keys() {
            all.push((format!("{} {}: {label}", key.class.name(), key.generation), bytes));
        }
        if key.class == KeyClass::Data {
            for (name, prefix) in prefixes {
                let prefix = HEXLOWER.decode(prefix.as_bytes()).unwrap();
                all.push((format!("AES-256-GCM key of {name}"), key.derived_key(&prefix.try_into().unwrap()).to_vec()));
            }
        }
    }
    all
}

/// Copies of a key.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
struct Copies {
    /// In pages that are locked and not in core dumps.
    guarded: usize,
    heap: usize,
    stack: usize,
    /// In other pages, such as stacks of threads.
    elsewhere: usize,
    /// Of those outside of guarded memory, copies of more than the first half.
    whole: usize,
}

impl Copies {
    fn open_to_swap(self) -> usize {
        self.heap + self.stack + self.elsewhere
    }
}

/// Bytes of half of a key, which is too much as well.
const HALF: usize = 16;

/// How often each of `parts` is in `bytes`.
fn count<'p>(bytes: &[u8], parts: impl Iterator<Item = &'p [u8]>) -> Vec<usize> {
    // By the first two bytes, for speed.
    let parts: Vec<_> = parts.collect();
    let mut by_start = vec![Vec::new(); 1 << 16];
    for (n, part) in parts.iter().enumerate() {
        by_start[usize::from(u16::from_ne_bytes([part[0], part[1]]))].push(n);
    }
    let mut found = vec![0; parts.len()];
    for at in 0..bytes.len().saturating_sub(1) {
        for &n in &by_start[usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]))] {
            found[n] += usize::from(bytes[at..].starts_with(parts[n]));
        }
    }
    found
}

/// Copies of the first halves of keys, and of keys as far as 32 bytes.
fn halves_and_whole(bytes: &[u8], keys: &[(String, Vec<u8>)]) -> [Vec<usize>; 2] {
    [HALF, 2 * HALF].map(|len| count(bytes, keys.iter().map(|(_, key)| key.get(..len).unwrap_or(key))))
}

/// What else gives keys away: their second halves, and those of AES-SIV for CTR; and what HMAC makes of a key before it hashes it.
fn disguised(keys: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (name, key) in keys.iter().filter(|(name, key)| is_held(name) && key.len() >= 2 * HALF) {
        all.extend(key.chunks(HALF).enumerate().skip(1).map(|(n, part)| (format!("{name}, part {n}"), part.to_vec())));
        for pad in [0x36, 0x5c] {
            let padded = key[..HALF].iter().map(|byte| byte ^ pad).collect();
            all.push((format!("{name}, in HMAC, {pad:x}"), padded));
        }
    }
    all
}

/// A part of the memory of a process.
struct Mapping {
    name: String,
    is_guarded: bool,
    bytes: Vec<u8>,
}

/// All memory of the process that can be read.
fn memory_of(pid: u32) -> Vec<Mapping> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut all, mut mapping) = (Vec::new(), None);
    for line in smaps.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let Some((start, end)) = words[0].split_once('-').filter(|_| words.len() >= 5) {
            let range = [start, end].map(|addr| u64::from_str_radix(addr, 16).unwrap());
            mapping = Some((range, words[1].starts_with('r'), words.get(5).copied().unwrap_or("").to_owned()));
        } else if words[0] == "VmFlags:"
            && let Some(([start, end], true, name)) = mapping.take()
        {
            let mut bytes = vec![0; (end - start) as usize];
            // Special mappings of the kernel's cannot be read.
            if memory.read_exact_at(&mut bytes, start).is_err() {
                assert!(name.starts_with("[v"), "{name} cannot be read");
                continue;
            }
            all.push(Mapping { name, is_guarded: words.contains(&"lo") && words.contains(&"dd"), bytes });
        }
    }
    all
}

/// Of keys that are expanded in guarded memory, the round keys there after the first two, which are the key itself. Two that follow each
/// other give the key away.
fn round_keys(memory: &[Mapping], keys: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    const LEN: usize = 15 * 16;
    let mut all = Vec::new();
    for (name, key) in keys.iter().filter(|(name, _)| name.ends_with("/01-field") || name.ends_with("/child-wrap")) {
        let expanded = memory.iter().filter(|mapping| mapping.is_guarded).find_map(|mapping| {
            let at = mapping.bytes.windows(key.len()).position(|bytes| bytes == key)?;
            mapping.bytes.get(at..at + LEN)
        });
        let rest = expanded.unwrap_or_default().as_chunks::<16>().0.iter().enumerate().skip(2);
        all.extend(rest.map(|(n, round_key)| (format!("{name}, round key {n}"), round_key.to_vec())));
    }
    all
}

/// Copies of each key in this memory.
fn search(memory: &[Mapping], keys: &[(String, Vec<u8>)]) -> Vec<Copies> {
    let mut found = vec![Copies::default(); keys.len()];
    for Mapping { name, is_guarded, bytes } in memory {
        let [halves, whole] = halves_and_whole(bytes, keys);
        for ((copies, half), whole) in found.iter_mut().zip(halves).zip(whole) {
            copies.whole += if *is_guarded { 0 } else { whole };
            *match &name[..] {
                _ if *is_guarded => &mut copies.guarded,
                "[heap]" => &mut copies.heap,
                "[stack]" => &mut copies.stack,
                _ => &mut copies.elsewhere,
            } += half;
        }
    }
    found
}

fn print(when: &str, keys: &[(String, Vec<u8>)], found: &[Copies]) {
    println!("{when}: copies in guarded memory, heap, main stack, elsewhere; whole ones outside of guarded memory");
    for ((name, _), copies) in keys.iter().zip(found).filter(|(_, copies)| **copies != Copies::default()) {
        let Copies { guarded, heap, stack, elsewhere, whole } = copies;
        println!("{guarded:4}{heap:4}{stack:4}{elsewhere:4};{whole:4}  {name}");
    }
}

fn keyring() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let new = NewKeyring { name: "ring".to_owned(), environment: "test".to_owned(), ..NewKeyring::default() };
    pollster::block_on(keyfold_open::init_with(folder.path(), &new, &keyfold_open::Options::default())).unwrap();
    fs::write(common::policy(folder.path()), POLICY).unwrap();
    folder
}

/// The keys that are used as they are, and so are in memory while the keyring is open.
fn is_held(name: &str) -> bool {
    name == "KEK" || name.contains(": ") && !name.contains("token-proof")
}

/// Keys of one prefix, which the backend holds, and which ring does not erase.
fn is_of_backend(name: &str) -> bool {
    name.starts_with("AES-256-GCM")
}

/// The compiler holds the round keys of what computes the keys of values in registers, and puts one of them, which is 16 bytes, aside on the stack
/// of whoever seals. Overwriting that would cost more than sealing.
fn may_be_spilled(name: &str) -> bool {
    name.contains("/01-field")
}

// Failures T4, T6
#[test]
fn keys_are_in_guarded_memory_while_in_use_and_nowhere_afterwards() {
    let folder = keyring();
    let mut process = Waiting::start(folder.path(), "");
    let (mut expanded, mut found_outside) = (BTreeMap::new(), Vec::new());
    loop {
        let step = process.hear();
        let memory = memory_of(process.process.id());
        let mut keys = keys_of(folder.path(), &process.prefixes);
        expanded = round_keys(&memory, &keys).into_iter().chain(expanded).collect();
        keys.extend(disguised(&keys));
        keys.extend(expanded.clone());
        let found = search(&memory, &keys);
        let read: usize = memory.iter().map(|mapping| mapping.bytes.len()).sum();
        print(&format!("{step}, {read} bytes read, {} secrets", keys.len()), &keys, &found);
        let is_in_use = step.starts_with(IN_USE);
        for ((name, _), copies) in keys.iter().zip(&found).filter(|((name, _), _)| !is_of_backend(name)) {
            if copies.open_to_swap() > usize::from(may_be_spilled(name)) {
                found_outside.push(format!("{step}: {name}: {} copies", copies.open_to_swap()));
            }
            assert!(copies.guarded <= 1, "{step}: {name} is there twice");
            assert!(step != DROPPED || copies.guarded == 0, "{name} is left");
            if is_in_use && is_held(name) && !name.starts_with("lookup") && !name.contains("in HMAC")
                || name.contains("round key") && step != DROPPED
            {
                assert_eq!(copies.guarded, 1, "{name}: the search finds what is there");
            }
        }
        process.go_on();
        if step == DROPPED {
            break;
        }
    }
    assert!(found_outside.is_empty(), "in memory that may be swapped: {found_outside:#?}");
    assert_eq!(expanded.len(), 2 * 13, "two keys are expanded in guarded memory");
}

/// No key but those of the backend is in the dump of `process`.
fn check_dump(dump: &Path, folder: &Path, process: &Waiting) {
    let dump = fs::read(dump).unwrap();
    let mut keys = keys_of(folder, &process.prefixes);
    keys.extend(disguised(&keys));
    println!("{} bytes of core dump, {} secrets: copies of the first half, of the whole", dump.len(), keys.len());
    let [halves, whole] = halves_and_whole(&dump, &keys);
    for (((name, _), half), whole) in keys.iter().zip(halves).zip(whole) {
        if half > 0 {
            println!("{half:4}{whole:4}  {name}");
        }
        assert!(half <= usize::from(may_be_spilled(name)) || is_of_backend(name), "{name} is in the dump");
    }
    // The search finds what is there: a text that the process has.
    assert!(count(&dump, [FOLDER.as_bytes()].into_iter())[0] > 0);
}

/// The file in `folder` that a dump was written to.
fn dump_in(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("core")).unwrap()
}

fn skipped(why: &str) {
    out(&format!("SKIPPED: {why}"));
}

/// Needs a kernel that writes core dumps into the folder of the process.
// Failure T5
#[test]
fn no_key_is_in_a_core_dump_of_the_kernel() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.trim() != "core" {
        return skipped(&format!("core dumps go elsewhere: {}", pattern.trim()));
    }
    let folder = keyring();
    let mut process = Waiting::start(folder.path(), "ulimit -c unlimited &&");
    process.use_keys();
    // SAFETY: of a child of this process that was not waited for.
    assert_eq!(unsafe { libc::kill(process.process.id() as libc::pid_t, libc::SIGABRT) }, 0);
    assert!(process.process.wait().unwrap().core_dumped());
    check_dump(&dump_in(folder.path()), folder.path(), &process);
}

/// Needs gdb, and to be allowed to trace.
// Failure T5
#[test]
fn no_key_is_in_a_core_dump_of_gdb() {
    let folder = keyring();
    let mut process = Waiting::start(folder.path(), "");
    process.use_keys();
    let pid = process.process.id().to_string();
    let said = Command::new("gcore").args(["-o", "core", &pid]).current_dir(folder.path()).output();
    match said {
        Ok(said) if said.status.success() => check_dump(&dump_in(folder.path()), folder.path(), &process),
        Ok(said) => skipped(&format!("gcore: {}", String::from_utf8_lossy(&said.stderr))),
        Err(error) => skipped(&format!("gcore: {error}")),
    }
}

/// Where nothing may be locked a keyring opens, unless it is to be locked.
// Failure T6
#[test]
fn a_keyring_that_needs_locked_memory_says_so_where_there_is_none() {
    let folder = keyring();
    let strict = folder.path().join("strict.toml");
    let config = fs::read_to_string(folder.path().join("keyfold.toml")).unwrap();
    fs::write(&strict, format!("{config}\n[memory]\nlock = \"required\"\n")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unlocked_child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    keyfold_open::open(&strict, &[]).expect("where memory can be locked it opens");
}

/// Root may lock whatever its limit is.
fn drop_ipc_lock() {
    const VERSION_3: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 14;
    // Version and process; effective, permitted and inheritable capabilities, in two words each.
    let (header, mut sets) = ([VERSION_3, 0], [[0_u32; 3]; 2]);
    // SAFETY: the layouts are those of capget(2) and capset(2), of this thread, which is the one that opens the keyring.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        sets[0].iter_mut().for_each(|set| *set &= !(1 << IPC_LOCK));
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}

#[test]
fn unlocked_child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid limit, of this process.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
    drop_ipc_lock();
    let error = keyfold_open::open(&folder.join("strict.toml"), &[]).expect_err("nothing can be locked");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("[memory]"), "{error}");
    let ring = open(folder);
    let sealed = common::seal(&ring, "not locked");
    assert_eq!(common::reveal(&ring, &sealed).unwrap(), "not locked");
    assert!(key_memory().locked == 0 && key_memory().unlocked > 0, "{:?}", key_memory());
}
