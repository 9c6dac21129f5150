//! `vault://` URIs, which are refused with a reason and without a credential, or mean what they say.

mod common;

use common::refused;
use keyfold::ErrorKind;
use keyfold_kms::vault::{VaultAuth, VaultConfig, VaultKek};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn parse(uri: &str) -> keyfold::Result<VaultConfig> {
    VaultConfig::from_uri(uri, Path::new("/etc/keyfold"))
}

#[test]
fn a_uri_says_everything() {
    let config = parse("vault://vault.example/team/transit/clinic-7?token_file=run/token&namespace=a/b&ca=ca.pem&timeout=900ms&attempts=2&rate=7").expect("a URI");
    assert_eq!(config.address.as_str(), "https://vault.example:8200/");
    assert_eq!((config.mount.as_str(), config.key.as_str()), ("team/transit", "clinic-7"));
    assert_eq!(config.namespace.as_deref(), Some("a/b"));
    assert_eq!(config.ca, Some(PathBuf::from("/etc/keyfold/ca.pem")));
    assert_eq!(config.limits.attempt, Duration::from_millis(900));
    assert_eq!((config.limits.attempts, config.limits.rate, config.limits.burst), (2, 7.0, 7));
    assert_eq!(config.to_string(), "vault://vault.example:8200/team/transit/clinic-7?namespace=a/b");
    let VaultAuth::Token(source) = config.auth else { panic!("another method") };
    assert_eq!(source.to_string(), "file /etc/keyfold/run/token");
    let files = keyfold_kms::uri::files("vault://v/t/k?token_file=a%20b&ca=/ca.pem&role=x", Path::new("/etc"));
    assert_eq!(files, [PathBuf::from("/etc/a b"), PathBuf::from("/ca.pem")]);
}

#[test]
fn ports_and_logins_have_defaults() {
    let config = parse("vault://vault.example:443/transit/k?auth=kubernetes&role=r").expect("a URI");
    assert_eq!(
        (config.address.port_or_known_default(), config.to_string().as_str()),
        (Some(443), "vault://vault.example:443/transit/k")
    );
    let VaultAuth::Kubernetes { mount, role, jwt } = config.auth else { panic!("another method") };
    assert_eq!((mount.as_str(), role.as_str()), ("kubernetes", "r"));
    assert_eq!(jwt.to_string(), "file /var/run/secrets/kubernetes.io/serviceaccount/token");
    let config =
        parse("vault://vault.example/transit/k?auth=approle&auth_mount=x/y&role_id=r&secret_id_env=S").expect("a URI");
    assert!(matches!(config.auth, VaultAuth::AppRole { mount, .. } if mount == "x/y"));
}

/// Covers KC-35.
#[test]
fn other_uris_are_refused() {
    let good = "vault://v.example/transit/k?token_env=T";
    parse(good).expect("a URI");
    let wrong = [
        "",
        "vault:",
        "vault://",
        "vault://v.example",
        "vault://v.example/transit",
        "vault:///transit/k?token_env=T",
        "https://v.example/transit/k?token_env=T",
        "vault://v.example/transit/?token_env=T",
        "vault://v.example//k?token_env=T",
        "vault://v.example/transit/../k?token_env=T",
        "vault://v.example/transit/%2e%2e?token_env=T",
        "vault://v.example/transit/k%2fx?token_env=T",
        "vault://v.example/transit/k",
        "vault://v.example/transit/k?",
        "vault://v.example/transit/k?token=s.CANARY",
        "vault://user:CANARY@v.example/transit/k?token_env=T",
        "vault://v.example/transit/k?token_env=T#CANARY",
        "vault://v.example/transit/k?token_env=T&token_file=F",
        "vault://v.example/transit/k?token_env=T&token_env=T",
        "vault://v.example/transit/k?token_env=T&tls=on",
        "vault://v.example/transit/k?token_env=T&tls=off",
        "vault://v.example/transit/k?token_env=T&verify=false",
        "vault://v.example/transit/k?token_env=T&timeout=5",
        "vault://v.example/transit/k?token_env=T&timeout=-5s",
        "vault://v.example/transit/k?token_env=T&deadline=5s",
        "vault://v.example/transit/k?token_env=T&timeout=301s",
        "vault://v.example/transit/k?token_env=T&attempts=0",
        "vault://v.example/transit/k?token_env=T&attempts=11",
        "vault://v.example/transit/k?token_env=T&rate=0",
        "vault://v.example/transit/k?token_env=T&rate=1e9",
        "vault://v.example/transit/k?token_env=T&namespace=../x",
        "vault://v.example/transit/k?token_env=T&role=r",
        "vault://v.example/transit/k?auth=approle&role_id=r",
        "vault://v.example/transit/k?auth=approle&secret_id_env=S",
        "vault://v.example/transit/k?auth=kubernetes",
        "vault://v.example/transit/k?auth=ldap&token_env=T",
        "vault://v.example/transit/k?auth=approle&auth_mount=../sys&role_id=r&secret_id_env=S",
        "vault://v.example:99999/transit/k?token_env=T",
        "vault://v example/transit/k?token_env=T",
        "vault://v.example/transit/k?token_env=T\n",
        "vault://v.example\\@evil.example/transit/k?token_env=T",
    ];
    for uri in wrong {
        let error = refused(parse(uri));
        assert_eq!(error.kind(), ErrorKind::Configuration, "{uri}: {error}");
        assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
    }
}

#[test]
fn a_ca_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("empty.pem"), "").expect("written");
    std::fs::write(folder.path().join("torn.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("written");
    for ca in ["missing.pem", "empty.pem", "torn.pem", "."] {
        let error =
            refused(VaultKek::from_uri(&format!("vault://v.example/transit/k?token_env=T&ca={ca}"), folder.path()));
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(ca), "{error}");
    }
}

#[test]
fn credentials_that_are_missing_or_odd_are_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in
        [("empty", vec![]), ("lines", b"a\nb\n".to_vec()), ("long", vec![b'a'; 70_000]), ("bytes", vec![0xFF; 8])]
    {
        std::fs::write(folder.path().join(name), content).expect("written");
    }
    let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().expect("started");
    assert!(pipe.success());
    let wrapped = keyfold::WrappedKey { kek_version: "1".to_owned(), bytes: vec![7; 92] };
    for place in [
        "token_file=empty",
        "token_file=lines",
        "token_file=long",
        "token_file=bytes",
        "token_file=missing",
        "token_file=.",
        "token_file=pipe",
        "token_env=KEYFOLD_NO_SUCH",
    ] {
        let kek = VaultKek::from_uri(&format!("vault://127.0.0.1:9/transit/k?{place}"), folder.path()).expect("opened");
        let (result, requests) = common::unwrap_traced(&kek, &wrapped);
        let error = refused(result);
        assert_eq!(error.kind(), ErrorKind::Kms(keyfold::KmsErrorKind::Credentials), "{place}: {error}");
        assert_eq!(requests, 0, "{place}");
    }
}
