//! Ctrl-C and its relatives half way: nothing under the final name, no temporary file, and a second run works.

mod common;

use common::{PATIENTS, World, check_silence, skip, snapshot};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// A `protect` that reads from a pipe, whose keys are open and whose output has been started.
struct Working {
    child: Child,
    log: JoinHandle<String>,
}

const ARGUMENTS: [&str; 6] = ["protect", "-", "--format", "csv", "--output", "out.csv"];

impl Working {
    /// Starts it; its standard input is the caller's.
    fn start(world: &World, arguments: &[&str]) -> (Self, ChildStdin) {
        let mut command = world.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stdin = child.stdin.take().expect("a pipe");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let log = spawn(move || stderr.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"));
        (Self { child, log }, stdin)
    }

    /// Waits until the process has a file without a name open in the folder of the data: the output half way.
    fn wait_for_output(&mut self, world: &World) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            assert!(self.child.try_wait().expect("a status").is_none(), "it has ended already");
            let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).into_iter().flatten().flatten();
            let mut links = files.filter_map(|fd| fs::read_link(fd.path()).ok());
            if let Some(link) = links.find(|link| link.starts_with(world.data())) {
                return link.to_string_lossy().ends_with(" (deleted)");
            }
            sleep(Duration::from_millis(5));
        }
        panic!("no output was started");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("sent");
    }

    /// Exit code, if it was not killed, and what it said; must come soon.
    fn end(mut self) -> (Option<i32>, String) {
        let end = Instant::now() + Duration::from_secs(10);
        let status = loop {
            match self.child.try_wait().expect("a status") {
                Some(status) => break status,
                None => assert!(Instant::now() < end, "it does not end"),
            }
            sleep(Duration::from_millis(5));
        };
        let log = self.log.join().expect("the log");
        check_silence(&log);
        (status.code(), log)
    }
}

/// Rows for as long as somebody reads them.
struct Feeder {
    thread: JoinHandle<()>,
    /// How many bytes somebody has taken.
    len: Arc<AtomicUsize>,
}

fn feed_for_ever(mut stdin: ChildStdin) -> Feeder {
    let len = Arc::<AtomicUsize>::default();
    let fed = Arc::clone(&len);
    let thread = spawn(move || {
        let rows = PATIENTS.lines().skip(1).map(|row| format!("{row}\n")).collect::<String>().repeat(500);
        let mut next: &[u8] = PATIENTS.as_bytes();
        while stdin.write_all(next).is_ok() {
            fed.fetch_add(next.len(), Ordering::Relaxed);
            next = rows.as_bytes();
        }
    });
    Feeder { thread, len }
}

#[track_caller]
fn check_second_run(world: &World) {
    world.succeeds(&["protect", "in.csv", "--output", "out.csv", "--force"]);
    world.succeeds(&["reveal", "out.csv", "--output", "back.csv"]);
    assert_eq!(world.text("back.csv"), PATIENTS);
}

/// The signals that end the command. What it was started to ignore (`nohup`, a job in the background) it goes on ignoring, and so do these tests.
fn signals() -> Vec<(Signal, i32, &'static str)> {
    let mut signals = vec![(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM"), (Signal::HUP, 129, "SIGHUP")];
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
    signals.retain(|(signal, _, name)| {
        let is_ignored = ignored >> (signal.as_raw() - 1) & 1 == 1;
        if is_ignored {
            skip(&format!("{name}, since the tests were started with it ignored"));
        }
        !is_ignored
    });
    signals
}

const STREAM_POLICY: &str =
    "version = 1\n[fields.image]\nmode = \"stream\"\n[fields.scan]\nmode = \"stream\"\nrow_binding = \"id\"\n";

/// What waits for somebody else ends by a signal: a named pipe that nobody writes to, a row that nobody says, an output that nobody reads.
#[test]
fn while_others_are_waited_for() {
    for (signal, code, name) in signals() {
        let world = World::new();
        world.write("policy.toml", common::POLICY_FILE.to_owned() + &STREAM_POLICY["version = 1".len()..]);
        world.write("large", vec![7; 3_000_000]);
        let row = PATIENTS.lines().nth(1).expect("a row");
        world.write("large.csv", PATIENTS.to_owned() + &format!("{row}\n").repeat(20_000));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, world.path("pipe"), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let cases: [(&[&str], &str); 6] = [
            (&["protect", "--stream", "image", "pipe", "--output", "out"], "no file was written"),
            (&["protect", "pipe", "--format", "csv", "--output", "out"], "no file was written"),
            (&["protect", "--stream", "scan", "large", "--output", "out", "--row-file", "pipe"], "nothing was written"),
            (&["protect", "--stream", "scan", "large", "--output", "out", "--row-file", "-"], "nothing was written"),
            (&["protect", "--stream", "image", "large", "--output", "-"], "a part of the data only"),
            (&["protect", "large.csv", "--output", "-"], "a part of the data only"),
        ];
        for (arguments, says) in cases {
            let mut command = world.command(arguments);
            let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("it starts");
            let kept = (child.stdin.take(), child.stdout.take());
            let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
            let log = spawn(move || stderr.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"));
            sleep(Duration::from_millis(1500));
            let working = Working { child, log };
            working.signal(signal);
            let (ended, log) = working.end();
            assert_eq!(ended, Some(code), "{arguments:?}: {log}");
            assert!(log.contains(&format!("interrupted by {name}; ")) && log.contains(says), "{arguments:?}: {log}");
            assert!(!world.path("out").exists());
            drop(kept);
        }
    }
}

/// A pipe at standard error that nobody reads holds the command up, but not after the first signal.
#[test]
fn while_nobody_reads_what_is_said() {
    let world = World::new();
    for (signal, code, name) in signals() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("set");
        while writer.write(&[b' '; 4096]).is_ok() {}
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).expect("set");
        // With a log, of which the first line has no room.
        let mut child = world.command(&ARGUMENTS).stdin(Stdio::piped()).stderr(writer).spawn().expect("it starts");
        sleep(Duration::from_millis(1500));
        assert!(child.try_wait().expect("a status").is_none(), "it waits");
        kill_process(Pid::from_child(&child), signal).expect("sent");
        let end = Instant::now() + Duration::from_secs(10);
        let status = loop {
            match child.try_wait().expect("a status") {
                Some(status) => break status,
                None if Instant::now() < end => sleep(Duration::from_millis(5)),
                None => {
                    child.kill().expect("killed");
                    panic!("{name} is not noticed");
                }
            }
        };
        assert_eq!(status.code(), Some(code));
        assert!(!world.path("out.csv").exists());
        drop(reader);
    }
}

/// A terminal that is stopped (Ctrl-S) gets no progress, and holds up nobody who only has that to show.
#[test]
fn while_a_terminal_is_stopped() {
    let world = World::new();
    world.write("policy.toml", STREAM_POLICY);
    world.write("large", vec![7; 30_000_000]);
    let (keyfold, config) = (env!("CARGO_BIN_EXE_keyfold"), world.config());
    let protect = format!(
        "{keyfold} protect --config {} --policy policy.toml --stream image large --output out",
        config.display()
    );
    // Stopped before it begins, and let go on when its output is there, or after 20 s.
    let script = format!(
        "(sleep 1; printf '\\023'; touch stopped; for i in $(seq 200); do test -e out && touch done && break; sleep 0.1; done; printf '\\021'; sleep 1) \
         | script -qec 'while ! test -e stopped; do sleep 0.1; done; sleep 0.2; {protect}' /dev/null"
    );
    let output =
        std::process::Command::new("sh").args(["-c", &script]).current_dir(world.data()).output().expect("a shell");
    if output.status.code() == Some(127) {
        skip("a terminal (no script)");
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("protected 1 stream"), "{text:?}");
    assert!(world.path("done").exists(), "it waited for the terminal: {text:?}");
}

/// A named pipe is read to its end once somebody writes to it, however late.
#[test]
fn a_named_pipe_is_waited_for() {
    let world = World::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, world.path("pipe"), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    let path = world.path("pipe");
    let writer = spawn(move || {
        sleep(Duration::from_millis(700));
        let mut pipe = fs::OpenOptions::new().write(true).open(path).expect("a reader");
        for part in PATIENTS.as_bytes().chunks(50) {
            pipe.write_all(part).expect("written");
            sleep(Duration::from_millis(50));
        }
    });
    world.succeeds(&["protect", "pipe", "--format", "csv", "--output", "out.csv"]);
    writer.join().expect("the writer");
    world.succeeds(&["reveal", "out.csv", "--output", "back.csv"]);
    assert_eq!(world.text("back.csv"), PATIENTS);
}

/// At a terminal: no bytes of a stream, and nothing that stays of the progress.
#[test]
fn at_a_terminal() {
    let world = World::new();
    world.write("policy.toml", STREAM_POLICY);
    world.write("large", vec![7; 3_000_000]);
    let (keyfold, config) = (env!("CARGO_BIN_EXE_keyfold"), world.config());
    let script = |rest: &str| {
        let line = format!(
            "stty cols 80; {keyfold} protect --config {} --policy policy.toml --stream image {rest}",
            config.display()
        );
        let output = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(world.data())
            .stdin(Stdio::null())
            .output();
        output.ok().map(|output| (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let Some((code, text)) = script("large --output -") else {
        skip("a terminal (no script)");
        return;
    };
    assert_eq!(code, Some(common::USAGE), "{text}");
    assert!(text.contains("not for a terminal") && text.len() < 1000, "{text}");
    for (rest, ends) in
        [("large --output out", 0), ("missing --output new", common::STORAGE), ("out --output new", common::POLICY)]
    {
        let (code, text) = script(rest).expect("as above");
        assert_eq!(code, Some(ends), "{text}");
        // What is drawn is one line, and cleared before anything else is.
        let last = text.split("\u{1b}[2K").last().unwrap_or_default();
        assert!(last.starts_with("protected 1 stream") || last.starts_with("keyfold: "), "{text:?}");
        for drawn in text.split("\u{1b}[2K").filter(|drawn| drawn.contains("protecting")) {
            assert_eq!(drawn.matches("protecting").count(), 1, "{drawn:?}");
            assert!(drawn.trim_end().chars().count() <= 80 && !drawn.contains("\u{1b}[1A"), "{drawn:?}");
        }
    }
}

// Failure F16
#[test]
fn in_the_middle_of_a_large_input() {
    for (signal, code, name) in signals() {
        let world = World::new();
        let before = snapshot(&world.data());
        let (mut working, stdin) = Working::start(&world, &ARGUMENTS);
        let fed = feed_for_ever(stdin);
        working.wait_for_output(&world);
        let end = Instant::now() + Duration::from_secs(20);
        while fed.len.load(Ordering::Relaxed) < 1 << 20 {
            assert!(Instant::now() < end, "it does not read");
            sleep(Duration::from_millis(5));
        }
        working.signal(signal);
        let (ended, log) = working.end();
        assert_eq!(ended, Some(code), "{log}");
        assert!(log.contains(&format!("interrupted by {name}; no file was written")), "{log}");
        fed.thread.join().expect("the feeder");
        assert_eq!(snapshot(&world.data()), before);
        check_second_run(&world);
    }
}

#[test]
fn while_a_silent_pipe_is_read() {
    for (signal, code, name) in signals() {
        let world = World::new();
        let before = snapshot(&world.data());
        let (mut working, mut stdin) = Working::start(&world, &ARGUMENTS);
        stdin.write_all(PATIENTS.as_bytes()).expect("written");
        working.wait_for_output(&world);
        working.signal(signal);
        let (ended, log) = working.end();
        assert_eq!(ended, Some(code), "{log}");
        assert!(log.contains(name), "{log}");
        assert_eq!(snapshot(&world.data()), before);
        drop(stdin);
    }
}

#[test]
fn together_with_the_end_of_the_input() {
    // Ctrl-C also ends whoever feeds the pipe: what arrives looks complete, and is not.
    for round in 0..10 {
        let world = World::new();
        let before = snapshot(&world.data());
        let (mut working, mut stdin) = Working::start(&world, &ARGUMENTS);
        stdin.write_all(PATIENTS.as_bytes()).expect("written");
        working.wait_for_output(&world);
        working.signal(Signal::TERM);
        drop(stdin);
        let (ended, log) = working.end();
        assert_eq!(ended, Some(143), "round {round}: {log}");
        assert_eq!(snapshot(&world.data()), before);
    }
}

#[test]
fn with_an_output_that_exists() {
    let world = World::new();
    world.write("out.csv", "old");
    let before = snapshot(&world.data());
    let (mut working, stdin) = Working::start(&world, &[&ARGUMENTS[..], &["--force"]].concat());
    let fed = feed_for_ever(stdin);
    working.wait_for_output(&world);
    working.signal(Signal::TERM);
    assert_eq!(working.end().0, Some(143));
    fed.thread.join().expect("the feeder");
    assert_eq!(snapshot(&world.data()), before);
    check_second_run(&world);
}

#[test]
fn killed_without_a_chance_to_clean_up() {
    let world = World::new();
    let before = snapshot(&world.data());
    let (mut working, stdin) = Working::start(&world, &ARGUMENTS);
    let fed = feed_for_ever(stdin);
    let unnamed = working.wait_for_output(&world);
    sleep(Duration::from_millis(150));
    working.signal(Signal::KILL);
    assert_eq!(working.end().0, None);
    fed.thread.join().expect("the feeder");
    if unnamed {
        assert_eq!(snapshot(&world.data()), before);
    } else {
        skip("the file system has no O_TMPFILE, so a SIGKILL leaves a temporary file");
        assert!(!world.path("out.csv").exists());
    }
    check_second_run(&world);
}

#[test]
fn killed_while_keys_are_rotated() {
    // The store is a transaction per change, whenever the process dies.
    let world = World::new();
    world.protect(&[]);
    for delay in (0..24).map(Duration::from_millis) {
        let mut child =
            world.command(&["keys", "rotate"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        sleep(delay);
        child.kill().expect("killed");
        child.wait().expect("it ends");
        world.succeeds(&["reveal", "sealed.csv", "--output", "back.csv", "--force"]);
        world.succeeds(&["protect", "in.csv", "--output", "other.csv", "--force"]);
    }
    world.succeeds(&["keys", "list"]);
    world.succeeds(&["keys", "rotate"]);
}
