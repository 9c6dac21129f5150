//! A keyring whose store is a PostgreSQL database, by the command alone.

use crate::common::{self, PATIENTS, POLICY, STORAGE, World, keyfold, run, skip};

#[test]
fn a_keyring_in_a_database() {
    let Ok(uri) = std::env::var("KEYFOLD_TEST_POSTGRES") else {
        skip("KEYFOLD_TEST_POSTGRES names no PostgreSQL server");
        return;
    };
    let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("KEYFOLD_TEST_POSTGRES_CA names the CA");
    let uri = format!("{uri}?sslrootcert={ca}&schema=cli_{}", std::process::id());
    let password = uri.split([':', '@']).nth(2).expect("a password").to_owned();
    let world = World::new();
    let folder = world.path("ring");
    let init = |uri: &str| {
        let made = run(keyfold().arg("init").arg(&folder).args(["--store", uri]), b"");
        assert!(!made.stderr.contains(&password) && !made.stdout_text().contains(&password));
        made
    };
    // No level of logging shows the password: the command runs at `trace`.
    for _ in 0..2 {
        let made = run(keyfold().args(["migrate", "--store", &uri]), b"").expect(0, &[]);
        assert!(made.stdout_text().contains("as this version needs them"));
        assert!(!made.stderr.contains(&password), "{}", made.stderr);
    }
    init(&uri.replace(&password, "wrong")).expect(STORAGE, &["refused the user or the password"]);
    init("sqlite:keys.db").expect(POLICY, &["needs no URI"]);
    init("mysql://u:hunter2@h/d").expect(POLICY, &["postgres://USER@HOST/DATABASE"]);
    assert!(!folder.exists(), "something is left");
    assert!(init(&uri).expect(0, &[]).stdout_text().contains("the database  the store of key records"));

    let config = "ring/keyfold.toml";
    world.succeeds(&["protect", "--config", config, "in.csv", "--output", "sealed.csv"]);
    world.succeeds(&["keys", "rotate", "--config", config]);
    world.succeeds(&["reveal", "--config", config, "sealed.csv", "--output", "out.csv"]);
    assert_eq!(world.text("out.csv"), PATIENTS);
    let listed = world.succeeds(&["keys", "list", "--config", config, "--json"]);
    assert_eq!(listed.json_lines().iter().filter(|key| key["class"] == "data").count(), 2);
    assert!(!listed.stderr.contains(&password), "{}", listed.stderr);
    // What the keyring is made of is never overwritten, the CA among it.
    world.refuses(&["reveal", "--config", config, "sealed.csv", "--output", &ca, "--force"], common::USAGE, &[]);
}
