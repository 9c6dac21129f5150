//! A canary plaintext and the bytes of the key-encryption key appear nowhere but where they belong: at the most
//! talkative log level, on every command, in success and in failure.

mod common;

use common::{CANARY, World, contains, run, snapshot};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use std::fs;

/// The key in `local.kek`.
fn kek_of(world: &World) -> Vec<u8> {
    let text = fs::read_to_string(world.keys().join("local.kek")).expect("the key file");
    HEXLOWER.decode(text.lines().nth(1).expect("a line").as_bytes()).expect("64 digits")
}

/// The spellings in which `bytes` might be printed.
fn spellings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let debug = format!("{bytes:?}");
    let mut reversed = bytes.to_vec();
    reversed.reverse();
    vec![
        bytes.to_vec(),
        reversed,
        HEXLOWER.encode(bytes).into_bytes(),
        HEXUPPER.encode(bytes).into_bytes(),
        BASE64_NOPAD.encode(bytes).into_bytes(),
        BASE64URL_NOPAD.encode(bytes).into_bytes(),
        debug.trim_matches(['[', ']']).to_owned().into_bytes(),
        // Half of a key is too much, too.
        bytes[..bytes.len() / 2].to_vec(),
        HEXLOWER.encode(&bytes[..bytes.len() / 2]).into_bytes(),
    ]
}

// Failure T1
#[test]
fn neither_plaintext_nor_keys_are_said_or_written() {
    let world = World::new();
    world.write("in.ndjson", "{\"id\":\"Canáry7391\",\"name\":\"Canáry7391\",\"ssn\":\"Canáry7391\"}\n");
    world.write("broken.csv", "patient_id,name,ssn,note,state\nCanáry7391,Canáry7391\n");
    let secrets: Vec<Vec<u8>> = spellings(&kek_of(&world)).into_iter().chain(spellings(CANARY.as_bytes())).collect();
    let commands: [&[&str]; 16] = [
        &["protect", "in.csv", "--output", "sealed.csv", "--scope", "Canáry7391", "--context", "tenant=Canáry7391"],
        &["protect", "in.csv", "--output", "-", "--context", "Canáry7391=x"],
        &["protect", "in.ndjson", "--output", "sealed.ndjson"],
        &["protect", "broken.csv", "--output", "out.csv"],
        &["protect", "in.csv", "--output", "sealed.csv"],
        &["reveal", "in.csv", "--output", "out.csv"],
        &["reveal", "in.ndjson", "--output", "out.csv"],
        &["reveal", "sealed.csv", "--output", "out.csv"],
        &["reveal", "sealed.csv", "--output", "out.csv", "--scope", "Canáry7391"],
        &["reveal", "sealed.csv", "--output", "out.csv", "--scope", "7391"],
        &["inspect", "Canáry7391"],
        &["keys", "list"],
        &["keys", "list", "--json"],
        &["keys", "rotate"],
        &["keys", "rotate", "--root"],
        &["keys", "rotate", "--scope", "Canáry7391"],
    ];
    let mut logged = 0;
    for arguments in commands {
        let run = run(&mut world.command(arguments), b"");
        for secret in &secrets {
            assert!(!contains(&run.stdout, secret), "{arguments:?}: {}", String::from_utf8_lossy(&run.stdout));
            assert!(!contains(run.stderr.as_bytes(), secret), "{arguments:?}: {}", run.stderr);
        }
        logged += run.stderr.lines().filter(|line| line.contains("DEBUG") || line.contains("TRACE")).count();
    }
    assert!(logged > 5, "the log is on");
    let files = snapshot(&world.data()).into_iter().chain(snapshot(&world.keys()));
    for (path, content) in files {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("in.") || name == "broken.csv" || name == "local.kek" {
            continue;
        }
        for secret in &secrets {
            assert!(!contains(&content, secret), "{name}");
        }
    }
}

#[test]
fn revealed_values_stay_out_of_the_log() {
    let world = World::new();
    world.protect(&[]);
    let run = world.succeeds(&["reveal", "sealed.csv", "--output", "-"]);
    assert!(contains(&run.stdout, CANARY.as_bytes()));
    for secret in spellings(&kek_of(&world)) {
        assert!(!contains(&run.stdout, &secret));
        assert!(!contains(run.stderr.as_bytes(), &secret));
    }
}
