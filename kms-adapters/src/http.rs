//! The HTTPS client of all adapters that speak REST. Strict, because it carries keys:
//!
//! - TLS 1.2 or 1.3 with ring, which is passed explicitly; the system's roots, or a private CA in their place;
//!   plain HTTP to a loopback address alone, and for credentials to the metadata service of a cloud;
//! - no redirect is followed, no proxy is used (whatever the environment says), no cookie kept, nothing decompressed,
//!   nothing repeated;
//! - at most 64 KiB of an answer are read;
//! - each request has a connection of its own, because one that is kept would keep the last answer in its buffers, with the key that was
//!   unwrapped;
//! - connections are not shared with a forked child;
//! - credentials are marked as sensitive to the layers below, bodies are erased; copies in the buffers of HTTP and TLS are erased where the
//!   program has [`keyfold_memory::ErasingAllocator`], when the connection ends, which is at once.
//!
//! Its calls need a tokio runtime and have no timeout: both are the layer's.

mod date;

use crate::credentials::SecretText;
use crate::layer::{Again, Failure};
use crate::per_process::PerProcess;
use bytes::Bytes;
use data_encoding::Encoding;
use keyfold::{Error, ErrorKind, KmsErrorKind, KmsTrace, Result, Secret};
use reqwest::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use url::{Host, Url};
use zeroize::Zeroizing;

/// Most bytes of an answer that are read.
// KC-34.
pub const MAX_BODY_LEN: usize = 64 * 1024;

/// A client. Cheap to make; it connects when it is used.
pub struct Http {
    tls: Arc<ClientConfig>,
    client: PerProcess<reqwest::Client>,
}

impl Http {
    /// A client that trusts the certificates in the PEM file `ca` and no others, or without one those of the system.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the file cannot be read or holds no certificate, or the system has none.
    // KC-29.
    pub fn new(ca: Option<&Path>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                let wrong = |why: String| {
                    Error::new(ErrorKind::Configuration, "the CA of the key service cannot be used")
                        .with_detail(format!("{}: {why}", path.display()))
                };
                let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
                    .and_then(Iterator::collect)
                    .map_err(|error| wrong(error.to_string()))?;
                if certificates.is_empty() {
                    return Err(wrong("no certificate in it".to_owned()));
                }
                for certificate in certificates {
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
            }
            // Some of a system's roots may not be understood; those that are count.
            // KC-33.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(ErrorKind::Internal, "TLS cannot be set up").with_source(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls), client: PerProcess::new() })
    }

    fn client(&self) -> Result<Arc<reqwest::Client>, Failure> {
        self.client.get(|| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(with_own_sessions(&self.tls))
                .user_agent(concat!("keyfold/", env!("CARGO_PKG_VERSION")))
                // KC-31.
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                // KC-32.
                .no_proxy()
                .http1_only()
                // KC-41.
                .pool_max_idle_per_host(0)
                .default_headers(HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("close"))]))
                .build()
                .map_err(|error| {
                    Failure::new(KmsErrorKind::Unavailable, "the HTTPS client cannot be made").detail(innermost(&error))
                })
        })
    }

    /// Sends `request` and reads the answer, whatever its status; a redirect is a failure.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](KmsErrorKind::Unavailable), [`TlsError`](KmsErrorKind::TlsError) or
    /// [`MalformedResponse`](KmsErrorKind::MalformedResponse): the way to the service, or what came back over it.
    pub async fn send(&self, request: Request, trace: Option<&KmsTrace>) -> Result<Response, Failure> {
        let Request { method, url, headers, body, is_login } = request;
        if url.scheme() != "https" && !is_loopback(&url) && !(is_login && is_metadata(&url)) {
            // KC-30.
            return Err(Failure::configuration("a key service is reached over HTTPS, unless on a loopback address"));
        }
        let client = self.client()?;
        if let Some(trace) = trace {
            trace.request_sent();
        }
        let sent = sent(&headers, &body);
        // Wiped when the client lets go of it.
        let body = Bytes::from_owner(body);
        let sent_at = SystemTime::now();
        let mut answer =
            client.request(method, url).headers(headers).body(body).send().await.map_err(|error| transport(&error))?;
        if let (Some(trace), Some(ahead)) = (trace, date::ahead(answer.headers(), sent_at, SystemTime::now())) {
            trace.set_clock_ahead(ahead);
        }
        let status = answer.status().as_u16();
        if answer.status().is_redirection() {
            return Err(Failure::malformed("the key service answered with a redirect, which is never followed"));
        }
        const TOO_LONG: Failure = Failure::malformed("the answer of the key service is longer than 64 KiB");
        let announced = answer.content_length().unwrap_or(0);
        if announced > MAX_BODY_LEN as u64 {
            return Err(TOO_LONG);
        }
        // As long as it may get, because growing would leave copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY_LEN));
        while let Some(chunk) = answer.chunk().await.map_err(|error| transport(&error))? {
            if body.len() + chunk.len() > MAX_BODY_LEN {
                return Err(TOO_LONG);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers: std::mem::take(answer.headers_mut()), body, sent })
    }
}

/// A request, to be sent by [`Http::send`].
pub struct Request {
    method: reqwest::Method,
    url: Url,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    /// Whether it may go to the metadata service of a cloud, which has no TLS.
    is_login: bool,
}

impl Request {
    /// A GET request.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self {
            method: reqwest::Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Zeroizing::default(),
            is_login: false,
        }
    }

    /// A GET request for credentials, which may go to the metadata service of a cloud without TLS.
    #[cfg(feature = "gcp")]
    pub(crate) fn login(url: Url) -> Self {
        Self { is_login: true, ..Self::get(url) }
    }

    /// A request that a provider's SDK has made. Its headers are all treated as credentials. One that fetches credentials
    /// (`is_login`) may go to the metadata service of a cloud without TLS as well.
    #[cfg(any(feature = "aws", feature = "azure"))]
    pub(crate) fn of_sdk<'a>(
        method: &str,
        url: &str,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        body: &[u8],
        is_login: bool,
    ) -> Result<Self, Failure> {
        const WRONG: Failure = Failure::configuration("an SDK has made a request that is not one of HTTP");
        let mut request = Self {
            method: method.parse().map_err(|_| WRONG)?,
            body: Zeroizing::new(body.to_vec()),
            is_login,
            ..Self::get(Url::parse(url).map_err(|_| WRONG)?)
        };
        for (name, value) in headers {
            let mut value = header_value(value)?;
            value.set_sensitive(true);
            request.headers.append(HeaderName::from_bytes(name.as_bytes()).map_err(|_| WRONG)?, value);
        }
        Ok(request)
    }

    /// A POST request with an empty body.
    #[must_use]
    pub fn post(url: Url) -> Self {
        Self { method: reqwest::Method::POST, ..Self::get(url) }
    }

    /// With a header. `name` is in lower case.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: a header cannot have such a value.
    pub fn header(mut self, name: &'static str, value: &str) -> Result<Self, Failure> {
        self.headers.insert(HeaderName::from_static(name), header_value(value)?);
        Ok(self)
    }

    /// With a credential as a header, which no layer below shows. `prefix` is put before it, such as `Bearer `.
    ///
    /// # Errors
    ///
    /// As for [`header`](Self::header).
    pub fn secret_header(mut self, name: &'static str, prefix: &str, secret: &SecretText) -> Result<Self, Failure> {
        let mut value = header_value(&Zeroizing::new([prefix, secret.expose()].concat()))?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// With `body` as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`]: it cannot be written as JSON.
    pub fn json(mut self, body: &impl Serialize) -> Result<Self, Failure> {
        self.body = json(body)?;
        self.headers.insert("content-type", HeaderValue::from_static("application/json"));
        Ok(self)
    }

    /// With `body` as `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn form(mut self, body: Zeroizing<String>) -> Self {
        self.body = Zeroizing::new(body.as_bytes().to_vec());
        self.headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        self
    }
}

/// `body` as JSON, erased on drop.
///
/// # Errors
///
/// [`ErrorKind::Internal`]: it cannot be written as JSON.
pub(crate) fn json(body: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Large enough for every body of ours, because growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    serde_json::to_writer(&mut *bytes, body)
        .map_err(|error| Error::new(ErrorKind::Internal, "a request cannot be written as JSON").with_source(error))?;
    Ok(bytes)
}

/// An answer. The body is erased on drop; what is parsed out of it and secret is borrowed.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    /// What was asked, credentials included.
    sent: Zeroizing<Vec<u8>>,
}

impl Response {
    /// Notes `id` in `trace` as the ID that the service gave the request, unless it was part of the request: a hostile service would
    /// have a credential shown.
    pub fn note_id(&self, trace: Option<&KmsTrace>, id: &str) {
        if let Some(trace) = trace
            && !self.sent.windows(id.len().max(1)).any(|part| part.eq_ignore_ascii_case(id.as_bytes()))
        {
            trace.set_request_id(id);
        }
    }

    /// The header `name`, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What an SDK needs of it.
    #[cfg(any(feature = "aws", feature = "azure"))]
    pub(crate) fn into_parts(self) -> (u16, HeaderMap, Bytes) {
        (self.status, self.headers, Bytes::from_owner(self.body))
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// [`MalformedResponse`](KmsErrorKind::MalformedResponse): it is not what was expected.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        // The error would show what it stumbled upon.
        serde_json::from_slice(&self.body).map_err(|_| {
            Failure::malformed("the answer of the key service is not what its protocol says")
                .detail(format!("status {}", self.status))
        })
    }

    /// How long the service asks to be left alone: see [`retry_after`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(|name| self.header(name))
    }
}

/// How long a service asks to be left alone, by the headers of its answer: in milliseconds as Azure writes it, in seconds, or
/// until a date, which is read by the service's own clock.
pub fn retry_after<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Option<Duration> {
    let number = |name| header(name)?.trim().parse().ok();
    let date = |name| httpdate::parse_http_date(header(name)?.trim()).ok();
    number("x-ms-retry-after-ms")
        .or_else(|| number("retry-after-ms"))
        .map(Duration::from_millis)
        .or_else(|| number("retry-after").map(Duration::from_secs))
        .or_else(|| date("retry-after")?.duration_since(date("date")?).ok())
}

/// What it means that a place which gives credentials answers with `status`, if it is in trouble itself: then the
/// credentials are not at fault, and it is worth another attempt.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
pub(crate) fn login_outage(status: u16, pause: Option<Duration>) -> Option<Failure> {
    let failure = match status {
        429 => Failure::new(KmsErrorKind::Throttled, "what gives the credentials is asked too often"),
        408 | 504 => Failure::new(KmsErrorKind::Timeout, "what gives the credentials did not answer in time"),
        500..=599 => Failure::new(KmsErrorKind::Unavailable, "what gives the credentials is in trouble itself"),
        _ => return None,
    };
    Some(failure.detail(format!("status {status}")).retry_after(pause))
}

/// The payload that a service returned in an encoding such as base64.
///
/// # Errors
///
/// [`MalformedResponse`](KmsErrorKind::MalformedResponse): not 64 bytes in that encoding.
// KC-4.
pub fn decode_payload(text: &str, encoding: &Encoding) -> Result<Secret<64>, Failure> {
    const WRONG: Failure = Failure::malformed("the key service returned something else than was wrapped");
    // Padded base64 is decoded in groups of three bytes.
    let len = encoding.decode_len(text.len()).ok().filter(|&len| len <= 66).ok_or(WRONG)?;
    let mut buffer = Zeroizing::new([0; 66]);
    let len = encoding.decode_mut(text.as_bytes(), &mut buffer[..len]).map_err(|_| WRONG)?;
    let found: &[u8; 64] = buffer[..len].try_into().map_err(|_| WRONG)?;
    Ok(Secret::with(|payload| payload.copy_from_slice(found)))
}

/// Whether `url` names a loopback address by its number: a name could lead anywhere.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    }
}

/// Whether `url` is one of the places where clouds hand credentials to the programs on a machine: a link-local address,
/// that of ECS or EKS on IPv6, or the machine itself by name.
fn is_metadata(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_link_local(),
        Some(Host::Ipv6(address)) => address.segments()[..2] == [0xfd00, 0x0ec2],
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The same configuration with sessions of its own: those of a parent are behind a lock, which another thread of it may have held.
// KC-6.
fn with_own_sessions(tls: &ClientConfig) -> ClientConfig {
    let mut tls = tls.clone();
    tls.resumption = Resumption::default();
    tls
}

/// The body, and the credentials among the headers.
fn sent(headers: &HeaderMap, body: &[u8]) -> Zeroizing<Vec<u8>> {
    let secret = || headers.values().filter(|value| value.is_sensitive());
    let len = secret().map(HeaderValue::len).sum::<usize>();
    let mut all = Zeroizing::new(Vec::with_capacity(body.len() + len));
    all.extend_from_slice(body);
    secret().for_each(|value| all.extend_from_slice(value.as_bytes()));
    all
}

fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    // The error of the conversion is not shown: the text may be a credential.
    HeaderValue::from_str(text)
        .map_err(|_| Failure::configuration("a credential or name has characters that HTTP forbids"))
}

/// Sorts what went wrong before there was a whole answer.
fn transport(error: &reqwest::Error) -> Failure {
    let is_tls = causes(error).any(is_tls);
    let is_garbage = causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse);
    let failure = if is_tls {
        Failure::new(KmsErrorKind::TlsError, "the TLS connection to the key service cannot be trusted")
    } else if is_garbage {
        Failure::malformed("the key service does not speak HTTP")
    } else if error.is_connect() {
        Failure::new(KmsErrorKind::Unavailable, "the key service cannot be reached")
    } else {
        Failure::new(KmsErrorKind::Unavailable, "the connection to the key service broke").again(Again::Later)
    };
    failure.detail(innermost(error))
}

/// Whether it is an error of rustls. Those hide in I/O errors, in several at times, which do not name them as sources.
fn is_tls(cause: &(dyn StdError + 'static)) -> bool {
    cause.is::<rustls::Error>()
        || cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref).is_some_and(|inner| is_tls(inner))
}

/// The last cause: an error of this machine or of TLS, never of the service's making.
fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, NamedGroup};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Sessions of a parent, which count how often they are asked.
    #[derive(Debug, Default)]
    struct Parents(AtomicUsize);

    impl ClientSessionStore for Parents {
        fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

        fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
            self.0.fetch_add(1, Ordering::SeqCst);
            None
        }

        fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

        fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
            None
        }

        fn remove_tls12_session(&self, _: &ServerName<'static>) {}

        fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}

        fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
            None
        }
    }

    #[test]
    fn a_process_asks_no_sessions_of_its_parent() {
        let sessions = Arc::new(Parents::default());
        let mut tls = ClientConfig::clone(&Http::new(None).unwrap().tls);
        tls.resumption = Resumption::store(sessions.clone());
        let connect = |tls: ClientConfig| {
            drop(ClientConnection::new(Arc::new(tls), "localhost".try_into().unwrap()).unwrap());
            sessions.0.load(Ordering::SeqCst)
        };
        assert_eq!(connect(with_own_sessions(&tls)), 0);
        assert!(connect(tls) > 0);
    }
}
