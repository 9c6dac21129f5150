//! Random tokens in the place of values, with their table in SQLite and PostgreSQL.

use crate::common::{self, CANARY, DATA, KEY, POLICY, USAGE, World, contains};
use crate::tables::databases;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

fn policy(partition: &str) -> String {
    format!(
        "version = 1\n[fields.\"patient.mrn\"]\nmode = \"token\"\npartition = \"{partition}\"\nlength = 11\n\
         columns = [\"mrn\"]\npaths = [\"$.mrn\"]\n"
    )
}

/// The SQL of docs/LOOKUP.md for the table of a database.
fn documented(tag: &str) -> String {
    let text = fs::read_to_string(common::repository("docs/LOOKUP.md")).expect("the document");
    let blocks = text.split("```").skip(1).step_by(2);
    let of = |block: &str| block.strip_prefix(&format!("sql {tag}\n")).map(str::to_owned);
    blocks.filter_map(of).find(|sql| sql.contains("keyfold_tokens")).expect("the SQL")
}

/// The tokens of a file, by row.
fn tokens(world: &World, file: &str) -> Vec<String> {
    world.text(file).lines().skip(1).map(|line| line.split(',').next().expect("a cell").to_owned()).collect()
}

#[test]
fn a_value_has_one_token_in_each_study_however_many_ask_at_once() {
    for database in databases() {
        let world = World::new();
        let tag = if database.is_postgres() { "postgresql" } else { "sqlite" };
        database.sql(&documented(tag));
        let section = world.succeeds(&["keys", "partition", "study"]);
        let config = fs::read_to_string(world.config()).expect("a configuration");
        fs::write(world.config(), format!("{config}\n{}", section.stdout_text())).expect("written");
        let text: String = (0..300)
            .map(|row| format!("{CANARY}-{},x\n", row % 100))
            .fold("mrn,other\n".to_owned(), |all, row| all + &row);
        world.write("in.csv", &text);
        world.write("policy.toml", policy("default"));
        world.write("study.toml", policy("study"));

        // Several processes, none of which finds tokens.
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (world, uri) = (&world, &database.uri);
                scope.spawn(move || {
                    world.succeeds(&["protect", "in.csv", "--output", &format!("{n}.csv"), "--tokens", uri]);
                });
            }
        });
        let first = tokens(&world, "0.csv");
        assert!((1..4).all(|n| tokens(&world, &format!("{n}.csv")) == first));
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 100);
        assert!(first.iter().all(|token| token.len() == 11 && token.bytes().all(|byte| byte.is_ascii_alphanumeric())));
        let by_value: BTreeMap<usize, &String> =
            first.iter().enumerate().map(|(row, token)| (row % 100, token)).collect();
        assert!(first.iter().enumerate().all(|(row, token)| by_value[&(row % 100)] == token));
        world.succeeds(&["reveal", "0.csv", "--output", "back.csv", "--tokens", &database.uri]);
        assert_eq!(world.text("back.csv"), text);

        // Another study has tokens of its own, and cannot resolve those of the first.
        let study = ["--tokens", &database.uri, "--policy", "study.toml"];
        world.succeeds(&[&["protect", "in.csv", "--output", "study.csv"], &study[..]].concat());
        assert!(tokens(&world, "study.csv").iter().all(|token| !first.contains(token)));
        world.refuses(
            &[&["reveal", "0.csv", "--output", "x.csv"], &study[..]].concat(),
            DATA,
            &["row 1", "does not have"],
        );

        // The table tells no value, and neither does a token.
        for row in database.rows("keyfold_tokens", "token", &["field", "partition", "value", "proof"]) {
            let cells = row.cells.iter().filter_map(|cell| cell.as_bytes());
            assert!(cells.into_iter().all(|cell| !contains(cell, CANARY.as_bytes())));
        }
        world.write("forged.csv", "mrn,other\nkf1.x,x\n");
        let forged = ["reveal", "forged.csv", "--output", "x.csv", "--tokens", &database.uri];
        world.refuses(&forged, DATA, &["row 1", "no token"]);
        world.refuses(&["protect", "in.csv", "--output", "x.csv"], USAGE, &["patient.mrn", "--tokens"]);

        let json = format!("{{\"mrn\":\"{CANARY}-7\"}}\n");
        world.write("in.ndjson", &json);
        world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson", "--tokens", &database.uri]);
        assert_eq!(world.text("sealed.ndjson"), format!("{{\"mrn\":\"{}\"}}\n", first[7]));
        world.succeeds(&["reveal", "sealed.ndjson", "--output", "back.ndjson", "--tokens", &database.uri]);
        assert_eq!(world.text("back.ndjson"), json);
    }
}

/// Protecting twice would put tokens in the place of tokens.
#[test]
fn what_has_a_token_is_not_given_another_one() {
    for database in databases() {
        let world = World::new();
        database.sql(&documented(if database.is_postgres() { "postgresql" } else { "sqlite" }));
        world.write(
            "policy.toml",
            policy("default")
                .replace("columns =", "keep_prefix = \"MRN/\"\nsegments = [\"PID-3.1\"]\ncolumns =")
                .replace("\"$.mrn\"", "\"$.mrn\", \"$.all[*]\""),
        );
        let uri = ["--tokens", &database.uri];
        // Of the form of a token, and none.
        let clear = "ABCDEFGHIJK";
        for (file, text, twice) in [
            ("in.csv", format!("mrn,other\n{clear},x\nMRN/{CANARY}-2,x\n"), "row 1"),
            ("in.ndjson", format!("{{\"mrn\":\"{CANARY}-1\",\"all\":[\"{clear}\",\"MRN/b\"]}}\n"), "line 1"),
            ("in.hl7", format!("MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.5\rPID|1||{clear}^^^H~{CANARY}-3\r"), "PID-3.1"),
        ] {
            let protect = |input: &str, more: &[&'static str]| -> Vec<String> {
                let arguments = [
                    "protect",
                    input,
                    "--output",
                    "out",
                    "--force",
                    "--format",
                    file.rsplit('.').next().expect("a format"),
                ];
                arguments.iter().chain(&uri).chain(more).map(|argument| (*argument).to_owned()).collect()
            };
            let run = |arguments: Vec<String>| world.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            world.write(file, &text);
            run(protect(file, &[])).expect(0, &[]);
            let sealed = world.read("out");
            world.write("sealed", &sealed);
            let before = database.rows("keyfold_tokens", "token", &["field"]).len();
            let again = run(protect("sealed", &[])).expect(POLICY, &[twice, "random token", "--seal-sealed"]);
            assert!(!again.stderr.contains(clear) && !again.stderr.contains("ry7391"));
            assert_eq!(database.rows("keyfold_tokens", "token", &["field"]).len(), before);
            // On purpose; and what only looks like a token is none.
            run(protect("sealed", &["--seal-sealed"])).expect(0, &[]);
            world.write("twice", world.read("out"));
            run(protect(file, &[])).expect(0, &[]);
            assert_eq!(world.read("out"), sealed);
            for _ in 0..2 {
                let mut reveal = protect("twice", &[]);
                reveal[0] = "reveal".to_owned();
                run(reveal).expect(0, &[]);
                world.write("twice", world.read("out"));
            }
            assert_eq!(world.text("out"), text);
        }
        // A token that somebody without the key has put into the table is nobody's.
        world.write("in.csv", "mrn,other\nKKKKKKKKKKK,x\n");
        database.sql(
            "INSERT INTO keyfold_tokens SELECT field, partition, 'KKKKKKKKKKK', proof, proof FROM keyfold_tokens WHERE token = (SELECT min(token) FROM keyfold_tokens)",
        );
        let forged = [&["protect", "in.csv", "--output", "x.csv"], &uri[..]].concat();
        let run = world.run(&forged);
        assert_ne!(run.code, Some(0), "{}", run.stderr);
    }
}

/// A token is one however it is spelt, and a value that was spelt otherwise would have two.
#[test]
fn a_token_is_known_in_other_spellings() {
    for database in databases() {
        let world = World::new();
        database.sql(&documented(if database.is_postgres() { "postgresql" } else { "sqlite" }));
        let policy = policy("default").replace("length = 11", "alphabet = \"hex\"\nlength = 16");
        world.write("policy.toml", &policy);
        world.write(
            "typed.toml",
            policy.replace("patient.mrn", "patient.code").replace("length", "type = \"json\"\nlength"),
        );
        let protect = |input: &str, policy: &str, more: &[&str]| {
            let arguments = ["protect", input, "--output", "out", "--force", "--policy", policy];
            world.run(&[&arguments[..], &["--tokens", &database.uri], more].concat())
        };
        let count = || database.rows("keyfold_tokens", "token", &["field"]).len();
        for policy in ["policy.toml", "typed.toml"] {
            // One with a letter, whose case can be another.
            let token = (0..9).find_map(|n| {
                world.write("in.ndjson", format!("{{\"mrn\":\"{CANARY}-{n}\"}}\n"));
                protect("in.ndjson", policy, &[]).expect(0, &[]);
                let token = world.text("out")[8..24].to_owned();
                token.bytes().any(|byte| byte.is_ascii_alphabetic()).then_some(token)
            });
            let token = token.expect("a letter");
            let (before, capitals) = (count(), token.to_ascii_uppercase());
            for text in [
                token.clone(),
                format!(" {token}"),
                format!("{token}\t "),
                capitals.clone(),
                format!("\u{a0}{token}\u{2003}"),
                format!("'{token}"),
            ] {
                world.write("again.ndjson", format!("{}\n", serde_json::json!({ "mrn": text })));
                protect("again.ndjson", policy, &[]).expect(POLICY, &["line 1", "random token"]);
                if policy == "policy.toml" {
                    world.write("again.csv", format!("mrn,other\n{text},x\n"));
                    protect("again.csv", policy, &[]).expect(POLICY, &["row 1", "random token"]);
                    if text != token {
                        let reveal = ["reveal", "again.csv", "--output", "x.csv", "--policy", policy];
                        let run = world.run(&[&reveal[..], &["--tokens", &database.uri]].concat());
                        run.expect(DATA, &["row 1", "a token with white space around it"]);
                    }
                }
            }
            let escaped = [format!("\\u{:04x}{}", token.as_bytes()[0], &token[1..]), format!("\\t\\u0020{capitals}")];
            for text in escaped {
                world.write("escaped.ndjson", format!("{{\"mrn\":\"{text}\"}}\n"));
                let run = protect("escaped.ndjson", policy, &[]);
                match policy {
                    "policy.toml" => run.expect(DATA, &["line 1", "patient.mrn", "unusual escapes"]),
                    _ => run.expect(POLICY, &["line 1", "random token"]),
                };
            }
            assert_eq!(count(), before);
            // On purpose, and what no token is spelt like.
            protect("again.ndjson", policy, &["--seal-sealed"]).expect(0, &[]);
            let other =
                [token[1..].to_owned(), format!("\\b{token}"), format!("\\u00e9{}", &token[1..]), format!("x{token}")];
            for text in other {
                world.write("other.ndjson", format!("{{\"mrn\":\"{text}\"}}\n"));
                let run = protect("other.ndjson", policy, &[]);
                assert!(!run.stderr.contains("random token"), "{text}: {}", run.stderr);
            }
        }
    }
}

#[test]
fn tokens_survive_a_new_lookup_key() {
    for database in databases() {
        let world = World::new();
        let tag = if database.is_postgres() { "postgresql" } else { "sqlite" };
        database.sql(&documented(tag));
        world.write("policy.toml", policy("default"));
        world.write("in.csv", format!("mrn,other\n{CANARY}-1,x\n{CANARY}-2,x\n"));
        let protect = |output: &str| {
            world.succeeds(&["protect", "in.csv", "--output", output, "--tokens", &database.uri, "--force"]);
            tokens(&world, output)
        };
        let before = protect("a.csv");
        let run = world.succeeds(&["keys", "rotate", "--partition", "default", "--json"]);
        let json = run.json_lines().remove(0);
        let section = |name: &str| json[name].as_str().expect("a section").to_owned();
        let config = fs::read_to_string(world.config()).expect("a configuration");
        let old = section("publish")
            .replace(&section("publish")[section("publish").find("opens").expect("a key")..], "opens = []");
        assert!(config.contains(&old), "{old}");
        fs::write(world.config(), config.replace(&old, &section("seal"))).expect("written");
        world.write("in.csv", format!("mrn,other\n{CANARY}-1,x\n{CANARY}-2,x\n{CANARY}-3,x\n"));
        let after = protect("b.csv");
        assert_eq!(after[..2], before[..]);
        // The values in the table are sealed again in place, and the tokens stay.
        let table = ["reencrypt", "--sql", &database.uri, "--table", "keyfold_tokens", "--key", "token"];
        world.succeeds(&[&table[..], &["--field", "patient.mrn=value"]].concat());
        // And so are the proofs, of which those for the new value are under the new key already.
        let renew = |more: &[&str]| {
            let table = ["index", "backfill", "--sql", &database.uri, "--table", "keyfold_tokens", "--key", "token"];
            let config = world.config();
            let own = ["--config", common::argument(&config), "--policy", "policy.toml", "--json"];
            let field = ["--field", "patient.mrn", "--from", "value"];
            world.run(&[&table[..], &field, &own, more].concat())
        };
        let proofs = |more: &[&str], code: i32, [written, right]: [u64; 2]| {
            let summary = renew(more).expect(code, &[]).summary();
            assert_eq!((&summary["written"], &summary["right"]), (&written.into(), &right.into()), "{summary}");
        };
        proofs(&["--verify"], DATA, [2, 1]);
        proofs(&[], 0, [2, 1]);
        proofs(&["--verify"], 0, [0, 3]);
        let sealing = fs::read_to_string(world.config()).expect("a configuration");
        fs::write(world.config(), sealing.replace(&section("seal"), &section("retire"))).expect("written");
        assert_eq!(protect("c.csv"), after);
        world.succeeds(&["reveal", "a.csv", "--output", "back.csv", "--tokens", &database.uri]);
        assert_eq!(world.text("back.csv"), format!("mrn,other\n{CANARY}-1,x\n{CANARY}-2,x\n"));
        // Nothing that was changed by somebody without the key is proven anew.
        database.sql("UPDATE keyfold_tokens SET proof = value");
        renew(&[]).expect(KEY, &["DecryptionFailed"]);
    }
}

/// Fields and partitions may share a table, as its columns say: each is looked after by itself.
#[test]
fn fields_that_share_a_table_are_renewed_one_by_one() {
    for database in databases() {
        let world = World::new();
        database.sql(&documented(if database.is_postgres() { "postgresql" } else { "sqlite" }));
        let two = policy("default") + "[fields.other]\nmode = \"token\"\nlength = 11\ncolumns = [\"other\"]\n";
        world.write("policy.toml", two);
        let text = format!("mrn,other\n{CANARY}-1,{CANARY}-a\n{CANARY}-2,{CANARY}-b\n{CANARY}-3,{CANARY}-a\n");
        world.write("in.csv", &text);
        world.succeeds(&["protect", "in.csv", "--output", "sealed.csv", "--tokens", &database.uri]);
        let json = world.succeeds(&["keys", "rotate", "--partition", "default", "--json"]).json_lines().remove(0);
        let section = |name: &str| json[name].as_str().expect("a section").to_owned();
        let old = section("publish")
            .replace(&section("publish")[section("publish").find("opens").expect("a key")..], "opens = []");
        let config = fs::read_to_string(world.config()).expect("a configuration");
        fs::write(world.config(), config.replace(&old, &section("seal"))).expect("written");
        let config = world.config();
        let own = ["--sql", &database.uri, "--table", "keyfold_tokens", "--key", "token", "--json"];
        let own = [&own[..], &["--config", common::argument(&config), "--policy", "policy.toml"]].concat();
        for (field, rows, others) in [("patient.mrn", 3, 2), ("other", 2, 3)] {
            let renew = [&["index", "backfill", "--field", field, "--from", "value"], &own[..]].concat();
            let verify = [&renew[..], &["--verify"]].concat();
            for (run, code, written) in [(&verify, DATA, rows), (&renew, 0, rows), (&verify, 0, 0)] {
                let summary = world.run(run).expect(code, &[]).summary();
                assert_eq!((&summary["written"], &summary["others"]), (&written.into(), &others.into()), "{summary}");
            }
            let column = format!("{field}=value");
            let reencrypt = [&["reencrypt", "--field", &column, "--statement", field], &own[..]].concat();
            let run = world.succeeds(&reencrypt);
            let summary = run.stderr.lines().find(|line| line.starts_with('{')).expect("a summary");
            let summary: serde_json::Value = serde_json::from_str(summary).expect("JSON");
            assert_eq!((&summary["resealed"], &summary["others"]), (&rows.into(), &others.into()), "{summary}");
            let statement: serde_json::Value = serde_json::from_str(&world.text(field)).expect("JSON");
            assert_eq!(statement["fields"][0]["values"], rows, "{statement}");
        }
        let sealing = fs::read_to_string(world.config()).expect("a configuration");
        fs::write(world.config(), sealing.replace(&section("seal"), &section("retire"))).expect("written");
        world.succeeds(&["reveal", "sealed.csv", "--output", "back.csv", "--tokens", &database.uri]);
        assert_eq!(world.text("back.csv"), text);
    }
}

/// Whoever can write the table, and lacks the look-up key, does not get a token accepted for another patient.
#[test]
fn rows_that_were_exchanged_copied_or_forged_are_refused() {
    for database in databases() {
        let world = World::new();
        database.sql(&documented(if database.is_postgres() { "postgresql" } else { "sqlite" }));
        let two = policy("default") + "[fields.other]\nmode = \"token\"\nlength = 11\ncolumns = [\"other\"]\n";
        world.write("policy.toml", two);
        let text = format!("mrn,other\n{CANARY}-1,{CANARY}-3\n{CANARY}-2,{CANARY}-4\n");
        world.write("in.csv", &text);
        let uri = ["--tokens", &database.uri];
        world.succeeds(&[&["protect", "in.csv", "--output", "sealed.csv"], &uri[..]].concat());
        let [first, second] = &tokens(&world, "sealed.csv")[..] else { panic!("two rows") };
        database.sql("CREATE TABLE saved AS SELECT * FROM keyfold_tokens");
        let of = |token: &str, column: &str| format!("(SELECT {column} FROM saved WHERE token = '{token}')");
        let reveal = [&["reveal", "sealed.csv", "--output", "back.csv", "--force"], &uri[..]].concat();
        let protect = [&["protect", "in.csv", "--output", "again.csv", "--force"], &uri[..]].concat();
        world.write("second.csv", format!("mrn,other\n{second},\n"));
        let reveal_second = [&["reveal", "second.csv", "--output", "x.csv"], &uri[..]].concat();
        let set = |token: &str, column: &str, from: &str| {
            format!("UPDATE keyfold_tokens SET {column} = {} WHERE token = '{token}'", of(from, column))
        };
        let nothing = database.literal("00");
        let exchanged = format!(
            "UPDATE keyfold_tokens SET value = {nothing} WHERE token = '{first}'; {}; {}",
            set(second, "value", first),
            set(first, "value", second)
        );
        let renamed = format!(
            "UPDATE keyfold_tokens SET token = 'away' WHERE token = '{first}'; \
             UPDATE keyfold_tokens SET token = '{first}' WHERE token = '{second}'; \
             UPDATE keyfold_tokens SET token = '{second}' WHERE token = 'away'"
        );
        let gone = format!("DELETE FROM keyfold_tokens WHERE token = '{first}'");
        let changes = [
            exchanged.clone(),
            format!("{exchanged}; {}; {}", set(second, "proof", first), set(first, "proof", second)),
            renamed,
            format!("{gone}; {}", set(second, "value", first)),
            format!("{gone}; {}; {}", set(second, "value", first), set(second, "proof", first)),
            format!("UPDATE keyfold_tokens SET proof = {nothing} WHERE field = 'patient.mrn'"),
        ];
        for change in &changes {
            database.sql(change);
            world.refuses(&reveal_second, KEY, &["row 1", "exchanged, copied or forged"]);
            // Neither is a row that is in the place of another believed on the way there.
            let run = world.run(&protect);
            assert_ne!(run.code, Some(0), "{change}: {}", run.stderr);
            database.sql("DELETE FROM keyfold_tokens; INSERT INTO keyfold_tokens SELECT * FROM saved");
            world.succeeds(&reveal);
            assert_eq!(world.text("back.csv"), text);
        }
        // A row that was added for a token that nobody drew, from what is there.
        database.sql(&format!(
            "DELETE FROM keyfold_tokens WHERE token = '{second}'; \
             INSERT INTO keyfold_tokens SELECT field, partition, 'AAAAAAAAAAA', value, proof FROM saved WHERE token = '{second}'"
        ));
        world.write("forged.csv", "mrn,other\nAAAAAAAAAAA,\n");
        world.refuses(&[&["reveal", "forged.csv", "--output", "x.csv"], &uri[..]].concat(), KEY, &["row 1", "forged"]);
    }
}

#[test]
fn a_table_that_could_hold_two_tokens_of_a_value_is_refused() {
    for database in databases() {
        let world = World::new();
        let sql = documented(if database.is_postgres() { "postgresql" } else { "sqlite" });
        world.write("policy.toml", policy("default"));
        world.write("in.csv", format!("mrn,other\n{CANARY}-1,x\n"));
        let protect = ["protect", "in.csv", "--output", "x.csv", "--force", "--tokens", &database.uri];
        database.sql("CREATE TABLE unrelated (k INTEGER)");
        world.refuses(&protect, POLICY, &["no such table"]);
        let unique = "UNIQUE (field, partition, value)";
        assert!(sql.contains(unique));
        for (from, to, says) in [
            (unique, "CHECK (true)", "two tokens"),
            (unique, "UNIQUE (field, value, proof)", "two tokens"),
            (" PRIMARY KEY", "", "two tokens"),
            (" PRIMARY KEY", " UNIQUE", ""),
            ("proof", "prove", "lacks a column"),
        ] {
            // SQLite took a word for true only lately.
            let changed = sql.replace(from, to).replace("(true)", "(1 = 1)");
            assert_ne!(changed, sql);
            database.sql(&changed);
            match says {
                "" => drop(world.succeeds(&protect)),
                says => drop(world.refuses(&protect, POLICY, &[says])),
            }
            database.sql("DROP TABLE keyfold_tokens");
        }
        if database.is_postgres() {
            let later = sql.replace(unique, &format!("{unique} DEFERRABLE"));
            database.sql(&later);
            world.refuses(&protect, POLICY, &["two tokens"]);
            // Several at once, none of which would see what the others do, if the session did not say otherwise than the role.
            let (role, schema) = (format!("role_{}", database.schema), &database.schema);
            database.sql(&format!(
                "DROP TABLE keyfold_tokens; {sql}; CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA {schema} TO {role}; \
                 GRANT SELECT, INSERT ON keyfold_tokens TO {role}; ALTER ROLE {role} SET default_transaction_isolation = 'repeatable read'"
            ));
            let uri = format!("postgres://{role}:x@{}", database.uri.rsplit_once('@').expect("a host").1);
            std::thread::scope(|scope| {
                for n in 0..4 {
                    let (world, uri) = (&world, &uri);
                    scope.spawn(move || {
                        world.succeeds(&["protect", "in.csv", "--output", &format!("{n}.csv"), "--tokens", uri]);
                    });
                }
            });
            database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
            assert!((1..4).all(|n| tokens(&world, &format!("{n}.csv")) == tokens(&world, "0.csv")));
        }
    }
}

/// What is bound to a token opens with the value that the token stands for alone, when it is sealed again as well.
#[test]
fn values_that_are_bound_to_tokens_are_sealed_again() {
    for database in databases() {
        let world = World::new();
        database.sql(&documented(if database.is_postgres() { "postgresql" } else { "sqlite" }));
        let bound = "[fields.name]\nrow_binding = { column = \"mrn\", path = \"$.mrn\", segment = \"PID-3.1\" }\n\
                     columns = [\"name\"]\npaths = [\"$.name\"]\nsegments = [\"PID-5\"]\n";
        let token = policy("default").replace("columns =", "segments = [\"PID-3.1\"]\ncolumns =");
        world.write("policy.toml", format!("{token}{bound}"));
        let tokens = ["--tokens", &database.uri];
        for (file, text) in [
            ("in.csv", format!("mrn,name\n{CANARY}-1,{CANARY} N1\n{CANARY}-2,{CANARY} N2\n")),
            ("in.ndjson", format!("{{\"mrn\":\"{CANARY}-1\",\"name\":\"{CANARY} N1\"}}\n")),
            ("in.hl7", format!("MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.5\rPID|1||{CANARY}-1||{CANARY} N1\r")),
        ] {
            let output = |name: &str| format!("{name}.{}", file.rsplit('.').next().expect("a format"));
            let (sealed, newer, back) = (output("sealed"), output("newer"), output("back"));
            world.write(file, &text);
            world.succeeds(&[&["protect", file, "--output", &sealed], &tokens[..]].concat());
            world.succeeds(&["keys", "rotate"]);
            let again = ["reencrypt", &sealed, "--output", &newer, "--statement", &format!("{newer}.statement")];
            world.refuses(&again, USAGE, &["patient.mrn", "--tokens names the database"]);
            let run = world.succeeds(&[&again[..], &tokens[..], &["--json"]].concat());
            let lines = text.matches(" N").count();
            assert!(run.stderr.contains(&format!("\"outdated\":{lines},")), "{file}: {}", run.stderr);
            world.succeeds(&[&["reveal", &newer, "--output", &back], &tokens[..]].concat());
            assert_eq!(world.text(&back), text);
            let summary = world.run(&[&["reveal", &newer, "--output", "-", "--json"], &tokens[..]].concat()).summary();
            assert_eq!(summary["outdated"], 0, "{file}");
        }
        // Another table of tokens is none of this file.
        let sql = ["reencrypt", "--sql", &database.uri, "--table", "t", "--key", "k", "--field", "name=name"];
        world.refuses(&[&sql[..], &tokens[..]].concat(), USAGE, &["--tokens"]);
    }
}

#[test]
fn the_empty_text_stands_for_itself() {
    let database = databases().remove(0);
    let world = World::new();
    database.sql(&documented("sqlite"));
    world.write("policy.toml", policy("default"));
    let text = format!("mrn,other\n{CANARY}-1,x\n,y\n,z\n");
    world.write("in.csv", &text);
    world.succeeds(&["protect", "in.csv", "--output", "sealed.csv", "--tokens", &database.uri]);
    assert_eq!(tokens(&world, "sealed.csv")[1..], ["", ""]);
    assert_eq!(database.rows("keyfold_tokens", "token", &["field"]).len(), 1);
    world.succeeds(&["reveal", "sealed.csv", "--output", "back.csv", "--tokens", &database.uri]);
    assert_eq!(world.text("back.csv"), text);
}
