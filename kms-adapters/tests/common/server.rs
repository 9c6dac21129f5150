//! An HTTP server on the loopback that answers as it is told, rightly and wrongly.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What it answers to one request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A well-formed answer.
    Http { status: u16, headers: Vec<(String, String)>, body: String },
    /// Nothing, and the connection stays open.
    Silence,
    /// The connection is closed at once, with unread bytes, so that it is reset.
    Reset,
    /// Half of an answer, and then the end.
    Cut,
    /// An answer of which one byte comes every 50 ms.
    Drip,
    /// As many bytes of body as it announces.
    Long(usize),
    /// As many bytes of body, in chunks, unannounced.
    LongChunked(usize),
    /// Headers without end.
    LongHeaders,
    /// Eight KiB that claim to be eight MiB, compressed.
    Bomb,
    /// Not HTTP.
    Garbage,
    /// An error whose text is the whole request, credentials and all, and whose ID is what looks most like one of them.
    Echo(u16),
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self::Http { status, headers, body: body.into() }
    }
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// Lives until the process ends; its threads end with their connections.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Connections>,
}

/// How many there were.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    pub(crate) begun: AtomicUsize,
    pub(crate) ended: AtomicUsize,
}

impl Server {
    /// A server that answers each request with what `answer` returns.
    pub(crate) fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::accept(answer, |stream| Box::new(stream))
    }

    fn accept(
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        over: impl Fn(TcpStream) -> Box<dyn Stream> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = Self { address, seen: Arc::default(), connections: Arc::default() };
        let (seen, connections, answer) = (server.seen.clone(), server.connections.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, connections, answer) = (seen.clone(), connections.clone(), answer.clone());
                connections.begun.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                let stream = over(stream);
                // The client may go away at any point, which ends the thread.
                thread::spawn(move || {
                    let _ = serve(stream, &seen, &*answer);
                    connections.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    pub(crate) fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone())
    }

    /// As [`start`](Self::start), over TLS with a certificate of `tests/data`, which the client must trust by itself.
    pub(crate) fn start_tls(certificate: &str, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let chain = vec![CertificateDer::from_pem_file(data(certificate)).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(data("server-key.pem")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate with its key");
        let config = Arc::new(config);
        Self::accept(answer, move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            Box::new(StreamOwned::new(connection, stream))
        })
    }

    /// A server that begins to speak TLS, a byte every 50 ms.
    pub(crate) fn slow_handshake() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    // The head of a record of the handshake, and then its bytes.
                    let mut sent = stream.write_all(&[22, 3, 3, 0, 200]);
                    while sent.is_ok() {
                        thread::sleep(Duration::from_millis(50));
                        sent = stream.write_all(&[2]);
                    }
                });
            }
        });
        Self { address, seen: Arc::default(), connections: Arc::default() }
    }

    /// Of those so far.
    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// What it was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// An address on which nobody listens. All servers of the tests are at 127.0.0.1, so none gets the port meanwhile.
pub(crate) fn closed_address() -> SocketAddr {
    TcpListener::bind("127.77.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// What a server reads from and writes to.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A file of `tests/data`. Tests of a neighbouring crate have this file, too.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kms-adapters/tests/data").join(name)
}

fn serve(stream: Box<dyn Stream>, seen: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Reply) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = Seen::default();
        if reader.read_line(&mut request.line)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            request.headers.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        request.body = String::from_utf8_lossy(&body).into_owned();
        seen.lock().expect("not poisoned").push(request.clone());
        if !send(&mut **reader.get_mut(), answer(&request), &request)? {
            return Ok(());
        }
    }
}

/// Whether the connection can be used again.
fn send(out: &mut dyn Stream, reply: Reply, request: &Seen) -> std::io::Result<bool> {
    let block = [b'a'; 64 * 1024];
    match reply {
        Reply::Http { status, headers, body } => {
            let mut text = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            out.write_all(format!("{text}\r\n{body}").as_bytes())?;
            out.flush()?;
            return Ok(true);
        }
        Reply::Echo(status) => {
            let all = format!("{}{}{}", request.line, request.headers, request.body);
            let id = secret_like(request);
            let body = serde_json::json!({
                "errors": [all], "error": { "code": all, "message": all, "status": all }, "request_id": id,
            });
            let headers = ["x-amzn-requestid", "x-ms-request-id"].map(|name| (name.to_owned(), id.clone())).into();
            return send(out, Reply::Http { status, headers, body: body.to_string() }, request);
        }
        Reply::Silence => thread::sleep(Duration::from_secs(60)),
        // Zero seconds of lingering reset the connection, which std does not offer; unread bytes do as well.
        Reply::Reset => out.write_all(b"HT")?,
        Reply::Cut => out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"data\":")?,
        Reply::Drip => {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")?;
            for _ in 0..1000 {
                out.write_all(b" ")?;
                thread::sleep(Duration::from_millis(50));
            }
        }
        Reply::Long(len) => {
            out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n").as_bytes())?;
            for _ in 0..len / block.len() {
                out.write_all(&block)?;
            }
        }
        Reply::LongChunked(len) => {
            out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for _ in 0..len / block.len() {
                out.write_all(format!("{:x}\r\n", block.len()).as_bytes())?;
                out.write_all(&block)?;
                out.write_all(b"\r\n")?;
            }
            out.write_all(b"0\r\n\r\n")?;
        }
        Reply::LongHeaders => {
            out.write_all(b"HTTP/1.1 200 OK\r\n")?;
            for number in 0..1024 {
                out.write_all(format!("x-{number}: ").as_bytes())?;
                out.write_all(&block)?;
                out.write_all(b"\r\n")?;
            }
        }
        Reply::Bomb => {
            let bomb = std::fs::read(data("bomb.gz"))?;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
            out.write_all(head.as_bytes())?;
            out.write_all(&bomb)?;
        }
        Reply::Garbage => out.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")?,
    }
    Ok(false)
}

/// What a hostile service would give for the ID of a request: a UUID of its body, or else the longest word of the whole request.
fn secret_like(request: &Seen) -> String {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=-_.".contains(c)).map(str::to_owned).collect()
    };
    let is_uuid = |word: &&String| word.len() == 36 && word.matches('-').count() == 4;
    let (of_body, all) = (words(&request.body), words(&format!("{} {}", request.headers, request.body)));
    let longest = || all.iter().max_by_key(|word| word.len()).cloned();
    of_body.iter().find(is_uuid).cloned().or_else(longest).unwrap_or_default()
}
