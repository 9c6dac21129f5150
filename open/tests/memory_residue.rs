//! How many copies of keys are in the memory of a process, in its core dump and in pages that may be swapped: while they are in use,
//! after calls that failed, and after they were dropped (docs/MEMORY.md).
//!
//! The process is this test program started again. It opens a keyring that was made before, seals and opens, drops everything, and
//! never has a key but by what the library does. Its parent makes the same keys from the files, and looks for them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "memory_residue/child.rs"]
mod child;
mod common;
#[path = "memory_residue/search.rs"]
mod search;
#[path = "memory_residue/secrets.rs"]
mod secrets;

use child::{AUDITED, CLOSED, DROPPED, FAILED, FOLDER, IN_USE, OTHER, STREAM, WITHOUT_HANDLES, Waiting};
use common::open;
use common::residue::{count, dump_in, dump_of, memory_of, skipped};
use keyfold::{DocumentValue, ErrorKind, Value, key_memory};
use keyfold_kms::local::LocalKek;
use keyfold_open::NewKeyring;
use search::{Copies, ROUND_KEY, disguised, halves_and_whole, print, round_keys, search};
use secrets::{DERIVED, NEXT_LINE, Secrets, audit_keys_of, is_held, keys_of, keys_of_other};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

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
[fields.name]
mode = "document"
[documents.loose]
row_binding = "none"
"#;
const AUDIT: &str = r#"
[keks.audit]
uri = "local:audit.kek"
wraps = "audit"
[audit]
file = "audit.jsonl"
kek = "audit"
"#;

/// A keyring with two configurations: one that the process opens, and one without `[audit]`, by which nobody adds to its trail.
fn keyring() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let new = NewKeyring { name: "ring".to_owned(), environment: "test".to_owned(), ..NewKeyring::default() };
    pollster::block_on(keyfold_open::init_with(folder.path(), &new, &keyfold_open::Options::default())).unwrap();
    fs::write(common::policy(folder.path()), POLICY).unwrap();
    LocalKek::create(folder.path().join("audit.kek")).unwrap();
    let config = fs::read_to_string(folder.path().join("keyfold.toml")).unwrap();
    fs::write(folder.path().join(AUDITED), config + AUDIT).unwrap();
    folder
}

/// All that is looked for in the memory of `process`, which has opened the keyring in `folder`.
fn secrets_of(folder: &Path, process: &Waiting) -> Secrets {
    let mut secrets = keys_of(folder, &process.prefixes);
    secrets.extend(audit_keys_of(folder));
    secrets.extend(keys_of_other(&folder.join(OTHER)));
    secrets.extend([disguised(&secrets), round_keys(&secrets)].concat());
    secrets
}

/// Checks that guarded memory has what docs/MEMORY.md says: also that the search finds what is there.
fn check_guarded(step: &str, name: &str, copies: Copies) {
    let is_left_by_handles = is_held(name) && !name.starts_with("lookup") && !name.contains("in HMAC") && name != "KEK";
    let is_next_line = name.starts_with(NEXT_LINE);
    let is_audit_kek = name.starts_with("audit KEK") && !name.contains("in HMAC");
    match step {
        DROPPED => assert_eq!(copies.guarded, 0, "{name} is left"),
        _ if name.starts_with(&format!("{DERIVED} {STREAM},")) && has_stream(step) => {
            // RustCrypto has round keys for opening too, of which the last one is the first one for sealing.
            assert!(copies.guarded <= 2, "{step}: {name} is there more often than its cipher has it");
        }
        // It is moved into the call that fails.
        _ if name.starts_with(&format!("{DERIVED} {FAILED}")) && step.ends_with(&format!("({FAILED})")) => {
            assert!(copies.guarded <= 2, "{step}: {name} is there more often than its cipher has it");
        }
        _ if name.starts_with(DERIVED) => assert_eq!(copies.guarded, 0, "{step}: {name} outlives its call"),
        WITHOUT_HANDLES => assert_eq!(copies.guarded, usize::from(is_audit_kek), "{name}, with the keyring alone"),
        CLOSED if name.starts_with("KEK") || is_next_line => assert_eq!(copies.guarded, 0, "{name} outlives close"),
        CLOSED if name.starts_with("root") && is_left_by_handles => {
            assert_eq!(copies.guarded, 1, "{name}, by a handle")
        }
        _ if name.starts_with("audit chain") && !is_next_line => {
            assert_eq!(copies.guarded, 0, "{step}: {name} is left")
        }
        _ if step.starts_with(IN_USE) && (name == "KEK" || name == NEXT_LINE || is_audit_kek || is_left_by_handles) => {
            assert_eq!(copies.guarded, 1, "{name}: the search finds what is there");
        }
        _ => assert!(copies.guarded <= 1, "{step}: {name} is there twice"),
    }
}

/// Whether the handle of a stream is there at this step.
fn has_stream(step: &str) -> bool {
    step.starts_with(IN_USE) || step == CLOSED || step.ends_with(&format!("({STREAM})"))
}

/// Covers F-15.1-2.
// Failures T4, T6
#[test]
fn keys_are_in_guarded_memory_while_in_use_and_nowhere_afterwards() {
    let folder = keyring();
    let mut process = Waiting::start(folder.path(), "");
    let (mut held_expanded, mut found_outside) = (BTreeSet::new(), Vec::new());
    loop {
        let step = process.hear();
        let memory = memory_of(process.process.id());
        let keys = secrets_of(folder.path(), &process);
        let found = search(&memory, &keys);
        let read: usize = memory.iter().map(|mapping| mapping.bytes.len()).sum();
        print(&format!("{step}, {read} bytes read, {} secrets", keys.len()), &keys, &found);
        for ((name, _), copies) in keys.iter().zip(found) {
            if copies.open_to_swap() > 0 {
                found_outside.push(format!("{step}: {name}: {} copies", copies.open_to_swap()));
            }
            if name.contains(ROUND_KEY) && copies.guarded > 0 {
                held_expanded.insert(name.clone());
            }
            check_guarded(&step, name, copies);
        }
        process.go_on();
        if step == DROPPED {
            break;
        }
    }
    assert!(found_outside.is_empty(), "in memory that may be swapped: {found_outside:#?}");
    assert_eq!(
        held_expanded.len(),
        6 * 13,
        "the keys that a root, three data keys and two streams expand are in guarded memory"
    );
}

/// No key is in the dump of `process`.
fn check_dump(dump: &Path, folder: &Path, process: &Waiting) {
    let dump = fs::read(dump).unwrap();
    let keys = secrets_of(folder, process);
    println!("{} bytes of core dump, {} secrets: copies of the first half, of the whole", dump.len(), keys.len());
    let [halves, whole] = halves_and_whole(&dump, &keys);
    let found = keys.iter().zip(halves.into_iter().zip(whole)).filter(|(_, (half, _))| *half > 0);
    let found: Vec<_> = found.map(|((name, _), (half, whole))| format!("{half:4}{whole:4}  {name}")).collect();
    assert!(found.is_empty(), "in the dump: {found:#?}");
    // The search finds what is there: a text that the process has.
    assert!(count(&dump, [FOLDER.as_bytes()].into_iter())[0] > 0);
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
    process.go_on_until(IN_USE);
    // SAFETY: of a child of this process that was not waited for.
    assert_eq!(unsafe { libc::kill(process.process.id() as libc::pid_t, libc::SIGABRT) }, 0);
    assert!(process.process.wait().unwrap().core_dumped());
    check_dump(&dump_in(folder.path()), folder.path(), &process);
}

/// Needs gdb, and to be allowed to trace. From a dump after `close` whoever finds the key of any line forges all that follow.
// Failure T5
#[test]
fn no_key_is_in_a_core_dump_of_gdb() {
    let folder = keyring();
    let mut process = Waiting::start(folder.path(), "");
    for step in [IN_USE, CLOSED] {
        process.go_on_until(step);
        match dump_of(process.process.id(), folder.path()) {
            Ok(dump) => {
                check_dump(&dump, folder.path(), &process);
                fs::remove_file(dump).unwrap();
            }
            Err(why) => return skipped(&why),
        }
        process.go_on();
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
    for child in ["unlocked_child", "child_without_room_for_expanded_keys", "child_with_room_for_what_is_reserved"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", child, "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
    }
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

/// Lets the process lock so many bytes at most.
fn limit_to(bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: a valid limit, of this process.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
    drop_ipc_lock();
}

/// The same, and has a keyring refused that needs all that it has locked.
fn lock_at_most(bytes: libc::rlim_t, folder: &Path) {
    limit_to(bytes);
    let error = keyfold_open::open(&folder.join("strict.toml"), &[]).expect_err("not all can be locked");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("[memory]"), "{error}");
}

/// The keys of a keyring could be locked; those of its first column could not.
#[test]
fn child_without_room_for_expanded_keys() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    lock_at_most(64 * 1024, Path::new(&folder));
}

/// What was reserved when the keyring was opened does for every sort of key; when that is used up, no more streams begin.
#[test]
fn child_with_room_for_what_is_reserved() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let ring = keyfold_open::open(&folder.join("strict.toml"), &[common::policy(folder)]).unwrap();
    let reserved = key_memory().reserved;
    limit_to(reserved as libc::rlim_t);
    pollster::block_on(async {
        let note = ring.field("note").unwrap().encryptor().await.unwrap();
        note.encrypt_column(&[Value::Text("of two"); 2][..], None::<&[&[u8]]>).unwrap();
        let mrn = ring.field("mrn").unwrap().encryptor().await.unwrap();
        let sealed = mrn.encrypt_column(&[Value::Text("of two"); 2][..], None::<&[&[u8]]>).unwrap();
        let reader = ring.field("mrn").unwrap().decryptor().await.unwrap();
        reader.load_keys(&sealed).await.unwrap();
        reader.decrypt_column(&sealed, None::<&[&[u8]]>).unwrap();
        let value = DocumentValue { field: "name", path: "$.name", value: Value::Text("p-17") };
        ring.documents("loose").unwrap().sealer().await.unwrap().seal(None, &[value], &[], 1).unwrap();
        let sealer = ring.field("image").unwrap().stream_sealer().await.unwrap();
        let mut begun = Vec::new();
        let error = (0..100).find_map(|_| sealer.begin(None).map(|stream| begun.push(stream)).err());
        assert_eq!(error.unwrap().kind(), ErrorKind::Configuration);
        assert!((10..20).contains(&begun.len()), "{} streams", begun.len());
        assert_eq!((key_memory().reserved, key_memory().unlocked), (reserved, 0));
        begun.clear();
        sealer.begin(None).unwrap();
    });
}

#[test]
fn unlocked_child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    lock_at_most(0, folder);
    let ring = open(folder);
    let sealed = common::seal(&ring, "not locked");
    assert_eq!(common::reveal(&ring, &sealed).unwrap(), "not locked");
    assert!(key_memory().locked == 0 && key_memory().unlocked > 0, "{:?}", key_memory());
}
