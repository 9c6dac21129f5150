//! Bodies of 64 MB do not end up in memory, whatever the adapter. In a process of its own, because it watches the memory of
//! the whole process.

#![cfg(target_os = "linux")]

mod common;

use common::rest::providers;
use common::server::Reply;
use common::{refused, unwrap};
use std::io::Write;
use std::time::Duration;

/// Kilobytes in use: `VmRSS` now, `VmHWM` at most since the mark was reset.
fn kilobytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Hostile answers to what `ask` asks take less than two megabytes.
fn growth(name: &str, ask: impl Fn(Reply)) {
    let long = 64 << 20;
    // Once for what stays: the runtime, buffers, threads.
    for reply in [Reply::Long(1 << 20), Reply::json(400, "{}")] {
        ask(reply);
    }
    let mut most = 0;
    for reply in [Reply::Long(long), Reply::LongChunked(long), Reply::LongHeaders, Reply::Bomb, Reply::Echo(400)] {
        std::fs::write("/proc/self/clear_refs", "5").expect("the mark is reset");
        let before = kilobytes("VmRSS");
        ask(reply.clone());
        let grown = kilobytes("VmHWM").saturating_sub(before);
        assert!(grown < 2048, "{name}, {reply:?}: {grown} KiB more");
        most = grown.max(most);
    }
    let _ = writeln!(std::io::stdout(), "\n{name}: hostile answers took {most} KiB at most");
}

/// Covers KC-34.
// Failure A16
#[test]
fn hostile_answers_take_less_than_two_megabytes() {
    for provider in providers() {
        growth(provider.name, |reply| {
            let server = provider.serve(reply);
            let opened = provider.kek(&format!("http://{}", server.address), Duration::from_secs(10), "");
            refused(unwrap(&*opened.kek, &(provider.wrapped)()));
        });
    }
    #[cfg(all(feature = "aws", feature = "azure", feature = "gcp"))]
    logins();
}

/// As above, where what is hostile should give credentials.
#[cfg(all(feature = "aws", feature = "azure", feature = "gcp"))]
fn logins() {
    use common::server::Server;
    use common::{here, wrap};
    use keyfold::Kms;

    let set = |name: &str, value: &str| {
        // SAFETY: this process is one test's alone, and no operation is under way.
        unsafe { std::env::set_var(name, value) };
    };
    for name in ["AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        // SAFETY: as above.
        unsafe { std::env::remove_var(name) };
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("web"), "eyJ.web").expect("written");
    for (name, value) in [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/intake"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &path("web")),
        ("IDENTITY_HEADER", "header"),
    ] {
        set(name, value);
    }
    let vault = Server::always(common::rest::azure_challenge("https://vault.azure.net"));
    let ask = |reply: Reply, kek: &dyn Fn(&str) -> Box<dyn Kms>| {
        let service = Server::always(reply);
        let kek = kek(&format!("http://{}", service.address));
        refused(wrap(&*kek));
        assert!(!service.seen().is_empty(), "the service was asked for credentials");
    };
    growth("login to AWS", |reply| {
        ask(reply, &|address| {
            set("AWS_ENDPOINT_URL_STS", address);
            let arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
            let uri = format!("awskms://{arn}?endpoint=http://127.0.0.1:9&attempts=1");
            Box::new(keyfold_kms::aws::AwsKek::from_uri(&uri, here()).expect("opened"))
        });
    });
    growth("login to Azure", |reply| {
        ask(reply, &|address| {
            set("IDENTITY_ENDPOINT", address);
            let uri = format!("azurekv://{}/k?tls=off&auth=managed&attempts=1", vault.address);
            Box::new(keyfold_kms::azure::AzureKek::from_uri(&uri, here()).expect("opened"))
        });
    });
    growth("login to Google", |reply| {
        ask(reply, &|address| {
            std::fs::write(path("account"), common::rest::account(&format!("{address}/token"))).expect("written");
            let key = "projects/p/locations/global/keyRings/r/cryptoKeys/k";
            let uri =
                format!("gcpkms://{key}?endpoint=http://127.0.0.1:9&attempts=1&credentials_file={}", path("account"));
            Box::new(keyfold_kms::gcp::GcpKek::from_uri(&uri, here()).expect("opened"))
        });
    });
}
