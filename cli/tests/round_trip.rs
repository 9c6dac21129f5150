//! Files of every shape come back byte for byte, through files and through pipes.

use crate::common::{self, CANARY, DATA, PATIENTS, POLICY, USAGE, World, contains, run};
use std::fmt::Write;

impl World {
    /// `content` protected and revealed is `content`, and the protected file holds no canary.
    #[track_caller]
    fn comes_back(&self, name: &str, content: &[u8], more: &[&str]) {
        self.write(name, content);
        let (sealed, back) = (format!("sealed-{name}"), format!("back-{name}"));
        self.succeeds(&[&["protect", name, "--output", &sealed, "--force"], more].concat());
        assert!(!contains(&self.read(&sealed), CANARY.as_bytes()));
        self.succeeds(&[&["reveal", &sealed, "--output", &back, "--force"], more].concat());
        let back = self.read(&back);
        assert!(back == content, "{}", String::from_utf8_lossy(&back[..back.len().min(2000)]));
    }
}

/// [`PATIENTS`] as a writer with QUOTE_ALL writes it.
fn quoted() -> String {
    let quote = |line: &str| line.split(',').map(|cell| format!("\"{cell}\"")).collect::<Vec<_>>().join(",") + "\n";
    PATIENTS.lines().map(quote).collect()
}

#[test]
fn csv_of_every_writer() {
    let world = World::new();
    let quoted = quoted();
    let awkward = "patient_id,name,ssn,note,state\n1,\"Canáry7391, \"\"Bob\"\"\",\"Canáry7391\r\nnew line\",\"\",\"a \"\"b\"\"\"\n\
                   2, Canáry7391 ,\"Canáry7391,\",=Canáry7391(),\n\n3,\"\",\u{feff}Canáry7391,\u{0}Canáry7391,x";
    for base in [PATIENTS, &quoted, awkward] {
        for text in [base.to_owned(), base.replace('\n', "\r\n"), base.replace('\n', "\r")] {
            for text in [text.clone(), text.trim_end().to_owned(), format!("\u{feff}{text}"), format!("{text}\n\n")] {
                world.comes_back("shape.csv", text.as_bytes(), &[]);
            }
        }
    }
}

#[test]
fn csv_without_rows_and_with_one_column() {
    let world = World::new();
    world.comes_back("header.csv", b"patient_id,name,ssn,note,state\n", &[]);
    world.comes_back("header.csv", b"patient_id,name,ssn,note,state", &[]);
    world.write("policy.toml", "version = 1\n[fields.a]\ncolumns = [\"a\"]\n");
    world.comes_back("one.csv", "a\nCanáry7391\n\"\"\n\nCanáry7391".as_bytes(), &[]);
}

#[test]
fn csv_with_other_delimiters_and_other_bytes() {
    let world = World::new();
    for (delimiter, character) in [(";", ";"), ("\\t", "\t"), ("|", "|")] {
        world.comes_back("other.csv", PATIENTS.replace(',', character).as_bytes(), &["--delimiter", delimiter]);
    }
    // Columns that no policy names may hold anything.
    let latin1 = [PATIENTS.replace("KS", "K").into_bytes(), b"Can\xe1ry,".repeat(4), b"\xff\xfe\n".to_vec()].concat();
    world.write("latin1.csv", &latin1);
    world.refuses(&["protect", "latin1.csv", "--output", "x.csv"], DATA, &["row 4", "not UTF-8"]);
    let tail = [PATIENTS.as_bytes(), "Canáry7391,Canáry7391,Canáry7391,Canáry7391,".as_bytes(), b"\xff\xfe\n"].concat();
    world.comes_back("tail.csv", &tail, &[]);
}

#[test]
fn documents_of_every_writer() {
    let world = World::new();
    let lines = [
        r#"{"id":"Canáry7391","name":"Canáry7391","ssn":"Canáry7391 \"x\" \\ / \n\t","note":"Canáry7391 😀"}"#,
        r#" { "note" : 39.155185939682845 , "ssn" : 1.50 , "name":[ 1e5 , -0.0 , 1E+2 ], "id":"Canáry7391" , "x":1e300 } "#,
        r#"{"id":"\u00e9\ud83d\ude00","name":"\u0043an\u00e1ry7391","ssn":null,"note":true}"#,
        r#"{"id":"a","name":{"b" : "Canáry7391", "a":  [ ]},"ssn":"","note":123456789012345678901234567890}"#,
        r#"{"id":"kf","name":"\/","ssn":"\u007f","note":-0}"#,
        r#"{"note":[{"note":"Canáry7391"}],"other":"\u00e9"}"#,
        "",
        "   ",
        r#"{"id":"b","name":false,"ssn":0.10,"note":"kf1"}"#,
    ];
    // A string of the deterministic field must be spelled as everybody would spell it, or it would not join.
    world.write("escaped.ndjson", lines[2]);
    world.refuses(&["protect", "escaped.ndjson", "--output", "x.ndjson"], DATA, &["patient.id", "spelling", "line 1"]);
    let lines: Vec<String> =
        lines.iter().map(|line| line.replacen(r#""id":"\u00e9\ud83d\ude00""#, r#""id":"é😀""#, 1)).collect();
    for end in ["\n", "\r\n"] {
        let text = lines.join(end);
        for text in [text.clone(), text.clone() + end, format!("\u{feff}{text}"), text + end + end] {
            world.comes_back("shape.ndjson", text.as_bytes(), &[]);
        }
    }
    world.comes_back("empty.ndjson", b"", &[]);
}

#[test]
fn documents_without_a_field() {
    let world = World::new();
    let only_patients = common::POLICY_FILE.replace("paths =", "only_if = { \"$.type\" = \"P\" }\npaths =");
    world.write("policy.toml", only_patients);
    world.write(
        "mixed.ndjson",
        "{\"type\":\"P\",\"id\":\"Canáry7391\",\"name\":1,\"ssn\":2,\"note\":3}\n{\"type\":\"Q\",\"id\":\"kf1.0100000001.x\"}\n",
    );
    let protect = ["protect", "mixed.ndjson", "--output", "sealed.ndjson"];
    world.refuses(&protect, POLICY, &["line 2", "--pass-unmatched"]);
    let summary = world.succeeds(&[&protect[..], &["--pass-unmatched", "--json"]].concat()).summary();
    assert_eq!(
        (summary["records"].as_u64(), summary["values"].as_u64(), summary["unmatched"].as_u64()),
        (Some(2), Some(4), Some(1))
    );
    let reveal = ["reveal", "sealed.ndjson", "--output", "back.ndjson"];
    world.refuses(&reveal, POLICY, &["line 2", "--pass-unmatched"]);
    let summary = world.succeeds(&[&reveal[..], &["--pass-unmatched", "--json"]].concat()).summary();
    assert_eq!((summary["unmatched"].as_u64(), summary["still_sealed"].as_u64()), (Some(1), Some(1)));
    assert_eq!(world.text("back.ndjson"), world.text("mixed.ndjson"));
}

/// More than a batch, so that batches of several threads must be put in order again.
fn many_rows() -> String {
    let mut text = "patient_id,name,ssn,note,state\n".to_owned();
    for n in 0..20_000 {
        writeln!(text, "{n},Canáry7391 {n},Canáry7391-{n},\"Canáry7391, {n}\",KS").expect("memory");
    }
    text
}

#[test]
fn pipes_do_what_files_do() {
    let world = World::new();
    let text = many_rows();
    world.write("many.csv", &text);
    let pipe = |verb: &str, input: &[u8], threads: &str| {
        let arguments = [verb, "-", "--output", "-", "--format", "csv", "--threads", threads, "--json"];
        run(&mut world.command(&arguments), input).expect(0, &[])
    };
    for threads in ["1", "2", "7"] {
        let sealed = pipe("protect", text.as_bytes(), threads);
        let summary = sealed.summary();
        assert_eq!((summary["records"].as_u64(), summary["values"].as_u64()), (Some(20_000), Some(80_000)));
        assert!(!contains(&sealed.stdout, CANARY.as_bytes()));
        assert!(pipe("reveal", &sealed.stdout, threads).stdout == text.as_bytes());
        // What came through the pipe opens from a file, and the other way round.
        world.write("piped.csv", &sealed.stdout);
        world.succeeds(&["reveal", "piped.csv", "--output", "back.csv", "--force", "--threads", threads]);
        assert!(world.read("back.csv") == text.as_bytes());
    }
    world.succeeds(&["protect", "many.csv", "--output", "sealed.csv"]);
    assert!(pipe("reveal", &world.read("sealed.csv"), "2").stdout == text.as_bytes());
}

#[test]
fn a_pipe_needs_a_format() {
    let world = World::new();
    world.refuses(&["protect", "-", "--output", "x.csv"], USAGE, &["--format csv"]);
    world.write("patients.txt", PATIENTS);
    world.refuses(&["protect", "patients.txt", "--output", "x.csv"], USAGE, &["--format csv"]);
    world.succeeds(&["protect", "patients.txt", "--output", "x.csv", "--format", "csv"]);
    std::fs::rename(world.path("patients.txt"), world.path("PATIENTS.CSV")).expect("renamed");
    world.succeeds(&["protect", "PATIENTS.CSV", "--output", "y.csv"]);
}

// Failure C17
#[test]
fn the_longest_values_come_back() {
    // What protect accepts, reveal opens: a sealed text is a third longer than the value.
    let world = World::new();
    const MIB: usize = 1024 * 1024;
    for len in [MIB, MIB - 1, 800_000, 600_000] {
        let value = CANARY.to_owned() + &"x".repeat(len - CANARY.len());
        let csv = format!("patient_id,name,ssn,note,state\n1,{value},\"{value}\",{value},KS\n");
        world.comes_back("long.csv", csv.as_bytes(), &[]);
        world.comes_back(
            "long.ndjson",
            format!("{{\"id\":\"1\",\"name\":\"{value}\",\"ssn\":1,\"note\":2}}\n").as_bytes(),
            &[],
        );
    }
    let quotes = format!("patient_id,name,ssn,note,state\n1,\"{}\",x,y,z\n", "\"\"".repeat(MIB));
    world.comes_back("quotes.csv", quotes.as_bytes(), &[]);
}

#[test]
fn a_row_that_would_grow_too_long_is_refused_at_once() {
    // Better now than when somebody needs the record: either it comes back, or protect refuses it.
    let world = World::new();
    let values: Vec<String> = (0..15).map(|_| "x".repeat(1024 * 1024 - 100)).collect();
    let columns: Vec<String> = (0..15).map(|n| format!("\"c{n}\"")).collect();
    let policy = format!("version = 1\n[fields.a]\ncolumns = [{}]\npaths = [\"$.a[*]\"]\n", columns.join(","));
    world.write("policy.toml", policy);
    let header = (0..15).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
    world.write("wide.csv", format!("{header}\n{}\n", values.join(",")));
    world.write("wide.ndjson", format!("{{\"a\":[\"{}\"]}}\n", values.join("\",\"")));
    for name in ["wide.csv", "wide.ndjson"] {
        let sealed = format!("sealed-{name}");
        let protected = world.run(&["protect", name, "--output", &sealed]);
        if protected.code == Some(0) {
            world.succeeds(&["reveal", &sealed, "--output", &format!("back-{name}")]);
            assert!(world.read(&format!("back-{name}")) == world.read(name));
        } else {
            protected.expect(DATA, &["16777216 bytes"]);
            assert!(!world.path(&sealed).exists());
        }
    }
}
