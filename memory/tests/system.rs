//! What the system does with the arena: limits, forks and what `/proc` says. Processes are this test program started again.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

use keyfold_memory::{Guarded, check_locked, status};
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

const CHILD: &str = "KEYFOLD_MEMORY_TEST";

/// Runs the test `name` in a process of its own, where [`is_child`] is true; what it says.
fn run(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    for line in said.lines().filter(|line| line.starts_with("SKIPPED")) {
        say(line);
    }
}

/// Not by `println!`, which the test harness throws away where a test passes.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "\n{line}");
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// From now on this process may lock so many bytes, and is nobody's who may lock more.
fn limit(bytes: u64) {
    limit_below(bytes, bytes);
}

/// The same, and that it may raise the limit to `most`.
fn limit_below(bytes: u64, most: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: most };
    // SAFETY: a valid limit; and of the users of this process alone.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit), 0);
        if libc::geteuid() == 0 {
            assert_eq!(libc::setuid(65_534), 0);
            // So that it may still read what `/proc` says of it.
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
        }
    }
}

/// Whether [`limit`] may be so high.
fn may_set(bytes: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the limit of this process.
    unsafe {
        libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) == 0 && (limit.rlim_max >= bytes || libc::geteuid() == 0)
    }
}

/// Of the mapping of `value`, as the kernel shows them: its flags, such as `lo` (locked) and `dd` (not in dumps).
fn flags_of<T>(value: &Guarded<T>) -> Vec<String> {
    let addr = (&raw const **value).addr();
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut within = false;
    for line in smaps.lines() {
        let range = line.split_whitespace().next().and_then(|word| word.split_once('-'));
        if let Some((Ok(start), Ok(end))) =
            range.map(|(start, end)| (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)))
        {
            within = (start..end).contains(&addr);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| within) {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("no mapping has the value");
}

fn has<T>(value: &Guarded<T>, flag: &str) -> bool {
    flags_of(value).iter().any(|found| found == flag)
}

// Failures T5, T6
#[test]
fn keys_are_locked_and_left_out_of_dumps_where_the_system_allows_it() {
    if !is_child() {
        return run("keys_are_locked_and_left_out_of_dumps_where_the_system_allows_it");
    }
    check_locked(&[32]).unwrap();
    let key = Guarded::new([1_u8; 32]);
    assert!(has(&key, "lo") && has(&key, "dd"), "{:?}", flags_of(&key));
    assert_eq!((status().locked, status().unlocked), (32, 0));
    assert!(status().reserved >= 16 << 10);
    drop(key);
    assert_eq!(status().locked, 0);
}

// Failure T6
#[test]
fn beyond_the_limit_keys_are_held_and_counted_and_refused_on_request() {
    if !is_child() {
        return run("beyond_the_limit_keys_are_held_and_counted_and_refused_on_request");
    }
    limit(64 << 10);
    check_locked(&[32]).unwrap();
    let mut keys: Vec<_> = (0..10_000_usize).map(Guarded::new).collect();
    assert!(keys.iter().enumerate().all(|(n, key)| **key == n));
    let full = status();
    assert_eq!(full.locked + full.unlocked, 320_000);
    assert!(full.locked > 30_000 && full.reserved <= 64 << 10, "{full:?}");
    assert_eq!(check_locked(&[32]).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
    // Where there is room again, the next ones are locked.
    keys.drain(..5_000);
    let first = Guarded::new(1_usize);
    assert!(has(&first, "lo"));
    drop(keys);
    check_locked(&[32]).unwrap();
    assert_eq!(status().unlocked, 0);
}

// Failure T6
#[test]
fn room_is_asked_for_every_size_that_is_to_come() {
    if !is_child() {
        return run("room_is_asked_for_every_size_that_is_to_come");
    }
    limit(64 << 10);
    check_locked(&[32, 64, 256, 512]).unwrap();
    assert_eq!(check_locked(&[32, 64, 256, 512, 1024]).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
    let keys =
        (Guarded::new([1_u8; 32]), Guarded::new([1_u8; 64]), Guarded::new([1_u8; 200]), Guarded::new([1_u8; 512]));
    assert_eq!((status().locked, status().unlocked), (32 + 64 + 256 + 512, 0), "what there was room for is locked");
    drop(keys);
}

// Failure T6
#[test]
fn what_could_not_be_locked_is_locked_once_there_is_room() {
    if !is_child() {
        return run("what_could_not_be_locked_is_locked_once_there_is_room");
    }
    limit_below(64 << 10, 1 << 20);
    let keys: Vec<_> = (0..3_000_usize).map(Guarded::new).collect();
    let last = &keys[2_999];
    assert!(!has(last, "lo") && status().unlocked > 0 && check_locked(&[32]).is_err());
    limit_below(1 << 20, 1 << 20);
    assert_eq!(status().unlocked, 0);
    assert!(has(last, "lo") && check_locked(&[32]).is_ok());
    // And so are the places beside it that nobody had.
    let next = Guarded::new(1_usize);
    assert!(has(&next, "lo") && status().unlocked == 0);
    assert!(keys.iter().enumerate().all(|(n, key)| **key == n));
}

/// From now on the system refuses to leave pages out of core dumps.
fn refuse_dontdump() {
    let [word, equals, answer] = [
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ];
    let step = |code: u32, k: u32, no: u8| libc::sock_filter { code: code as u16, jt: 0, jf: no, k };
    // Of `seccomp_data`: the number of the call, and the lower half of its third argument.
    let third =
        std::mem::offset_of!(libc::seccomp_data, args) as u32 + 16 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut filter = [
        step(word, std::mem::offset_of!(libc::seccomp_data, nr) as u32, 0),
        step(equals, libc::SYS_madvise as u32, 3),
        step(word, third, 0),
        step(equals, libc::MADV_DONTDUMP as u32, 1),
        step(answer, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32, 0),
        step(answer, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a valid program, which the kernel copies; of this thread, which is the one that makes keys.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

// Failures T5, T6
#[test]
fn what_is_not_left_out_of_core_dumps_counts_as_not_locked() {
    if !is_child() {
        return run("what_is_not_left_out_of_core_dumps_counts_as_not_locked");
    }
    check_locked(&[32]).unwrap();
    refuse_dontdump();
    let before = Guarded::new([1_u8; 32]);
    assert_eq!((status().locked, status().unlocked), (32, 0), "in pages that were left out before");
    let key = Guarded::new([1_u8; 4096]);
    assert!(has(&key, "lo") && !has(&key, "dd"), "locked all the same: {:?}", flags_of(&key));
    assert_eq!((status().locked, status().unlocked), (32, 4096));
    assert_eq!(check_locked(&[32]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    drop((before, key));
}

// Failure T6
#[test]
fn nothing_is_locked_where_nothing_may_be() {
    if !is_child() {
        return run("nothing_is_locked_where_nothing_may_be");
    }
    limit(0);
    let before = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    for _ in 0..100 {
        assert_eq!(check_locked(&[32]).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    let after = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    assert!(after <= before + 2, "asking costs no memory: {before} mappings, {after} afterwards");
    let key = Guarded::new([1_u8; 32]);
    assert!(!has(&key, "lo") && has(&key, "dd"), "not in core dumps all the same: {:?}", flags_of(&key));
    assert_eq!((status().locked, status().unlocked), (0, 32));
}

/// Forks, has the child do `work`, and says how it ended.
fn fork(work: impl FnOnce() -> bool) -> std::process::ExitStatus {
    // SAFETY: the child runs this thread alone, and leaves by `_exit`, without destructors. `alarm` ends it if it hangs.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            // SAFETY: as above.
            unsafe { libc::alarm(60) };
            let is_good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(!is_good)) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: waits for a child of this process; `status` is a valid place for its status.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            std::process::ExitStatus::from_raw(status)
        }
    }
}

/// A child that had zeros would seal under them; one that shared memory would lose what its parent erases.
// Failure T7
#[test]
fn a_forked_child_has_the_keys_in_locked_memory_of_its_own() {
    if !is_child() {
        return run("a_forked_child_has_the_keys_in_locked_memory_of_its_own");
    }
    let mut key = Guarded::new([7_u8; 32]);
    let before = status();
    let child = fork(|| {
        let is_ours = *key == [7; 32] && has(&key, "lo") && has(&key, "dd") && status() == before;
        *key = [9; 32];
        is_ours && *key == [9; 32]
    });
    assert!(child.success(), "{child}");
    assert_eq!(*key, [7; 32]);
    // In a child that may lock nothing they are counted as what they are, and so is what comes into places that were locked.
    let child = fork(|| {
        limit(0);
        fork(|| {
            let another = Guarded::new([8_u8; 32]);
            let is_counted = status().unlocked == 64 && status().locked == 0 && !has(&another, "lo");
            *key == [7; 32] && is_counted && check_locked(&[32]).is_err()
        })
        .success()
    });
    assert!(child.success(), "{child}");
    // Nor is there a locked place for the next one where no key is left that would be counted.
    drop(key);
    check_locked(&[32]).unwrap();
    let child = fork(|| {
        limit(0);
        fork(|| status().unlocked == 0 && check_locked(&[32]).is_err()).success()
    });
    assert!(child.success(), "{child}");
    // One that may lock the chunk with room for the next one, but not those before it, says what it holds in them.
    let keys: Vec<_> = (0..1_200_usize).map(Guarded::new).collect();
    let child = fork(|| {
        limit(16 << 10);
        fork(|| check_locked(&[32]).is_err() && status().unlocked > 0 && has(&Guarded::new(1_usize), "lo")).success()
    });
    assert!(child.success(), "{child}");
    drop(keys);
}

/// What a data key takes; core's `keyring::open_key::tests::what_keys_take_up` has the lengths.
type DataKey = (Guarded<[u8; 256]>, Guarded<[u8; 32]>, Guarded<[u8; 32]>);

fn data_key() -> DataKey {
    (Guarded::zeroed(), Guarded::zeroed(), Guarded::zeroed())
}

/// docs/MEMORY.md has the number.
#[test]
fn eight_mebibytes_hold_twenty_five_thousand_data_keys() {
    const LIMIT: u64 = 8 << 20;
    if !is_child() {
        return run("eight_mebibytes_hold_twenty_five_thousand_data_keys");
    }
    if !may_set(LIMIT) {
        return say("SKIPPED eight_mebibytes_hold_twenty_five_thousand_data_keys: this process may not lock 8 MiB");
    }
    limit(LIMIT);
    let mut keys = Vec::new();
    while status().unlocked == 0 {
        keys.push(data_key());
    }
    println!("{} data keys, {:?}", keys.len() - 1, status());
    assert!((25_000..26_000).contains(&keys.len()), "{}", keys.len());
}

/// As many keys as a cache of default size holds. A process may have 65,530 mappings by default, and there should not be one per chunk.
#[test]
fn a_full_cache_takes_up_few_mappings() {
    if !is_child() {
        return run("a_full_cache_takes_up_few_mappings");
    }
    let mappings = || fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let before = mappings();
    let keys: Vec<_> = (0..51_690).map(|_| data_key()).collect();
    let after = mappings();
    println!("{} data keys, {:?}: {before} mappings, then {after}", keys.len(), status());
    assert!(after <= before + 20, "{before} mappings, then {after}");
}

/// Why the arena has neither (docs/MEMORY.md): a child would seal under zeros, and what it erases is gone for its parent.
#[test]
fn pages_that_are_wiped_on_fork_or_secret_do_not_serve_a_child() {
    const LEN: usize = 4096;
    let map = |kind, file| {
        // SAFETY: a new mapping, which takes the place of none.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), LEN, libc::PROT_READ | libc::PROT_WRITE, kind, file, 0) };
        (start != libc::MAP_FAILED).then_some(start.cast::<u8>())
    };
    let wiped = map(libc::MAP_PRIVATE | libc::MAP_ANON, -1).unwrap();
    // SAFETY: of the mapping above, which nobody else has.
    let child = unsafe {
        wiped.write(1);
        assert_eq!(libc::madvise(wiped.cast(), LEN, libc::MADV_WIPEONFORK), 0);
        fork(|| wiped.read() == 0)
    };
    assert!(child.success(), "{child}");

    // SAFETY: a system call without pointers.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) } as libc::c_int;
    if file < 0 {
        let why = std::io::Error::last_os_error();
        return say(&format!(
            "SKIPPED pages_that_are_wiped_on_fork_or_secret_do_not_serve_a_child: memfd_secret: {why}"
        ));
    }
    // SAFETY: a file of this process.
    assert_eq!(unsafe { libc::ftruncate(file, LEN as libc::off_t) }, 0);
    assert_eq!(map(libc::MAP_PRIVATE, file), None, "it can be had for one process alone");
    let secret = map(libc::MAP_SHARED, file).unwrap();
    // SAFETY: of the mapping above, which this process and its child have.
    unsafe {
        secret.write(1);
        let child = fork(|| {
            secret.write(0);
            true
        });
        assert!(child.success(), "{child}");
        assert_eq!(secret.read(), 0, "what a child erases stays with its parent");
    }
}

// Failure T7
#[test]
fn a_fork_while_other_threads_make_and_drop_keys_leaves_no_lock_behind() {
    if !is_child() {
        return run("a_fork_while_other_threads_make_and_drop_keys_leaves_no_lock_behind");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let keys: Vec<_> = (0..50_u64).map(|n| Guarded::new([n; 8])).collect();
                    drop(keys);
                }
            });
        }
        let ended: Vec<_> = (0..100_u8).map(|n| fork(|| *Guarded::new([n; 8]) == [n; 8])).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(ended.iter().all(std::process::ExitStatus::success));
    });
}
