//! Inputs that are refused: with the place, without the value, and with nothing under the final name.

use crate::common::{CANARY, DATA, PATIENTS, POLICY, STORAGE, USAGE, World};

const HEADER: &str = "patient_id,name,ssn,note,state\n";

impl World {
    /// `bad.csv` or `bad.ndjson` with `content` is refused in the same way by protect and, with `both`, by reveal.
    #[track_caller]
    fn refuses_content(&self, name: &str, content: impl AsRef<[u8]>, both: bool, says: &[&str]) {
        self.write(name, content);
        let file = format!("keyfold: {name}: ");
        let says = &[&[&file[..]], says].concat()[..];
        self.refuses(&["protect", name, "--output", "out"], DATA, says);
        // What was there before stays, --force or not.
        self.write("out", "old");
        self.refuses(&["protect", name, "--output", "out", "--force"], DATA, says);
        std::fs::remove_file(self.path("out")).expect("removed");
        if both {
            self.refuses(&["reveal", name, "--output", "out"], DATA, says);
        }
    }
}

#[test]
fn files_that_are_not_there() {
    let world = World::new();
    world.refuses(
        &["protect", "missing.csv", "--output", "out"],
        STORAGE,
        &["cannot read missing.csv", "No such file"],
    );
    std::fs::create_dir(world.path("folder.csv")).expect("a folder");
    world.refuses(&["protect", "folder.csv", "--output", "out"], USAGE, &["folder.csv is a folder"]);
}

#[test]
fn csv_that_is_not_csv() {
    let world = World::new();
    let row = "1,Canáry7391,Canáry7391,Canáry7391,KS\n";
    let csv = |text: &str| format!("{HEADER}{row}{text}");
    let refuses = |content: String, says: &[&str]| world.refuses_content("bad.csv", content, true, says);
    refuses(String::new(), &["the input is empty"]);
    refuses("\n\n".to_owned(), &["the input is empty"]);
    refuses(csv("2,Canáry7391,Canáry7391\n"), &["row 2 (line 3)", "5 cells expected", "3 found"]);
    refuses(csv("2,Canáry7391,Canáry7391,a,b,c\n"), &["row 2 (line 3)", "5 cells expected", "6 found"]);
    refuses(csv("2,\"Canáry7391,x,y,z\n3,a,b,c,d\n"), &["row 2 (line 3)", "column 2 (\"name\")", "never closed"]);
    refuses(csv("2,\"Canáry7391\"x,y,z,a\n"), &["row 2 (line 3)", "column 2 (\"name\")", "after its closing quote"]);
    // Quotes in the middle, or at the end, of a cell that has none around it: it could not come back so.
    for cell in ["Canáry7391 \"x\"", "5'10\"", " \"Canáry7391\""] {
        let says = ["row 2 (line 3)", "column 2 (\"name\")", "has a quote and is not quoted"];
        world.refuses_content("bad.csv", csv(&format!("2,{cell},y,z,a\n")), false, &says);
        // Of what stays in clear every byte stays.
        let clear = csv(&format!("2,Canáry7391,y,z,{cell}\n"));
        world.write("clear.csv", &clear);
        world.succeeds(&["protect", "clear.csv", "--output", "sealed.csv", "--force"]);
        world.succeeds(&["reveal", "sealed.csv", "--output", "back.csv", "--force"]);
        assert_eq!(world.text("back.csv"), clear);
    }
    refuses(format!("patient_id,name,ssn,ssn,note\n{row}"), &["columns 3 and 4", "same name", "\"ssn\""]);
    // Without a header the first patient would be one: such names are not repeated.
    refuses(format!("Canáry7391,Canáry7391,ssn,note,x\n{row}"), &["columns 1 and 2", "same name"]);
    refuses(csv("2,a,b,c,d\n").replace('\n', "\n\n").replace("c,d", "c"), &["row 2 (line 5)"]);
}

#[test]
fn csv_that_is_not_text() {
    let world = World::new();
    let not_text = [HEADER.as_bytes(), "1,Canáry7391,x,y,z\n2,".as_bytes(), b"Can\xe1ry7391,a,y,z\n"].concat();
    world.refuses_content("bad.csv", not_text, false, &["row 2 (line 3), column 2 (\"name\")", "not UTF-8"]);
    let header = [b"patient_id,name,ssn,note,st\xe4te\n".as_slice(), b"1,a,b,c,d\n"].concat();
    world.refuses_content("bad.csv", header, true, &["column 5", "not UTF-8"]);
    let utf16: Vec<u8> = PATIENTS.encode_utf16().flat_map(u16::to_le_bytes).collect();
    world.write("utf16.csv", utf16);
    world.refuses(&["protect", "utf16.csv", "--output", "out"], POLICY, &["no column"]);
}

#[test]
fn csv_that_does_not_fit_the_policy() {
    let world = World::new();
    world.write("bad.csv", PATIENTS.replace("ssn", "social"));
    for verb in ["protect", "reveal"] {
        world.refuses(
            &[verb, "bad.csv", "--output", "out"],
            POLICY,
            &["patient.ssn", "no column \"ssn\"", "nothing was written"],
        );
    }
    // All that are missing at once.
    world.write("bad.csv", PATIENTS.replace("ssn", "social").replace("note", "remark"));
    let all = ["no columns", "\"ssn\" (field patient.ssn)", "\"note\"", "optional = true"];
    world.refuses(&["protect", "bad.csv", "--output", "out"], POLICY, &all);
    // The binding column has an empty cell.
    world.write("bad.csv", format!("{HEADER},Canáry7391,x,y,z\n"));
    world.refuses(
        &["protect", "bad.csv", "--output", "out"],
        DATA,
        &["row 1 (line 2), column 1 (\"patient_id\")", "empty"],
    );
    let typed = "version = 1\n[fields.born]\ntype = \"date\"\ncolumns = [\"born\"]\n[fields.n]\ntype = \"integer\"\ncolumns = [\"n\"]\n";
    world.write("typed.toml", typed);
    for (row, column) in
        [("Canáry7391,1", "\"born\""), ("2024-02-30,1", "\"born\""), ("2024-02-29,Canáry7391", "\"n\"")]
    {
        world.write("bad.csv", format!("born,n\n2024-02-29,7\n{row}\n"));
        let arguments = ["protect", "bad.csv", "--output", "out", "--policy", "typed.toml"];
        world.refuses(&arguments, DATA, &["row 2 (line 3)", column]);
    }
}

#[test]
fn cells_that_are_too_long() {
    let world = World::new();
    const MIB: usize = 1024 * 1024;
    let long = |len: usize| CANARY.repeat(len / CANARY.len() + 1);
    let two = format!("{HEADER}1,a,b,c,d\n2,{},b,c,d\n", long(2 * MIB));
    world.refuses_content("bad.csv", two, false, &["row 2 (line 3), column 2 (\"name\")", "longer than 1048576 bytes"]);
    let just = format!("{HEADER}1,{}x,b,c,d\n", "y".repeat(MIB));
    world.refuses_content(
        "bad.csv",
        just,
        false,
        &["row 1 (line 2), column 2 (\"name\")", "longer than 1048576 bytes"],
    );
    for (column, quote, says) in
        [(1, "", "1048576 bytes"), (1, "\"", "1048576 bytes"), (4, "", "16777216 bytes"), (4, "\"", "16777216 bytes")]
    {
        let mut cells = ["1", "a", "b", "c", "d"].map(str::to_owned);
        cells[column] = format!("{quote}{}{quote}", long(50 * MIB));
        world.write("bad.csv", format!("{HEADER}{}\n", cells.join(",")));
        let place = format!("row 1 (line 2), column {}", column + 1);
        world.refuses(&["protect", "bad.csv", "--output", "out"], DATA, &[&place, says]);
    }
    world.write("bad.ndjson", format!("{{\"note\":\"{}\"}}\n", long(2 * MIB)));
    world.refuses(&["protect", "bad.ndjson", "--output", "out"], DATA, &["line 1, field patient.note", "1 MiB"]);
}

#[test]
fn documents_that_are_not_json() {
    let world = World::new();
    let good = "{\"id\":\"1\",\"note\":\"Canáry7391\"}\n";
    let refuses =
        |line: &str, says: &[&str]| world.refuses_content("bad.ndjson", format!("{good}{line}\n"), true, says);
    for line in [
        "{\"note\":\"Canáry7391\"",
        "{\"note\":Canáry7391}",
        "Canáry7391",
        "{\"note\":\"Canáry7391\"} {}",
        "{\"a\":01}",
        "{'a':1}",
        "\"\u{1}\"",
        "[1,]",
        "{\"a\":\"\\ud800\"}",
    ] {
        // Whatever the second line is, reveal sees the first one first, which is not sealed.
        world.write("bad.ndjson", format!("{good}{line}\n"));
        world.refuses(&["protect", "bad.ndjson", "--output", "out"], DATA, &["line 2, column", "not valid JSON"]);
        world.write("bad.ndjson", format!("\n{line}\n"));
        world.refuses(&["reveal", "bad.ndjson", "--output", "out"], DATA, &["line 2, column", "not valid JSON"]);
    }
    let duplicates = [
        "{\"note\":\"Canáry7391\",\"note\":1}",
        "{\"x\":[{\"Canáry7391\":1,\"Canáry7391\":2}]}",
        "{\"n\":1,\"\\u006e\":2}",
    ];
    for line in duplicates {
        refuses(line, &["line 2, column", "two members of the same name"]);
    }
    for deep in ["[".repeat(10_000) + &"]".repeat(10_000), "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000)] {
        refuses(&deep, &["line 2", "not valid JSON", "recursion limit"]);
    }
    // What a line means takes far more memory than what it says.
    for many in ["[".repeat(1_000_000), format!("{{\"a\":[{}0]}}", "0,".repeat(1_000_000))] {
        refuses(&many, &["line 2", "more than 131072 values"]);
    }
    // What reveal reads may be twice as long, since sealed values are longer.
    for (verb, count, says) in [("protect", 2, "16777216 bytes"), ("reveal", 4, "33554432 bytes")] {
        world.write("bad.ndjson", format!("\n{{\"note\":\"{}\"}}\n", CANARY.repeat(count * 1024 * 1024)));
        world.refuses(&[verb, "bad.ndjson", "--output", "out"], DATA, &["line 2: longer than", says]);
    }
    let not_text = [good.as_bytes(), b"{\"note\":\"Can\xe1ry7391\"}\n"].concat();
    world.refuses_content("bad.ndjson", not_text, true, &["line 2, column 13: not UTF-8"]);
}

#[test]
fn documents_that_cannot_be_bound() {
    let world = World::new();
    let cases = [
        ("{\"name\":\"Canáry7391\"}", "selects no value"),
        ("{\"name\":\"Canáry7391\",\"id\":\"\"}", "empty"),
        ("{\"name\":\"Canáry7391\",\"id\":null}", "line 1, field patient."),
        ("{\"name\":\"Canáry7391\",\"id\":[\"Canáry7391\"]}", "line 1, field patient."),
    ];
    for (line, says) in cases {
        world.write("bad.ndjson", format!("{line}\n"));
        world.refuses(&["protect", "bad.ndjson", "--output", "out"], DATA, &["line 1, field patient.", says]);
    }
    let overlap = "version = 1\n[fields.a]\npaths = [\"$.a\"]\n[fields.b]\npaths = [\"$.a.b\"]\n";
    world.write("overlap.toml", overlap);
    world.write("bad.ndjson", "{\"a\":{\"b\":\"Canáry7391\"}}\n");
    let arguments = ["protect", "bad.ndjson", "--output", "out", "--policy", "overlap.toml"];
    world.refuses(&arguments, DATA, &["line 1", "\"a\" and \"b\""]);
}

#[test]
fn a_policy_that_could_not_find_its_values_again() {
    // The condition looks at what is sealed: after protecting it would not hold any more.
    let world = World::new();
    let policy = "version = 1\n[fields.a]\npaths = [\"$.a\"]\nonly_if = { \"$.a\" = \"Canáry7391\" }\n";
    world.write("blind.toml", policy);
    world.write("in.ndjson", "{\"a\":\"Canáry7391\"}\n");
    let arguments = ["protect", "in.ndjson", "--output", "out", "--policy", "blind.toml"];
    world.refuses(&arguments, POLICY, &["line 1", "could not be revealed"]);
    let filter = "version = 1\n[fields.a]\npaths = [\"$.a[?@.k=='Canáry7391']['k','v']\"]\n".replace(CANARY, "key");
    world.write("blind.toml", filter);
    world.write("in.ndjson", "{\"a\":[{\"k\":\"key\",\"v\":\"Canáry7391\"}]}\n");
    world.refuses(&arguments, POLICY, &["line 1", "could not be revealed"]);
}

#[test]
fn a_failure_in_the_last_row_of_many_leaves_nothing() {
    let world = World::new();
    let mut text = HEADER.to_owned() + &"1,Canáry7391,Canáry7391,Canáry7391,KS\n".repeat(50_000);
    text.push_str("1,Canáry7391\n");
    world.refuses_content("bad.csv", text, false, &["row 50001 (line 50002)", "5 cells expected"]);
}
