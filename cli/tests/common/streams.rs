//! What the tests of streams share: a policy with fields of them, and files that are none yet.
#![allow(dead_code, reason = "every test program uses a part of this")]

use crate::common::{CANARY, Run, World, check_silence, run, skip};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) const RULES: &str = r#"version = 1
[fields.image]
mode = "stream"
[fields.scan]
mode = "stream"
row_binding = "id"
[fields.export]
mode = "stream"
required_context = ["tenant"]
[fields.name]
columns = ["name"]
"#;

/// Bytes that no message may have, of any length.
pub(crate) fn content(len: usize) -> Vec<u8> {
    CANARY.bytes().chain((0..).map(|i| (i % 251) as u8)).take(len).collect()
}

pub(crate) fn world() -> World {
    let world = World::new();
    world.write("policy.toml", RULES);
    world
}

/// `in` protected as `sealed` and revealed as `back`.
pub(crate) const PROTECT: [&str; 6] = ["protect", "--stream", "image", "in", "--output", "sealed"];
pub(crate) const REVEAL: [&str; 6] = ["reveal", "--stream", "image", "sealed", "--output", "back"];

/// Runs a command that may not read everything, as root does unless that right was taken from it. `None`: that does not work here, which is printed.
pub(crate) fn unprivileged(world: &World, arguments: &[&str]) -> Option<Run> {
    let is_root = rustix::process::geteuid().is_root();
    let keyfold = world.command(arguments);
    let mut command = Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        let rights = "-dac_override,-dac_read_search";
        command.args(["--bounding-set", rights, "--inh-caps", rights]);
    }
    command.arg(keyfold.get_program()).args(keyfold.get_args()).current_dir(world.data());
    let run = run(&mut command, b"");
    if run.stderr.contains("setpriv: ") {
        skip(&format!("what may not be read (setpriv does not work here: {})", run.stderr));
        return None;
    }
    Some(run)
}

/// Runs a command whose system calls `calls` on `path` fail, as strace says it. `None`: that does not work here, which is printed.
pub(crate) fn failing(world: &World, arguments: &[&str], path: &str, calls: &str) -> Option<Run> {
    let keyfold = world.command(arguments);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-P", path, "-e", &format!("inject={calls}")]);
    command.arg(keyfold.get_program()).args(keyfold.get_args()).current_dir(world.data()).env("KEYFOLD_LOG", "error");
    let is_here = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|it| it.success());
    if !is_here {
        skip("calls that fail (strace does not work here)");
        return None;
    }
    Some(run(&mut command, b""))
}

/// Runs a command that writes below `sealed`, and does something while it is stopped in that: with the path that the first output is to have, or a part of it.
/// How it ended and what it said.
pub(crate) fn while_writing(world: &World, arguments: &[&str], act: impl FnOnce(&Path)) -> (Option<i32>, String) {
    let mut command = world.command(arguments);
    let mut child = command.env("KEYFOLD_LOG", "error").stderr(Stdio::piped()).spawn().expect("it starts");
    let folder = format!("/proc/{}/fd", child.id());
    let written = || {
        let links =
            fs::read_dir(&folder).into_iter().flatten().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        links.into_iter().find(|link| link.starts_with(world.path("sealed")))
    };
    let at = loop {
        if let Some(at) = written() {
            break at;
        }
        assert!(child.try_wait().expect("its state").is_none(), "it has ended already");
        std::thread::sleep(Duration::from_millis(1));
    };
    kill_process(Pid::from_child(&child), Signal::STOP).expect("stopped");
    act(&at);
    kill_process(Pid::from_child(&child), Signal::CONT).expect("continued");
    let ended = child.wait_with_output().expect("it ends");
    let said = String::from_utf8(ended.stderr).expect("text");
    check_silence(&said);
    (ended.status.code(), said)
}
