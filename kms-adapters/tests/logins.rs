//! How the adapters of clouds come by credentials, where that goes wrong: files that hang, services that give tokens and are in
//! trouble, variables that lead elsewhere. Each test has a process of its own, because variables are a process's.

mod common;

use common::fork::is_left_to_own_process;
use common::rest::{account, azure_challenge, providers};
use common::server::{Reply, Server, data};
use common::{PAYLOAD, here, refused, unwrap, wrap};
use keyfold::{ErrorKind, Kms, KmsErrorKind, WrappedKey};
use keyfold_kms::callback::CallbackKek;
use keyfold_kms::layer::Limits;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const GCP_KEY: &str = "projects/p/locations/global/keyRings/r/cryptoKeys/k";
/// Long enough that only what hangs takes longer.
const LONG: Duration = Duration::from_secs(20);

fn set(name: &str, value: impl AsRef<std::ffi::OsStr>) {
    // SAFETY: this process is one test's alone, and no operation is under way.
    unsafe { std::env::set_var(name, value) };
}

/// Opens the KEK, with a deadline of a second.
fn open(uri: &str) -> Box<dyn Kms> {
    let second = Duration::from_secs(1);
    match uri.split_once(':').expect("a scheme").0 {
        "awskms" => Box::new(
            keyfold_kms::aws::AwsKek::from_uri(uri, here()).and_then(|kek| kek.with_deadline(second)).expect("opened"),
        ),
        "azurekv" => Box::new(
            keyfold_kms::azure::AzureKek::from_uri(uri, here())
                .and_then(|kek| kek.with_deadline(second))
                .expect("opened"),
        ),
        _ => Box::new(
            keyfold_kms::gcp::GcpKek::from_uri(uri, here()).and_then(|kek| kek.with_deadline(second)).expect("opened"),
        ),
    }
}

/// Runs `work` on a thread; what hangs fails the test.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(LONG).expect("done in time")
}

/// A pipe that nobody writes to.
fn pipe(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    assert!(Command::new("mkfifo").arg(&path).status().expect("started").success());
    path
}

/// A vault that asks for a token of Key Vault.
fn vault() -> Server {
    Server::always(azure_challenge("https://vault.azure.net"))
}

/// Whatever holds up the credentials at `uri`, its operations end in time, and so do those of another KEK.
fn holds_up_nobody(uri: &str, expected: &[KmsErrorKind]) {
    let uri = uri.to_owned();
    let kinds = in_time(move || {
        let kek = open(&uri);
        [(); 3].map(|()| refused(wrap(&*kek)).kind())
    });
    for kind in kinds {
        assert!(expected.iter().any(|&expected| kind == ErrorKind::Kms(expected)), "{kind:?}");
    }
    in_time(|| {
        let wrapped = || WrappedKey { kek_version: String::new(), bytes: vec![1] };
        let healthy = CallbackKek::asynchronous(
            "other",
            Limits::default(),
            move |_, _| Box::pin(async move { Ok(wrapped()) }),
            |_, _| unreachable!("only wraps"),
        );
        wrap(&healthy.expect("opened")).map(drop)
    })
    .expect("another KEK works");
}

#[test]
fn a_pipe_as_a_file_of_credentials_is_refused_and_holds_up_nobody() {
    if is_left_to_own_process("a_pipe_as_a_file_of_credentials_is_refused_and_holds_up_nobody") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let refusal = &[KmsErrorKind::Credentials][..];
    let file = pipe(folder.path(), "pipe");
    let aws = format!("awskms://{ARN}?endpoint=http://127.0.0.1:9");
    holds_up_nobody(&format!("{aws}&credentials_file={}", file.display()), refusal);
    set("AWS_EC2_METADATA_DISABLED", "true");
    set("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/intake");
    for name in ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"] {
        set(name, &file);
        holds_up_nobody(&aws, refusal);
        set(name, "/nowhere");
    }
    for (name, value) in [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")] {
        set(name, value);
    }
    set("AZURE_FEDERATED_TOKEN_FILE", &file);
    holds_up_nobody(&format!("azurekv://{}/k?tls=off&auth=workload", vault().address), refusal);
    let google = format!("gcpkms://{GCP_KEY}?endpoint=http://127.0.0.1:9");
    holds_up_nobody(&format!("{google}&credentials_file={}", file.display()), refusal);
    pipe(folder.path(), ".config/gcloud/application_default_credentials.json");
    set("HOME", folder.path());
    holds_up_nobody(&google, refusal);
}

/// The SDK finds the pipe by itself: a profile names it.
/// Covers KC-2.
#[test]
fn what_hangs_inside_of_the_aws_sdk_costs_one_thread() {
    if is_left_to_own_process("what_hangs_inside_of_the_aws_sdk_costs_one_thread") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = pipe(folder.path(), "pipe");
    let profile = format!(
        "[default]\nrole_arn = arn:aws:iam::111122223333:role/intake\nweb_identity_token_file = {}\n",
        file.display()
    );
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, profile).expect("written");
    let uri = format!("awskms://{ARN}?endpoint=http://127.0.0.1:9&credentials_file={}", credentials.display());
    let threads = || std::fs::read_dir("/proc/self/task").expect("threads").count();
    let hang = || {
        holds_up_nobody(&format!("{uri}&attempts=1"), &[KmsErrorKind::Timeout]);
        threads()
    };
    let before = hang();
    let after = hang();
    // Three operations of one KEK; the pool of the runtime may have grown by one meanwhile.
    assert!(after < before + 3, "{before} threads, then {after}");
}

#[test]
fn a_token_service_in_trouble_is_asked_again_and_no_reason_to_doubt_the_credentials() {
    if is_left_to_own_process("a_token_service_in_trouble_is_asked_again_and_no_reason_to_doubt_the_credentials") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    set("AWS_EC2_METADATA_DISABLED", "true");
    set("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/intake");
    set("AWS_WEB_IDENTITY_TOKEN_FILE", write("web", "eyJ.web"));
    set("IDENTITY_HEADER", "header");
    let vault = vault();
    let google = format!("gcpkms://{GCP_KEY}?endpoint=http://127.0.0.1:9&credentials_file=");
    for (status, kind) in [
        (429, KmsErrorKind::Throttled),
        (500, KmsErrorKind::Unavailable),
        (503, KmsErrorKind::Unavailable),
        (400, KmsErrorKind::Credentials),
    ] {
        let service = Server::always(Reply::json(status, "{}"));
        let address = format!("http://{}", service.address);
        set("AWS_ENDPOINT_URL_STS", &address);
        set("IDENTITY_ENDPOINT", &address);
        let account = write("account", &account(&format!("{address}/token")));
        for uri in [
            format!("awskms://{ARN}?endpoint=http://127.0.0.1:9"),
            format!("azurekv://{}/k?tls=off&auth=managed", vault.address),
            format!("{google}{}", account.display()),
        ] {
            let before = service.seen().len();
            let kek = open(&format!("{uri}&attempts=2"));
            let error = refused(wrap(&*kek));
            assert_eq!(error.kind(), ErrorKind::Kms(kind), "{status}, {uri}: {error}");
            let asked = service.seen().len() - before;
            assert_eq!(asked, if status == 400 { 1 } else { 2 }, "{status}, {uri}");
        }
    }
}

#[test]
fn no_variable_leads_what_proves_an_identity_elsewhere() {
    if is_left_to_own_process("no_variable_leads_what_proves_an_identity_elsewhere") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "eyJ.secret").expect("written");
    let vault = vault();
    let azure = format!(
        "azurekv://{}/k?tls=off&auth=secret&tenant_id=t&client_id=c&attempts=1&client_secret_file={}",
        vault.address,
        secret.display()
    );
    set("AWS_EC2_METADATA_DISABLED", "true");
    set("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/intake");
    set("AWS_WEB_IDENTITY_TOKEN_FILE", &secret);
    for (name, place, uri) in [
        ("AWS_ENDPOINT_URL", "https://evil.invalid", ""),
        ("AWS_ENDPOINT_URL_STS", "https://evil.invalid", ""),
        ("AWS_ENDPOINT_URL_STS", "https://sts.us-east-1.amazonaws.com.evil.invalid", ""),
        ("AWS_ENDPOINT_URL_STS", "https://evilsts.us-east-1.amazonaws.com", ""),
        ("AWS_ENDPOINT_URL_STS", "https://evil.execute-api.us-east-1.amazonaws.com", ""),
        ("AZURE_AUTHORITY_HOST", "https://evil.invalid", azure.as_str()),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com.evil.invalid", &azure),
    ] {
        set(name, place);
        let aws = format!("awskms://{ARN}?endpoint=http://127.0.0.1:9&attempts=1");
        let error = refused(wrap(&*open(if uri.is_empty() { &aws } else { uri })));
        assert_eq!(error.kind(), ErrorKind::Configuration, "{name}={place}: {error}");
        // SAFETY: as in `set`.
        unsafe { std::env::remove_var(name) };
    }
}

/// The variable takes the place of the system's roots, and not that of `ca=`. Covers KC-33.
#[test]
fn roots_in_a_variable_are_believed_where_the_uri_names_none() {
    if is_left_to_own_process("roots_in_a_variable_are_believed_where_the_uri_names_none") {
        return;
    }
    for provider in providers() {
        for (roots, ca, is_believed) in [
            ("server-loopback.pem", "", true),
            ("server-elsewhere.pem", "", false),
            ("server-loopback.pem", "server-elsewhere.pem", false),
            ("server-elsewhere.pem", "server-loopback.pem", true),
        ] {
            set("SSL_CERT_FILE", data(roots));
            let server = Server::start_tls("server-loopback.pem", provider.answer(provider.good_reply(PAYLOAD)));
            let option = if ca.is_empty() { String::new() } else { format!("&ca={}", data(ca).display()) };
            let opened = provider.kek(&format!("https://{}", server.address), LONG, &option);
            let kind = unwrap(&*opened.kek, &(provider.wrapped)()).err().map(|error| error.kind());
            let expected = (!is_believed).then_some(ErrorKind::Kms(KmsErrorKind::TlsError));
            assert_eq!(kind, expected, "{}: {roots}, ca={ca}", provider.name);
        }
    }
}

// Failure A28
#[test]
fn no_proxy_of_the_environment_is_used() {
    if is_left_to_own_process("no_proxy_of_the_environment_is_used") {
        return;
    }
    let proxy = Server::always(Reply::json(200, "{}"));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        set(name, format!("http://{}", proxy.address));
    }
    for provider in providers() {
        let server = provider.serve(provider.good_reply(PAYLOAD));
        let opened = provider.kek(&format!("http://{}", server.address), Duration::from_secs(10), "");
        let result = unwrap(&*opened.kek, &(provider.wrapped)());
        assert!(result.is_ok(), "{}: {:?}", provider.name, result.err());
        assert_eq!(provider.asked(&server), 1, "{}", provider.name);
    }
    assert!(proxy.seen().is_empty(), "{:?}", proxy.seen());
}
