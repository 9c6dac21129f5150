//! A service that goes away and comes back, and TLS that cannot be trusted.

use crate::bao::{Bao, OwnBao};
use crate::common::{here, refused, unwrap, unwrap_traced, wrap};
use keyfold::{ErrorKind, KmsErrorKind};
use keyfold_kms::vault::VaultKek;
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_sealed_vault_is_used_again_within_two_seconds_of_being_unsealed() {
    if Bao::given().is_none() {
        return;
    }
    let own = OwnBao::start();
    let bao = &own.bao;
    let kek = bao.kek(&bao.derived_key());
    let wrapped = wrap(&kek).expect("wrapped");
    bao.post("sys/seal", json!({}));
    let sealed = Instant::now();
    let (mut refused_at_once, mut asked) = (0, 0);
    while sealed.elapsed() < Duration::from_secs(3) {
        let (result, requests) = unwrap_traced(&kek, &wrapped);
        assert_eq!(refused(result).kind(), ErrorKind::Kms(KmsErrorKind::Unavailable));
        refused_at_once += u32::from(requests == 0);
        asked += requests;
        thread::sleep(Duration::from_millis(5));
    }
    assert!(refused_at_once > 100, "only {refused_at_once} of the operations were refused at once");
    // What opens the circuit, twice as many in case each renews its token, and the probes.
    assert!(asked <= 2 * (5 + 3), "{asked} requests to a vault that is sealed");
    bao.post("sys/unseal", json!({ "key": bao.unseal_key }));
    let back = Instant::now();
    while let Err(error) = unwrap(&kek, &wrapped) {
        assert!(back.elapsed() < Duration::from_secs(2), "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn another_ca_and_another_name_are_tls_errors() {
    let Some(bao) = Bao::given() else { return };
    let key = bao.derived_key();
    let token = bao.file(&bao.token);
    let host = bao.address.strip_prefix("https://").expect("HTTPS").to_owned();
    let of_the_system = format!("vault://{host}/transit/{key}?token_file={}", token.display());
    let kek = VaultKek::from_uri(&of_the_system, here()).expect("opened");
    assert_eq!(refused(wrap(&kek)).kind(), ErrorKind::Kms(KmsErrorKind::TlsError));
    // The same server under an address that its certificate does not have.
    let listener = TcpListener::bind("127.0.0.2:0").expect("a free port");
    let elsewhere = listener.local_addr().expect("an address").to_string();
    thread::spawn({
        let host = host.clone();
        move || listener.incoming().flatten().for_each(|client| forward(client, &host))
    });
    let kek = VaultKek::from_uri(
        &bao.uri(&key, &format!("token_file={}", token.display())).replace(&host, &elsewhere),
        here(),
    );
    let error = refused(wrap(&kek.expect("opened")));
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::TlsError), "{error}");
}

fn forward(client: TcpStream, host: &str) {
    let server = TcpStream::connect(host).expect("connected");
    for (mut from, mut to) in [(&client, &server), (&server, &client)]
        .map(|(a, b)| (a.try_clone().expect("a copy"), b.try_clone().expect("a copy")))
    {
        thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
}
