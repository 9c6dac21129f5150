//! A transit engine that behaves as it is told, for what no real server does on demand.

use crate::common::World;
use crate::{configure_kek, secret_file};
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const TOKEN: &str = "s.hunter2hunter2";

#[derive(Clone, Copy, Default)]
pub(crate) struct Behaviour {
    /// By how many seconds its clock is ahead.
    pub(crate) ahead: i64,
    /// It opens under any context.
    pub(crate) careless: bool,
    /// It answers nothing but this.
    pub(crate) status: Option<u16>,
    /// It never answers.
    pub(crate) hangs: bool,
}

pub(crate) struct Transit {
    port: u16,
    asked: Mutex<Receiver<()>>,
    is_away: Arc<AtomicBool>,
}

impl Transit {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, asked) = channel();
        let is_away = Arc::new(AtomicBool::new(false));
        let away = Arc::clone(&is_away);
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                // The test may have ended.
                let _ = sender.send(());
                if away.load(Ordering::Relaxed) {
                    continue;
                }
                if behaviour.hangs {
                    open.push(stream);
                } else {
                    std::thread::spawn(move || serve(stream, behaviour));
                }
            }
        });
        Self { port, asked: Mutex::new(asked), is_away }
    }

    /// From now on it closes every connection without an answer.
    pub(crate) fn go_away(&self) {
        self.is_away.store(true, Ordering::Relaxed);
    }

    pub(crate) fn configure(&self, world: &World) {
        secret_file(world, "token", TOKEN);
        configure_kek(world, "remote", &self.uri());
    }

    pub(crate) fn uri(&self) -> String {
        format!("vault://127.0.0.1:{}/transit/key?tls=off&token_file=token", self.port)
    }

    /// Until somebody has asked.
    pub(crate) fn wait(&self) {
        self.asked.lock().expect("alone").recv().expect("asked");
    }
}

fn serve(stream: TcpStream, behaviour: Behaviour) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let (mut line, mut len, mut path) = (String::new(), 0, String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = text.trim().parse().expect("a number");
        }
        line.clear();
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).expect("a body");
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, answer) = match behaviour.status {
        // In the words of the real one, for a policy that does not allow it.
        Some(status) => (status, json!({ "errors": ["1 error occurred:\n\t* permission denied\n\n"] })),
        None => answer(&path, &body, behaviour.careless),
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\ndate: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        date(behaviour.ahead),
        answer.len()
    );
    let mut stream = stream;
    let _ = stream.write_all(format!("{head}{answer}").as_bytes());
}

/// What is wrapped is context and plaintext, one after the other.
fn answer(path: &str, body: &Value, careless: bool) -> (u16, Value) {
    let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
    let refused = |why: &str| (400, json!({ "errors": [why] }));
    match path.rsplit('/').nth(1).unwrap_or_default() {
        "token" => (200, json!({ "auth": { "client_token": TOKEN, "renewable": false } })),
        "keys" => (
            200,
            json!({ "data": { "latest_version": 3, "min_decryption_version": 1, "auto_rotate_period": 2_592_000, "derived": true } }),
        ),
        "encrypt" => {
            let wrapped = BASE64.encode(format!("{}|{}", text("context"), text("plaintext")).as_bytes());
            (200, json!({ "request_id": "fake-1", "data": { "ciphertext": format!("vault:v3:{wrapped}") } }))
        }
        "decrypt" if text("context").is_empty() => {
            refused("missing 'context' for key derivation; the key was created using a derived key")
        }
        "decrypt" => {
            let ciphertext = text("ciphertext");
            let wrapped =
                BASE64.decode(ciphertext.rsplit(':').next().unwrap_or_default().as_bytes()).unwrap_or_default();
            let wrapped = String::from_utf8(wrapped).unwrap_or_default();
            match wrapped.split_once('|') {
                Some((context, plaintext)) if careless || context == text("context") => {
                    (200, json!({ "request_id": "fake-2", "data": { "plaintext": plaintext } }))
                }
                _ => refused("cipher: message authentication failed"),
            }
        }
        _ => (404, json!({ "errors": [] })),
    }
}

/// The time as HTTP writes it, by counting the days of each month.
fn date(ahead: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let seconds = now.checked_add_signed(ahead).expect("after 1970");
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let months = [
        ("Jan", 31),
        ("Feb", 28 + u64::from(is_leap(year))),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let mut name = "";
    for (month, len) in months {
        name = month;
        if days < len {
            break;
        }
        days -= len;
    }
    // The first day of 1970 was a Thursday.
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(seconds / 86_400 % 7) as usize];
    format!("{weekday}, {:02} {name} {year} {:02}:{:02}:{:02} GMT", days + 1, time / 3600, time / 60 % 60, time % 60)
}
