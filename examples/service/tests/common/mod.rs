//! The real service against a real PostgreSQL server: how the tests start, call, watch and stop it.
#![allow(clippy::unwrap_used, dead_code, reason = "shared by several tests")]

mod proxy;

use proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Part of every value of every patient. May be in no log and no table.
pub(crate) const CANARY: &str = "Canary7391";
/// The same for dates of birth, which must be dates.
pub(crate) const CANARY_DATE: &str = "7391-02-";
/// How long what should happen soon may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A keyring in a folder, a database of its own, and the running service.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) database: PgPool,
    proxy: Proxy,
    runtime: Runtime,
    child: Child,
    log: Arc<Mutex<String>>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The status and the name of the error; and nothing about a patient.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, String) {
        assert!(!self.body.contains(CANARY) && !self.body.contains(CANARY_DATE), "an error with data: {}", self.body);
        (self.status, self.json()["error"].as_str().unwrap().to_owned())
    }
}

/// The command that starts the service with what is in `folder`.
pub(crate) fn service(folder: &Path, database: &str, tenants: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patients"));
    command
        .env("PATIENTS_KEYFOLD", folder.join("ring/keyfold.toml"))
        .env("PATIENTS_POLICY", folder.join("policy.toml"))
        .env("PATIENTS_DATABASE", database)
        .env("PATIENTS_LISTEN", "127.0.0.1:0")
        .env("PATIENTS_TENANTS", tenants)
        .env("RUST_LOG", "trace")
        .stderr(Stdio::piped());
    command
}

/// The policy of the example in `folder`, to be changed by the test.
pub(crate) fn copy_policy(folder: &Path) {
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/policy.toml"), folder.join("policy.toml")).unwrap();
}

/// Starts everything; `None`, said aloud, where there is no server.
pub(crate) fn world(name: &str) -> Option<World> {
    world_with(name, str::to_owned)
}

/// As [`world`], with the configuration changed.
pub(crate) fn world_with(name: &str, change: impl FnOnce(&str) -> String) -> Option<World> {
    let Ok(server) = std::env::var("KEYFOLD_TEST_POSTGRES") else {
        // Not println!: the harness hides what a test that passes prints.
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED {}: the example service (KEYFOLD_TEST_POSTGRES is not set)",
            std::thread::current().name().unwrap_or_default()
        );
        return None;
    };
    let tls = std::env::var("KEYFOLD_TEST_POSTGRES_CA").map(|ca| format!("?sslmode=verify-full&sslrootcert={ca}"));
    let tls = tls.unwrap_or_default();
    let runtime = Runtime::new().unwrap();
    let database = format!("patients_{name}_{}", std::process::id());
    runtime.block_on(async {
        let mut admin = PgConnection::connect(&format!("{server}{tls}")).await.unwrap();
        sqlx::query(&format!("CREATE DATABASE {database}")).execute(&mut admin).await.unwrap();
    });
    let server = server.rsplit_once('/').unwrap().0;
    let (address, port) = server.rsplit_once(':').unwrap();
    let proxy = Proxy::new(port.parse().unwrap());
    let uri = format!("{server}/{database}{tls}");
    let proxied = format!("{address}:{}/{database}{tls}", proxy.port);
    let folder = tempfile::tempdir().unwrap();
    let ring = folder.path().join("ring");
    // Key records and patients in one database, as a small deployment has them.
    let new = keyfold_open::NewKeyring {
        name: "patients".to_owned(),
        environment: "test".to_owned(),
        store: Some(proxied.clone()),
        ..Default::default()
    };
    runtime.block_on(keyfold_open::init_with(&ring, &new, &keyfold_open::Options::default())).unwrap();
    let config = ring.join("keyfold.toml");
    std::fs::write(&config, change(&std::fs::read_to_string(&config).unwrap())).unwrap();
    copy_policy(folder.path());
    let mut child = service(folder.path(), &proxied, "clinic-a,clinic-b").spawn().unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    let (lines, written) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            written.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    let database = runtime.block_on(PgPoolOptions::new().max_connections(2).connect(&uri)).unwrap();
    let mut world = World { folder, address: ([127, 0, 0, 1], 0).into(), database, proxy, runtime, child, log };
    world.wait_for("it listens", |world| world.log().contains("\"listening\""));
    let line = world.log().lines().find(|line| line.contains("\"listening\"")).unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    world.address = line["fields"]["address"].as_str().unwrap().parse().unwrap();
    Some(world)
}

impl World {
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("ring/keyfold.toml")
    }

    pub(crate) fn policy(&self) -> PathBuf {
        self.folder.path().join("policy.toml")
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn sql(&self, statement: &str) -> u64 {
        self.block_on(sqlx::query(statement).execute(&self.database)).unwrap().rows_affected()
    }

    /// Waits until `done`; fails if that takes too long.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < SOON, "{what} has not happened:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether what the service and its database say to each other gets lost. Neither is told.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.proxy.silent.store(silent, Ordering::Relaxed);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit code, once it has ended.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < SOON, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn call(&self, method: &str, path: &str, tenant: &str, body: &str) -> Answer {
        let mut stream = self.send(&request(method, path, tenant, body));
        answer(&mut stream)
    }

    /// Connects and sends these bytes.
    pub(crate) fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// Stores patient `n`; returns the ID.
    #[track_caller]
    pub(crate) fn store(&self, tenant: &str, n: usize) -> String {
        let answer = self.call("POST", "/patients", tenant, &patient(tenant, n).to_string());
        assert_eq!(answer.status, 201, "{}\n{}", answer.body, self.log());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn get(&self, tenant: &str, id: &str) -> Answer {
        self.call("GET", &format!("/patients/{id}"), tenant, "")
    }

    pub(crate) fn search(&self, tenant: &str, mrn: &str) -> Answer {
        self.call("POST", "/patients/search", tenant, &serde_json::json!({ "mrn": mrn }).to_string())
    }

    /// The generations of the keys of all values in a column, each once.
    pub(crate) fn generations(&self, column: &str) -> Vec<i32> {
        let query = format!(
            "SELECT DISTINCT ('x' || encode(substring({column} FROM 3 FOR 4), 'hex'))::bit(32)::int AS g FROM patients ORDER BY g"
        );
        self.block_on(sqlx::query_scalar(&query).fetch_all(&self.database)).unwrap()
    }

    /// No log, no table, no metric and no file of the keyring has a patient's value.
    #[track_caller]
    pub(crate) fn check_silence(&self) {
        let log = self.log();
        for form in [CANARY, CANARY_DATE, "panicked"] {
            assert!(!log.contains(form), "{log}");
        }
        for table in ["patients", "keyfold.records", "keyfold.scopes"] {
            let dump = format!("SELECT string_agg(t::text, '') FROM {table} t");
            let text: Option<String> = self.block_on(sqlx::query_scalar(&dump).fetch_one(&self.database)).unwrap();
            for canary in [CANARY, CANARY_DATE] {
                // Binary columns are spelled in hexadecimal.
                let hex: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
                for form in [canary, &hex] {
                    assert!(!text.as_deref().unwrap_or_default().contains(form), "plaintext in {table}");
                }
            }
        }
        for entry in std::fs::read_dir(self.folder.path().join("ring")).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for canary in [CANARY, CANARY_DATE] {
                assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()));
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn mrn(n: usize) -> String {
    format!("{CANARY}-M{n}")
}

/// A patient in clear, with awkward characters.
pub(crate) fn patient(tenant: &str, n: usize) -> serde_json::Value {
    serde_json::json!({
        "mrn": mrn(n),
        "ssn": format!("{CANARY}-{n:09}"),
        "name": format!("{CANARY} Zoë \"山田\" \\ {tenant} {}", "é".repeat(n % 40)),
        "birth_date": format!("{CANARY_DATE}{:02}", 1 + n % 28),
    })
}

pub(crate) fn request(method: &str, path: &str, tenant: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: patients\r\nx-tenant: {tenant}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[track_caller]
pub(crate) fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), body: body.to_owned() }
}
