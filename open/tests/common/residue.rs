//! The memory of a process, looked at by another one, and its core dumps.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Not by `println!`, which the test harness swallows.
pub(crate) fn out(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

pub(crate) fn skipped(why: &str) {
    out(&format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or_default()));
}

/// How often each of `parts` is in `bytes`.
pub(crate) fn count<'p>(bytes: &[u8], parts: impl Iterator<Item = &'p [u8]>) -> Vec<usize> {
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

/// A part of the memory of a process.
pub(crate) struct Mapping {
    pub(crate) name: String,
    pub(crate) is_guarded: bool,
    pub(crate) bytes: Vec<u8>,
}

/// All memory of the process that can be read.
pub(crate) fn memory_of(pid: u32) -> Vec<Mapping> {
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

/// The file in `folder` that a dump was written to.
pub(crate) fn dump_in(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("core")).unwrap()
}

/// A core dump of the process, in `folder`, by gdb; why there is none.
pub(crate) fn dump_of(pid: u32, folder: &Path) -> Result<PathBuf, String> {
    let said = Command::new("gcore").args(["-o", "core", &pid.to_string()]).current_dir(folder).output();
    match said {
        Ok(said) if said.status.success() => Ok(dump_in(folder)),
        Ok(said) => Err(format!("gcore: {}", String::from_utf8_lossy(&said.stderr))),
        Err(error) => Err(format!("gcore: {error}")),
    }
}
