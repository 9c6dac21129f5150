//! Whom the store talks to, and with which password.

use crate::server::{Server, here, refusal};
use keyfold::ErrorKind;
use keyfold_store::PostgresStore;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use url::Url;

fn without_ca(uri: &mut Url) {
    let kept: Vec<(String, String)> =
        uri.query_pairs().filter(|(name, _)| name != "sslrootcert").map(|(n, v)| (n.into(), v.into())).collect();
    uri.query_pairs_mut().clear().extend_pairs(kept);
}

#[test]
fn a_server_that_is_not_the_named_one_gets_nothing() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=another CA", "-keyout", "other.key", "-out", "other.crt"])
        .current_dir(&folder)
        .output()
        .expect("openssl runs");
    assert!(made.status.success());
    let other_ca = folder.path().join("other.crt");
    let uris = [
        ("a CA of the system", schema.uri_with(without_ca)),
        (
            "another CA",
            schema.uri_with(|uri| {
                without_ca(uri);
                uri.query_pairs_mut().append_pair("sslrootcert", other_ca.to_str().expect("a text"));
            }),
        ),
        // The certificate is for 127.0.0.1.
        ("another name", schema.uri_with(|uri| uri.set_host(Some("localhost")).expect("a host"))),
    ];
    for (what, uri) in uris {
        let text = refusal(PostgresStore::open(&uri, here()));
        assert!(text.contains("TLS") && !text.contains(&server.password()), "{what}: {text}");
    }
    // The same server by a weaker mode that the URI names.
    let unknown = schema.uri_with(|uri| {
        uri.set_host(Some("localhost")).expect("a host");
        uri.query_pairs_mut().append_pair("sslmode", "require");
    });
    PostgresStore::open(&unknown, here()).expect("whoever it is");
}

#[test]
fn the_session_is_encrypted_unless_that_is_switched_off() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    let encrypted = |name: &str, mode: &str| {
        let uri = schema.uri_with(|uri| {
            uri.query_pairs_mut().append_pair("application_name", name).append_pair("sslmode", mode);
        });
        let _store = PostgresStore::open(&uri, here()).expect("opened");
        schema.number(&format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = '{name}'"
        ))
    };
    assert_eq!(encrypted(&format!("{}_full", schema.name), "verify-full"), 1);
    assert_eq!(encrypted(&format!("{}_off", schema.name), "disable"), 0);
}

#[test]
fn a_wrong_password_is_refused_and_not_repeated() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let uri = schema.uri_with(|uri| uri.set_password(Some("hunter2")).expect("a password"));
    let text = refusal(PostgresStore::open(&uri, here()));
    assert!(text.contains("refused the user or the password") && !text.contains("hunter2"), "{text}");
    let uri = schema.uri_with(|uri| uri.set_path("/absent"));
    assert!(refusal(PostgresStore::open(&uri, here())).contains("does not exist"));
}

#[test]
fn the_password_need_not_stand_in_the_uri() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("password");
    fs::write(&path, server.password()).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    let uri = schema.uri_with(|uri| {
        uri.set_password(None).expect("no password");
        uri.query_pairs_mut().append_pair("password_file", "password");
    });
    PostgresStore::open(&uri, folder.path()).expect("opened");
    assert!(PostgresStore::files(&uri, folder.path()).expect("a URI").contains(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).expect("set");
    let error = PostgresStore::open(&uri, folder.path()).expect_err("others can read it");
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

/// Opens the store of PASSWORDLESS in a process of its own, whose environment has the password.
#[test]
fn the_environment_or_a_passfile_may_have_the_password() {
    const URI: &str = "KEYFOLD_TEST_PASSWORDLESS";
    if let Ok(uri) = std::env::var(URI) {
        PostgresStore::open(&uri, here()).expect("opened");
        return;
    }
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    let folder = tempfile::tempdir().expect("a folder");
    let passfile = folder.path().join("pgpass");
    fs::write(&passfile, format!("127.0.0.1:*:*:postgres:{}\n", server.password())).expect("written");
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).expect("set");
    let opens = |name: &str, value: &std::ffi::OsStr| {
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args(["tls::the_environment_or_a_passfile_may_have_the_password", "--exact"])
            .env(URI, schema.uri_with(|uri| uri.set_password(None).expect("no password")))
            .env(name, value)
            .output()
            .expect("started");
        done.status.success() && String::from_utf8_lossy(&done.stdout).contains("1 passed")
    };
    assert!(opens("PGPASSWORD", server.password().as_ref()));
    assert!(opens("PGPASSFILE", passfile.as_os_str()));
    assert!(!opens("PGPASSWORD", "wrong".as_ref()));
}

/// Tries the store of PASSWORDLESS in a process of its own, where no password can be found.
#[test]
fn where_no_password_was_found_the_error_says_where_it_was_looked_for() {
    const URI: &str = "KEYFOLD_TEST_NO_PASSWORD";
    if let Ok(uri) = std::env::var(URI) {
        let text = refusal(PostgresStore::open(&uri, here()));
        for part in ["none was found", "password_file", "URI", "PGPASSWORD", "PGPASSFILE", "~/.pgpass"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("refused"), "{text}");
        // Names of which the driver can make no URL.
        for odd in ["a%3Ay%2Fz", "%40", "%2F%3A%23"] {
            let odd = uri.replace("postgres@", &format!("{odd}@"));
            assert!(refusal(PostgresStore::open(&odd, here())).contains("refused the user or the password"));
        }
        let host = uri.replace("127.0.0.1", "h%3Ay%2Fz");
        assert!(refusal(PostgresStore::open(&host, here())).contains("cannot be reached"));
        return;
    }
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let folder = tempfile::tempdir().expect("a folder");
    let done = Command::new(std::env::current_exe().expect("this program"))
        .args(["tls::where_no_password_was_found_the_error_says_where_it_was_looked_for", "--exact"])
        .env(URI, schema.uri_with(|uri| uri.set_password(None).expect("no password")))
        .env("HOME", folder.path())
        .env_remove("PGPASSWORD")
        .env_remove("PGPASSFILE")
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}
