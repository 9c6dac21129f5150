//! What the tests of the command share: a keyring in a folder of its own, and ways to run the binary that always look
//! for plaintext where none may be.
#![allow(dead_code, reason = "every test program uses a part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Exit codes, as `keyfold --help` lists them.
pub(crate) const USAGE: i32 = 2;
pub(crate) const POLICY: i32 = 3;
pub(crate) const DATA: i32 = 4;
pub(crate) const KEY: i32 = 5;
pub(crate) const KMS: i32 = 6;
pub(crate) const STORAGE: i32 = 7;

/// Part of every protected value of [`PATIENTS`]. May appear in no message, whatever happens.
pub(crate) const CANARY: &str = "Canáry7391";

/// Three patients, of whom every protected cell holds the canary. The last column is in clear.
pub(crate) const PATIENTS: &str = "patient_id,name,ssn,note,state
Canáry7391-id-1,Canáry7391 Änne,Canáry7391-111,Canáry7391 first,KS
Canáry7391-id-2,Canáry7391 Bob,Canáry7391-222,Canáry7391 second,MO
Canáry7391-id-3,Canáry7391 Çem,Canáry7391-333,,KS
";

/// The policy for [`PATIENTS`] and its JSON form: `name` and `ssn` are bound to their row, `note` is not.
pub(crate) const POLICY_FILE: &str = r#"version = 1

[fields."patient.id"]
mode = "deterministic"
join_group = "patient.id"
type = "text"
identifier = "R"
row_binding = "none"
columns = ["patient_id"]
paths = ["$.id"]

[fields."patient.name"]
identifier = "A"
row_binding = { column = "patient_id", path = "$.id" }
columns = ["name"]
paths = ["$.name"]

[fields."patient.ssn"]
identifier = "G"
row_binding = { column = "patient_id", path = "$.id" }
columns = ["ssn"]
paths = ["$.ssn"]

[fields."patient.note"]
row_binding = "none"
columns = ["note"]
paths = ["$.note"]
"#;

/// How a process ended and what it said.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    /// The exit code was `code`, and standard error contains each of `says`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for text in says {
            assert!(self.stderr.contains(text), "{text:?} is missing from: {}", self.stderr);
        }
        self
    }

    pub(crate) fn stdout_text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("UTF-8 on standard output")
    }

    /// Standard output as one JSON value per line.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout_text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The summary of `--json`: the last line of standard error.
    pub(crate) fn summary(&self) -> serde_json::Value {
        serde_json::from_str(self.stderr.lines().last().unwrap_or_default()).expect("a JSON summary")
    }
}

/// How many processes a test kills: KEYFOLD_KILLS, or `default`.
pub(crate) fn kills(default: usize) -> usize {
    let Some(kills) = std::env::var_os("KEYFOLD_KILLS") else { return default };
    kills.to_str().and_then(|kills| kills.parse().ok()).expect("KEYFOLD_KILLS is a number")
}

/// The command, with everything on that could make it talkative.
pub(crate) fn keyfold() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyfold"));
    command.env("KEYFOLD_LOG", "trace").env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
    command
}

/// Runs `command` to its end with `input` on standard input.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Run {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        // A command that refuses does not read to the end.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("it ends")
    });
    let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
    check_silence(&stderr);
    assert!(output.status.success() || !contains(&output.stdout, CANARY.as_bytes()), "a failed run printed plaintext");
    Run { code: output.status.code(), stdout: output.stdout, stderr }
}

/// No message holds the canary, in the spelling of the file or escaped, and nothing panicked.
#[track_caller]
pub(crate) fn check_silence(stderr: &str) {
    // Not the digits alone: key IDs and times in the log are digits, too.
    for form in [CANARY, "Can\\u{e1}ry7391", "Can\\xc3\\xa1ry7391", "ry7391"] {
        assert!(!stderr.contains(form), "plaintext in a message: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// A keyring in `keys/` and files in `data/`, which is where the commands run.
pub(crate) struct World {
    folder: TempDir,
}

impl World {
    /// Makes the keyring, and writes `policy.toml` and `in.csv`.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(world.data()).expect("a folder");
        run(keyfold().arg("init").arg(world.keys()), b"").expect(0, &[]);
        world.write("policy.toml", POLICY_FILE);
        world.write("in.csv", PATIENTS);
        world
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.keys().join("keyfold.toml")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    #[track_caller]
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("written");
    }

    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file")
    }

    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).expect("UTF-8")
    }

    /// Makes a root that a KEK `spare` alone wraps, with its pin, and a data key under it. The root and the keys from before stay under the KEK
    /// `local`, which wraps nothing new.
    pub(crate) fn second_root(&self) {
        run(keyfold().args(["keys", "new-kek"]).arg(self.keys().join("spare.kek")), b"").expect(0, &[]);
        let local = "[keks.local]\nuri = \"local:local.kek\"\n";
        let config = fs::read_to_string(self.config()).expect("a configuration");
        let config =
            config.replace(local, &format!("{local}retired = true\n")) + "\n[keks.spare]\nuri = \"local:spare.kek\"\n";
        fs::write(self.config(), &config).expect("written");
        let rotated = self.succeeds(&["keys", "rotate", "--root", "--json"]).json_lines();
        let pin = rotated[0]["root_pin"].as_str().expect("a pin");
        fs::write(self.config(), config.replace("root_pins = [", &format!("root_pins = [\"{pin}\", ")))
            .expect("written");
        self.succeeds(&["keys", "rotate"]);
    }

    /// `keyfold ARGUMENTS` in the folder of the data. Commands that take a configuration get this keyring's, and
    /// `policy.toml`, unless they name their own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = keyfold();
        command.current_dir(self.data()).args(arguments);
        let transform =
            matches!(arguments.first(), Some(&("protect" | "reveal" | "rebind" | "reencrypt" | "backfill")));
        let keyring = match arguments.first() {
            Some(&"device") => matches!(arguments.get(1), Some(&("provision" | "rotate" | "revoke"))),
            first => transform || first == Some(&"keys"),
        };
        if keyring && !arguments.contains(&"--config") {
            command.arg("--config").arg(self.config());
        }
        if transform && !arguments.contains(&"--policy") {
            command.args(["--policy", "policy.toml"]);
        }
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments), b"")
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> Run {
        self.run(arguments).expect(0, &[])
    }

    /// Runs a command that must be refused with `code`, say each of `says`, print nothing, and change no file: no
    /// output, no temporary file, nothing lost.
    #[track_caller]
    pub(crate) fn refuses(&self, arguments: &[&str], code: i32, says: &[&str]) -> Run {
        let before = snapshot(&self.data());
        let run = self.run(arguments).expect(code, says);
        assert!(run.stdout.is_empty(), "{}", String::from_utf8_lossy(&run.stdout));
        assert_eq!(snapshot(&self.data()), before, "the folder has changed");
        run
    }

    /// `in.csv` protected as `sealed.csv`, with further arguments.
    #[track_caller]
    pub(crate) fn protect(&self, more: &[&str]) -> Table {
        self.succeeds(&[&["protect", "in.csv", "--output", "sealed.csv", "--force"], more].concat());
        Table::parse(&self.text("sealed.csv"))
    }
}

/// Everything in a folder: names, kinds and contents.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| {
            let kind = fs::symlink_metadata(&path).expect("metadata").file_type();
            let content = match kind {
                kind if kind.is_symlink() => {
                    fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
                }
                kind if kind.is_dir() => b"folder".to_vec(),
                kind if kind.is_fifo() => b"pipe".to_vec(),
                _ => fs::read(&path).expect("a file"),
            };
            (path, content)
        })
        .collect()
}

/// A CSV file without quotes, to move cells about.
#[derive(Clone)]
pub(crate) struct Table(pub(crate) Vec<Vec<String>>);

impl Table {
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect())
    }

    pub(crate) fn render(&self) -> String {
        self.0.iter().map(|row| row.join(",") + "\n").collect()
    }

    /// The cell at (row, column), from 1 and from 0.
    pub(crate) fn cell(&mut self, (row, column): (usize, usize)) -> &mut String {
        &mut self.0[row][column]
    }

    pub(crate) fn swapped(&self, a: (usize, usize), b: (usize, usize)) -> String {
        let mut table = self.clone();
        let first = table.cell(a).clone();
        let second = std::mem::replace(table.cell(b), first);
        *table.cell(a) = second;
        table.render()
    }
}

/// The folder of data that is shared by all checkouts, or a line that says why a test did nothing.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let folder = std::env::var_os("KEYFOLD_SHARED").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("{name} (no ../shared)"));
    None
}

/// Says why the test of this thread does nothing, or not all that it could. Not by `println!`, which the test harness throws away where a test passes.
pub(crate) fn skip(why: &str) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stdout(), "\nSKIPPED {}: {why}", thread.name().unwrap_or_default());
}

/// A file of this repository.
pub(crate) fn repository(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name)
}

/// A path as an argument.
#[track_caller]
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
