//! Records and frames that somebody forged, to have keys sent elsewhere: nobody is asked.

use crate::common::{KMS, PATIENTS, POLICY};
use crate::keyring::{Ring, section};
use crate::services::{Service, alone, say, variable};
use keyfold::{Keyring, Result, Value};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The services that are asked over a network.
const NETWORK: [Service; 4] = [Service::Vault, Service::Aws, Service::Azure, Service::Google];

/// What a record says of its KEK, its alias first, and what a forger puts in its place, which is as long: all else stays well-formed.
fn forgeries(service: Service, record: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let found = |start: &str, len: usize| {
        let at = record.windows(start.len()).position(|window| window == start.as_bytes()).expect("in the record");
        String::from_utf8(record[at..at + len].to_vec()).expect("a text")
    };
    let alias = service.alias();
    let mut pairs = vec![(alias.to_owned(), alias.replace("kek", "kex"))];
    let mut swap = |from: &str, to: &str| pairs.push((from.to_owned(), to.to_owned()));
    match service {
        Service::Aws => {
            swap("arn:aws:kms:eu-central-1:123456789012:", "arn:aws:kms:eu-central-1:999999999999:");
            swap("arn:aws:kms:eu-central-1:", "arn:aws:kms:us-gov-west1:");
            swap("arn:aws:kms:", "arn:xws:kms:");
            let key = found("arn:aws:kms:", 38 + "key/".len() + 36);
            let (place, id) = key.split_at(38);
            swap(&key, &format!("{place}key/00000000-0000-4000-8000-000000000000"));
            swap(&key, &format!("{place}alias/{:x<1$}", "", id.len() - "alias/".len()));
            let url = "https://kms.evil.example/";
            swap(&key, &format!("{url}{:x<1$}", "", key.len() - url.len()));
        }
        Service::Azure => {
            let start = "patients-of-the-clinic-";
            swap(start, "patients-of-nobody-----");
            swap(start, "//evil.example/keys/kek");
            swap(start, "../../secrets/passwords");
        }
        Service::Google => {
            swap("projects/clinic/", "projects/nobody/");
            swap("locations/europe-west3/", "locations/us-central11/");
            swap("projects/clinic/", "//evil.example//");
            swap("/cryptoKeys/kek-", "/cryptoKeys/xxx-");
        }
        // Its records name no key and no host: the alias and the number of a version are all.
        Service::Vault | Service::Pkcs11 | Service::Callback | Service::Local => {}
    }
    pairs.into_iter().map(|(from, to)| (from.into_bytes(), to.into_bytes())).collect()
}

/// `bytes` with `to` in the place of `from`, wherever that is.
fn forged(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let places: Vec<usize> = (0..=bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "{} is not there", String::from_utf8_lossy(from));
    for at in places {
        out[at..at + to.len()].copy_from_slice(to);
    }
    out
}

/// Passes connections on to a server, and counts them: for a server that does not count.
struct Counter {
    address: String,
    connections: Arc<AtomicU64>,
}

impl Counter {
    fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address").to_string();
        let connections = Arc::new(AtomicU64::new(0));
        let (count, server) = (Arc::clone(&connections), server.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(std::result::Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let upstream = TcpStream::connect(&server).expect("connected");
                let pass = |mut from: TcpStream, mut to: TcpStream| {
                    std::thread::spawn(move || {
                        let mut buffer = [0; 4096];
                        while let Ok(len @ 1..) = from.read(&mut buffer) {
                            if to.write_all(&buffer[..len]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Write);
                    })
                };
                pass(client.try_clone().expect("cloned"), upstream.try_clone().expect("cloned"));
                pass(upstream, client);
            }
        });
        Self { address, connections }
    }
}

/// Makes a keyring whose root `service` wraps. It, the section of the KEK, and how many requests or connections there were.
fn set_up(service: Service) -> (Ring, String, Box<dyn Fn() -> u64>) {
    let ring = Ring::new();
    let mut uri = ring.move_to(service);
    let count: Box<dyn Fn() -> u64> = if service == Service::Vault {
        let server = variable("KEYFOLD_TEST_OPENBAO").trim_start_matches("https://").to_owned();
        let counter = Counter::before(&server);
        uri = uri.replace(&server, &counter.address);
        Box::new(move || counter.connections.load(Ordering::SeqCst))
    } else {
        Box::new(move || service.requests().expect("a count"))
    };
    let section = section(service, &uri);
    ring.configure(&section);
    (ring, section, count)
}

fn store(ring: &Ring) -> rusqlite::Connection {
    rusqlite::Connection::open(ring.world.keys().join("keys.db")).expect("the store")
}

/// The record of the root: the one that holds `alias`.
fn root_record(ring: &Ring, alias: &str) -> (Vec<u8>, Vec<u8>) {
    let select = "SELECT key_id, record FROM records WHERE instr(record, CAST(?1 AS BLOB)) > 0";
    store(ring).query_row(select, [alias], |row| Ok((row.get(0)?, row.get(1)?))).expect("the root")
}

fn put(ring: &Ring, key_id: &[u8], record: &[u8]) {
    let update = "UPDATE records SET record = ?2 WHERE key_id = ?1";
    assert_eq!(store(ring).execute(update, (key_id, record)).expect("updated"), 1);
}

// Failure C10
#[test]
fn a_forged_record_in_the_store_makes_nobody_call_anyone() {
    let _alone = alone();
    for service in Service::given().into_iter().filter(|service| NETWORK.contains(service)) {
        let (ring, _, count) = set_up(service);
        let world = &ring.world;
        world.protect(&[]);
        let reveal = ["reveal", "sealed.csv", "--output", "out.csv", "--force"];
        let before = count();
        world.succeeds(&reveal);
        let honest = count() - before;
        assert!(honest > 0, "{service:?}: what is counted is not what is asked");
        let (key_id, record) = root_record(&ring, service.alias());
        let forgeries = forgeries(service, &record);
        for (from, to) in &forgeries {
            put(&ring, &key_id, &forged(&record, from, to));
            let before = count();
            let run = world.run(&reveal);
            let shown = String::from_utf8_lossy(to);
            assert_eq!(count() - before, 0, "{service:?}: somebody was asked because of {shown}");
            let expected = if shown.starts_with("kex-") { POLICY } else { KMS };
            assert_eq!(run.code, Some(expected), "{shown}: {}", run.stderr);
        }
        put(&ring, &key_id, &record);
        world.succeeds(&reveal);
        assert_eq!(world.text("out.csv"), PATIENTS);
        say(&format!("{service:?}: {} forged records, 0 requests; {honest} by the genuine one", forgeries.len()));
    }
}

const FRAMED: &str = "version = 1\n[fields.framed]\nrow_binding = \"none\"\naccept = [\"01\", \"03\"]\n";

/// A new process: nothing is in memory.
fn open(ring: &Ring) -> Keyring {
    let world = &ring.world;
    keyfold_open::open(&world.config(), &[world.path("policy.toml"), world.path("framed.toml")]).expect("it opens")
}

fn opens(ring: &Ring, frame: &[u8]) -> Result<bool> {
    let keyring = open(ring);
    pollster::block_on(async {
        let reader = keyring.field("framed")?.decryptor().await?;
        reader.load_keys(&[frame][..]).await.map_err(|error| error.error)?;
        Ok(reader.decrypt(frame, None)?.value() == Value::Text("Anna"))
    })
}

// Failure C10
#[test]
fn a_forged_frame_makes_nobody_call_anyone() {
    let _alone = alone();
    for service in Service::given().into_iter().filter(|service| NETWORK.contains(service)) {
        let (ring, section, count) = set_up(service);
        ring.world.write("framed.toml", FRAMED);
        let frame = pollster::block_on(async {
            let field = open(&ring).field("framed").expect("a field").encryptor().await.expect("a key");
            field.encrypt_framed(Value::Text("Anna"), None).await.expect("a frame")
        });
        // The reader is another system: what it knows of keys is in the frame.
        store(&ring).execute("DELETE FROM records", ()).expect("deleted");
        fs::remove_file(ring.world.keys().join("keys.high-water")).expect("removed");
        ring.configure(&section);
        let before = count();
        assert!(opens(&ring, &frame).expect("opened"), "{service:?}");
        let honest = count() - before;
        assert!(honest > 0, "{service:?}: what is counted is not what is asked");
        let forgeries = forgeries(service, &frame);
        for (from, to) in &forgeries {
            let before = count();
            let outcome = opens(&ring, &forged(&frame, from, to));
            let shown = String::from_utf8_lossy(to);
            assert_eq!(count() - before, 0, "{service:?}: somebody was asked because of {shown}");
            outcome.expect_err("refused");
        }
        say(&format!("{service:?}: {} forged frames, 0 requests; {honest} by the genuine one", forgeries.len()));
    }
}
