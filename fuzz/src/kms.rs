//! Replies of key services: an error of a class, or what stands in the reply.
//!
//! The adapter speaks HTTP with a server of this process.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use keyfold::testing::block_on;
use keyfold::wire::KeyId;
use keyfold::{
    ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The key file's content, which no error may show.
const TOKEN: &str = "s.CANARYTOKENvalue0004";
const PAYLOAD: [u8; 64] = *b"KEYFOLD-CANARY-PAYLOAD:never in an error, a log or wrapped bytes";
const STATUSES: [u16; 14] = [200, 200, 200, 201, 204, 301, 400, 401, 403, 404, 408, 429, 500, 503];
/// What no reply of an honest server takes.
const LONGEST: Duration = Duration::from_secs(2);

/// An adapter, as a server of its service sees it.
struct Provider {
    open: fn(SocketAddr, &Path) -> Result<Box<dyn Kms>>,
    /// Whether the request is the operation itself. Others are answered with `before`.
    is_operation: fn(&str) -> bool,
    before: &'static str,
    credentials: &'static str,
    wrapped: fn() -> WrappedKey,
}

const VAULT: Provider = Provider {
    open: |address, token| {
        let uri = format!("vault://{address}/transit/k?auth=token&tls=off&{}", options("token_file", token));
        Ok(Box::new(keyfold_kms::vault::VaultKek::from_uri(&uri, Path::new("/"))?))
    },
    is_operation: |head| head.contains("/transit/"),
    before: "HTTP/1.1 400 Bad\r\ncontent-length: 37\r\n\r\n{\"errors\":[\"lease is not renewable\"]}\n",
    credentials: TOKEN,
    wrapped: || WrappedKey { kek_version: "1".into(), bytes: vec![7; 92] },
};

const GCP_KEY: &str = "projects/p/locations/global/keyRings/r/cryptoKeys/k";
const GCP: Provider = Provider {
    open: |address, token| {
        let uri = format!("gcpkms://{GCP_KEY}?endpoint=http://{address}&{}", options("token_file", token));
        Ok(Box::new(keyfold_kms::gcp::GcpKek::from_uri(&uri, Path::new("/"))?))
    },
    is_operation: |_| true,
    before: "",
    credentials: TOKEN,
    wrapped: || WrappedKey { kek_version: format!("{GCP_KEY}/cryptoKeyVersions/3"), bytes: vec![7; 97] },
};

#[cfg(feature = "sdks")]
const AWS_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
#[cfg(feature = "sdks")]
const AWS: Provider = Provider {
    open: |address, credentials| {
        let option = options("credentials_file", credentials);
        let uri = format!("awskms://{AWS_KEY}?endpoint=http://{address}&profile=service&{option}");
        Ok(Box::new(keyfold_kms::aws::AwsKek::from_uri(&uri, Path::new("/"))?))
    },
    is_operation: |_| true,
    before: "",
    credentials: "[service]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = s.CANARYTOKENvalue0004\n",
    wrapped: || WrappedKey { kek_version: AWS_KEY.into(), bytes: vec![7; 150] },
};

#[cfg(feature = "sdks")]
const AZURE: Provider = Provider {
    open: |address, token| {
        let resource = "auth=token&resource=https://vault.azure.net&tls=off";
        let uri = format!("azurekv://{address}/patient-kek?{resource}&{}", options("token_file", token));
        Ok(Box::new(keyfold_kms::azure::AzureKek::from_uri(&uri, Path::new("/"))?))
    },
    is_operation: |head| head.to_ascii_lowercase().contains("authorization: bearer"),
    before: "HTTP/1.1 401 Who\r\ncontent-length: 0\r\nwww-authenticate: Bearer authorization=\"https://login.microsoftonline.com/t\", resource=\"https://vault.azure.net\"\r\n\r\n",
    credentials: TOKEN,
    wrapped: || WrappedKey { kek_version: "patient-kek/0123456789abcdef0123456789abcdef".into(), bytes: vec![7; 256] },
};

/// Vault and OpenBao.
pub fn vault(data: &[u8]) {
    run(&VAULT, data);
}

/// Google Cloud KMS.
pub fn gcp(data: &[u8]) {
    run(&GCP, data);
}

/// AWS KMS.
#[cfg(feature = "sdks")]
pub fn aws(data: &[u8]) {
    run(&AWS, data);
}

/// Azure Key Vault.
#[cfg(feature = "sdks")]
pub fn azure(data: &[u8]) {
    run(&AZURE, data);
}

fn options(name: &str, file: &Path) -> String {
    // A CA of our own is read faster than those of the system, and neither is of use without TLS.
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/../kms-adapters/tests/data/server-loopback.pem");
    format!("attempts=1&timeout=2s&ca={ca}&{name}={}", file.display())
}

/// The first byte says what is asked and whether the rest is the body of a reply, of which status, or the whole reply.
fn run(provider: &'static Provider, data: &[u8]) {
    static SERVER: OnceLock<(SocketAddr, tempfile::NamedTempFile)> = OnceLock::new();
    let (address, credentials) = SERVER.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), provider.credentials).expect("written");
        (serve(provider), file)
    });
    let Some((&choice, rest)) = data.split_first() else { return };
    let status = STATUSES[usize::from(choice >> 2) % STATUSES.len()];
    let reply = match choice & 2 {
        0 => rest.to_vec(),
        _ => [
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", rest.len())
                .as_bytes(),
            rest,
        ]
        .concat(),
    };
    *REPLY.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    // Of the input before, unless the service was away then: a circuit that is open asks nobody.
    static KEK: Mutex<Option<Box<dyn Kms>>> = Mutex::new(None);
    let mut kept = KEK.lock().unwrap_or_else(PoisonError::into_inner);
    let kek = kept.take().unwrap_or_else(|| (provider.open)(*address, credentials.path()).expect("a KEK"));
    let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    let start = Instant::now();
    let error = if choice & 1 == 0 {
        let wrapped = (provider.wrapped)();
        match block_on(kek.unwrap(UnwrapRequest::new(&wrapped, &context))) {
            // Nothing is made up: the payload stands in the reply, unless that escapes characters.
            Ok(payload) => {
                let texts = [BASE64.encode(payload.expose()), BASE64URL_NOPAD.encode(payload.expose())];
                let has = |text: &String| data.windows(text.len()).any(|part| part == text.as_bytes());
                *kept = Some(kek);
                return assert!(texts.iter().any(has) || data.contains(&b'\\'), "a payload that was not sent");
            }
            Err(error) => error,
        }
    } else {
        let payload = Secret::with(|bytes| *bytes = PAYLOAD);
        match block_on(kek.wrap(WrapRequest::new(&payload, &context))) {
            Ok(wrapped) => {
                *kept = Some(kek);
                return assert!(wrapped.bytes != PAYLOAD && !wrapped.kek_version.contains(TOKEN));
            }
            Err(error) => error,
        }
    };
    assert!(start.elapsed() < LONGEST, "it took {:?}", start.elapsed());
    assert!(
        matches!(error.kind(), ErrorKind::Kms(_) | ErrorKind::Configuration | ErrorKind::DeadlineExceeded),
        "{error}"
    );
    let is_outage = |kind| matches!(kind, KmsErrorKind::Unavailable | KmsErrorKind::Timeout | KmsErrorKind::Throttled);
    if matches!(error.kind(), ErrorKind::Kms(kind) if !is_outage(kind)) {
        *kept = Some(kek);
    }
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains(TOKEN) && !shown.contains("CANARY-PAYLOAD") && !shown.contains(&BASE64.encode(&PAYLOAD)),
        "{shown}"
    );
}

static REPLY: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn serve(provider: &'static Provider) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The client may go away at any point.
            let _ = answer(provider, stream);
        }
    });
    address
}

/// Answers until the operation was asked for, and hangs up: whatever the reply announces.
fn answer(provider: &Provider, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LONGEST))?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
            let line = head[start..].trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        if (provider.is_operation)(&head) {
            let reply = REPLY.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return reader.get_mut().write_all(&reply);
        }
        reader.get_mut().write_all(provider.before.as_bytes())?;
    }
}
