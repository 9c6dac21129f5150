//! A server that is away, silent, restarted or read only; connections that are killed.

use crate::server::{OURS, Schema, Server, here, refusal};
use keyfold::KeyStore;
use keyfold::testing::{SampleRecord, block_on};
use keyfold_store::PostgresStore;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_killed_connection_is_replaced_without_an_error() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    let uri = schema.uri_with(|uri| {
        uri.query_pairs_mut().append_pair("application_name", &schema.name);
    });
    let store = PostgresStore::open(&uri, here()).expect("opened");
    for generation in 1..=10 {
        assert_eq!(block_on(store.allocate_generation(OURS, 0)).expect("allocated"), generation);
        let killed = schema.number(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{}'",
            schema.name
        ));
        assert_eq!(killed, 1, "the connection was not kept");
    }
}

#[test]
fn reading_goes_on_and_writing_is_refused_where_the_database_is_read_only() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let writable = schema.create();
    let record = SampleRecord::new(OURS, 1).build();
    block_on(writable.insert(&record, None)).expect("inserted");
    let role = format!("{}_standby", schema.name);
    server.sql(&format!(
        "CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'p'; ALTER ROLE {role} SET default_transaction_read_only = on"
    ));
    let uri = schema.uri_with(|uri| {
        uri.set_username(&role).expect("a name");
        uri.set_password(Some("p")).expect("a password");
    });
    let store = PostgresStore::open(&uri, here()).expect("opened");
    assert_eq!(block_on(store.get(OURS, record.key_id())).expect("read").as_ref(), Some(&record));
    let next = SampleRecord::new(OURS, 2).build();
    for text in [
        refusal(block_on(store.allocate_generation(OURS, 0))),
        refusal(block_on(store.insert(&next, Some(record.key_id())))),
        refusal(block_on(store.update(&SampleRecord::new(OURS, 1).sequence(2).build(), 1))),
    ] {
        assert!(text.contains("read only") && text.contains("name the primary"), "{text}");
    }
    drop(store);
    server.sql(&format!("DROP ROLE {role}"));
}

/// Stands between store and server, and can be told to refuse or to swallow everything.
struct Proxy {
    port: u16,
    silent: Arc<AtomicBool>,
    refusing: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn new(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let this = Self {
            port: listener.local_addr().expect("an address").port(),
            silent: Arc::default(),
            refusing: Arc::default(),
            open: Arc::default(),
        };
        let target = ("127.0.0.1", server.uri.port().expect("a port"));
        let (silent, refusing, open) = (Arc::clone(&this.silent), Arc::clone(&this.refusing), Arc::clone(&this.open));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if refusing.load(Ordering::Relaxed) {
                    continue;
                }
                let upstream = TcpStream::connect(target).expect("the server");
                let mut held = open.lock().expect("no panic");
                held.extend([client.try_clone().expect("a socket"), upstream.try_clone().expect("a socket")]);
                drop(held);
                for (from, to) in [(&client, &upstream), (&upstream, &client)] {
                    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let silent = Arc::clone(&silent);
                    thread::spawn(move || {
                        let mut buffer = [0; 16 * 1024];
                        while let Ok(count @ 1..) = std::io::Read::read(&mut from, &mut buffer) {
                            if !silent.load(Ordering::Relaxed) && to.write_all(&buffer[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        this
    }

    fn cut(&self) {
        for socket in self.open.lock().expect("no panic").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn store(&self, schema: &Schema) -> PostgresStore {
        let uri = schema.uri_with(|uri| {
            uri.set_port(Some(self.port)).expect("a port");
            uri.query_pairs_mut().append_pair("deadline", "2");
        });
        PostgresStore::open(&uri, here()).expect("opened")
    }
}

#[test]
fn a_silent_server_ends_in_an_error_within_the_deadline_and_recovers() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    let proxy = Proxy::new(&server);
    let store = proxy.store(&schema);
    assert_eq!(block_on(store.allocate_generation(OURS, 0)).expect("allocated"), 1);
    proxy.silent.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let began = Instant::now();
        let text = refusal(block_on(store.get(OURS, SampleRecord::new(OURS, 1).build().key_id())));
        assert!(text.contains("did not answer in time") && text.contains("2 s"), "{text}");
        let took = began.elapsed();
        assert!(took > Duration::from_millis(1500) && took < Duration::from_millis(2600), "{took:?}");
    }
    proxy.silent.store(false, Ordering::Relaxed);
    assert_eq!(block_on(store.allocate_generation(OURS, 0)).expect("allocated"), 2);
}

#[test]
fn a_connection_that_breaks_in_the_middle_is_an_error_and_the_next_call_recovers() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    let proxy = Proxy::new(&server);
    let store = proxy.store(&schema);
    proxy.refusing.store(true, Ordering::Relaxed);
    proxy.cut();
    let began = Instant::now();
    let text = refusal(block_on(store.allocate_generation(OURS, 0)));
    assert!(text.contains("cannot be reached"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(1), "a refusal is told at once");
    proxy.refusing.store(false, Ordering::Relaxed);
    assert_eq!(block_on(store.allocate_generation(OURS, 0)).expect("allocated"), 1);
    // Inside a statement: it waits for a lock while the connection breaks.
    let record = SampleRecord::new(OURS, 1).build();
    let outcome = thread::scope(|scope| {
        let lock = scope.spawn(|| schema.sql("BEGIN; LOCK TABLE records; SELECT pg_sleep(4); COMMIT"));
        thread::sleep(Duration::from_millis(1200));
        let insert = scope.spawn(|| block_on(store.insert(&record, None)));
        thread::sleep(Duration::from_millis(1200));
        proxy.cut();
        lock.join().expect("no panic");
        insert.join().expect("no panic")
    });
    assert!(refusal(outcome).contains("cannot be reached"));
    assert_eq!(block_on(store.list(OURS, None, 10)).expect("read"), [], "half of a change is there");
    block_on(store.insert(&record, None)).expect("inserted");
}

/// A server of this test alone, that it stops and starts.
struct OwnServer {
    process: Child,
    said: BufReader<ChildStdout>,
    server: Server,
}

impl OwnServer {
    fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/servers/postgres.py");
        let mut process = Command::new("python3")
            .arg(script)
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut said = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut value = || {
            let mut line = String::new();
            said.read_line(&mut line).expect("text");
            line.split_once('=').map(|(_, value)| value.trim().to_owned())
        };
        let (Some(uri), Some(ca)) = (value(), value()) else {
            let _ = writeln!(
                std::io::stdout(),
                "\nSKIPPED {}: tools/servers/postgres.py starts no server",
                std::thread::current().name().unwrap_or_default()
            );
            process.wait().expect("ended");
            return None;
        };
        Some(Self { process, said, server: Server { uri: uri.parse().expect("a URI"), ca } })
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.process.stdin.as_mut().expect("a pipe"), "{what}").expect("told");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("text");
        assert_eq!(line, "done\n");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[test]
fn a_server_that_is_stopped_and_started_again_needs_no_reopening() {
    let Some(_) = Server::given() else { return };
    let Some(mut own) = OwnServer::start() else { return };
    let schema = own.server.schema();
    let store = schema.create();
    let record = SampleRecord::new(OURS, 1).build();
    block_on(store.insert(&record, None)).expect("inserted");
    thread::scope(|scope| {
        // In the middle of a statement as well.
        let waiting = scope.spawn(|| {
            let next = SampleRecord::new(OURS, 2).build();
            block_on(store.insert(&next, Some(record.key_id())))
        });
        scope.spawn(|| schema.try_sql("BEGIN; LOCK TABLE records; SELECT pg_sleep(60)"));
        thread::sleep(Duration::from_millis(500));
        own.tell("stop");
        // Either it was through before the lock, or the server said that it ends.
        if let Err(error) = waiting.join().expect("no panic") {
            refusal::<()>(Err(error));
        }
    });
    let began = Instant::now();
    for _ in 0..3 {
        assert!(refusal(block_on(store.get(OURS, record.key_id()))).contains("cannot be reached"));
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    own.tell("start");
    assert_eq!(block_on(store.get(OURS, record.key_id())).expect("read").as_ref(), Some(&record));
}
