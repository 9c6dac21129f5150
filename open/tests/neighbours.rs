//! Keyrings that are only asked whose an unknown key is, and stores by URI.

mod common;

use common::{init, open, policy, postgres, reveal, seal};
use keyfold::{ErrorKind, Keyring};
use keyfold_open::{NewKeyring, Options};
use std::fs;
use std::path::Path;

fn add(folder: &Path, section: &str) {
    let path = folder.join("keyfold.toml");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, format!("{text}\n{section}\n")).expect("written");
}

fn unknown(ring: &Keyring, sealed: &[u8]) -> String {
    let error = reveal(ring, sealed).expect_err("another keyring's value");
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey, "{error}");
    error.to_string()
}

/// Two keyrings that name each other, and a value of staging.
fn check_hints(production_store: Option<&str>, staging_store: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (production, staging) = (folder.path().join("production"), folder.path().join("staging"));
    init(&production, "production", production_store);
    init(&staging, "staging", staging_store);
    let sealed = seal(&open(&staging), "a note");
    assert!(!unknown(&open(&production), &sealed).contains("staging"), "a hint without a neighbour");

    // Each is the other's neighbour, which must not go round in circles.
    add(&production, "[neighbours]\nstaging = \"../staging/keyfold.toml\"");
    add(&staging, "[neighbours]\nproduction = \"../production/keyfold.toml\"");
    // The neighbour's KEK is never used: it is not there.
    fs::rename(staging.join("local.kek"), staging.join("away")).expect("moved");
    let ring = open(&production);
    let text = unknown(&ring, &sealed);
    assert!(text.contains("another keyring") && text.contains("environment staging"), "{text}");
    let own = seal(&ring, "ours");
    assert_eq!(reveal(&ring, &own).expect("opened"), "ours");
    // A key that nobody has.
    let mut nobodys = sealed.clone();
    nobodys[8] ^= 1;
    assert!(!unknown(&ring, &nobodys).contains("staging"));
    let files = keyfold_open::own_files(&production.join("keyfold.toml"), &[]).expect("the files");
    assert!(files.iter().any(|file| file.ends_with("../staging/keyfold.toml")), "{files:?}");
}

#[test]
fn a_value_of_staging_in_production_says_whose_it_is() {
    check_hints(None, None);
}

#[test]
fn a_value_of_staging_in_production_says_whose_it_is_in_a_database() {
    let Some(production) = postgres("neighbours_production") else { return };
    let staging = postgres("neighbours_staging").expect("the same server");
    check_hints(Some(&production), Some(&staging));
    // Two keyrings in one schema.
    check_hints(Some(&production), Some(&production));
}

#[test]
fn a_neighbour_that_cannot_be_opened_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let (production, broken) = (folder.path().join("production"), folder.path().join("broken"));
    init(&production, "production", None);
    init(&broken, "staging", None);
    let sealed = seal(&open(&broken), "a note");
    let template = fs::read_to_string(broken.join("keyfold.toml")).expect("read");
    let nobody = template.replace("sqlite:keys.db", "postgres://u:hunter2@127.0.0.1:1/d?sslmode=disable&deadline=2");
    for (name, text) in [
        ("no_store", template.replace("keys.db", "absent.db")),
        ("nonsense", "nonsense".to_owned()),
        ("scheme", template.replace("sqlite:keys.db", "oracle:hunter2")),
        ("nobody", nobody),
    ] {
        fs::write(broken.join(format!("{name}.toml")), text).expect("written");
    }
    add(
        &production,
        "[neighbours]\nabsent = \"../absent.toml\"\nno_store = \"../broken/no_store.toml\"\n\
         nonsense = \"../broken/nonsense.toml\"\nscheme = \"../broken/scheme.toml\"\nnobody = \"../broken/nobody.toml\"",
    );
    let ring = open(&production);
    assert!(!unknown(&ring, &sealed).contains("hunter2"));
    // One of them that works is enough.
    add(&production, "works = \"../broken/keyfold.toml\"");
    assert!(unknown(&open(&production), &sealed).contains("environment staging"));
}

#[test]
fn stores_that_nobody_knows_are_refused_without_repeating_their_uri() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path(), "production", None);
    let path = folder.path().join("keyfold.toml");
    let template = fs::read_to_string(&path).expect("read");
    for (uri, says) in [
        ("mysql://u:hunter2@h/d", "sqlite:FILE or postgres://"),
        ("hunter2", "sqlite:FILE or postgres://"),
        ("postgres://u:hunter2@h/d?what=ever", "what"),
        ("postgres://u:hunter2@h.example/d?sslmode=disable", "loopback"),
    ] {
        fs::write(&path, template.replace("sqlite:keys.db", uri)).expect("written");
        let error = keyfold_open::open(&path, &[policy(folder.path())]).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains(says) && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_keyring_in_a_database_works_like_one_in_a_file() {
    let Some(uri) = postgres("open") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    keyfold_open::migrate(&uri, Path::new(".")).expect("tables");
    let made = init(folder.path(), "production", Some(&uri));
    assert!(made.store.is_none() && !folder.path().join("keys.db").exists());
    let ring = open(folder.path());
    let old = seal(&ring, "old");
    pollster::block_on(ring.rotate_data_key(None)).expect("rotated");
    let new = seal(&ring, "new");
    let second = open(folder.path());
    assert_eq!([reveal(&second, &old), reveal(&second, &new)].map(|text| text.expect("opened")), ["old", "new"]);
    let files = keyfold_open::own_files(&made.config, &[]).expect("the files");
    let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("the CA");
    assert!(files.iter().any(|file| file == Path::new(&ca)), "the CA could be overwritten: {files:?}");
}

#[test]
fn init_in_a_database_that_is_away_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for uri in ["postgres://u:hunter2@127.0.0.1:1/d?sslmode=disable", "sqlite:keys.db", "postgres://h"] {
        let new =
            NewKeyring { environment: "production".to_owned(), store: Some(uri.to_owned()), ..NewKeyring::default() };
        let made = pollster::block_on(keyfold_open::init_with(folder.path(), &new, &Options::default()));
        assert!(!format!("{:?}", made.expect_err("refused")).contains("hunter2"));
        assert_eq!(fs::read_dir(&folder).expect("read").count(), 0, "{uri}: something is left");
    }
}
