//! Rows get another identifier, with all that is bound to it, and nothing else changes.

use crate::common::{self, DATA, KEY, PATIENTS, POLICY, USAGE, World, argument, contains};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Patient 3 is patient 1.
const MAP: &str = "from,to\nCanáry7391-id-3,Canáry7391-id-1\n";

const REBIND: [&str; 6] = ["rebind", "--map", "map.csv", "sealed.csv", "--output", "moved.csv"];

const DOCUMENTS: &str = r#"{"id":"Canáry7391-1", "name":"Canáry7391 a","ssn":[1,2],"note":"Canáry7391"}
 {"id":"Canáry7391-2","x":1e2,"name":null,"note":"Canáry7391 5'10\" n"}
{"name":"Canáry7391 \/","id":17}

{"note":"no identifier"}
{"ssn":"Canáry7391","id":17.0}
"#;

/// The policy of `common`, with the identifier in clear.
fn clear_identifier() -> String {
    let (start, rest) = common::POLICY_FILE.split_once("[fields.\"patient.id\"]").expect("it is there");
    format!("{start}[fields{}", rest.split_once("[fields").expect("another follows").1)
}

impl World {
    /// Rebinds `sealed.EXTENSION`; then reveals it, which must give `expected`.
    #[track_caller]
    fn moves(&self, extension: &str, map: &str, expected: &str, more: &[&str]) -> serde_json::Value {
        let [sealed, moved, back] = ["sealed", "moved", "back"].map(|name| format!("{name}.{extension}"));
        self.write("map.csv", map);
        let run = self.succeeds(
            &[&["rebind", "--map", "map.csv", &sealed, "--output", &moved, "--force", "--json"], more].concat(),
        );
        assert!(run.stderr.contains("values bound to another row"), "no event: {}", run.stderr);
        self.succeeds(&["reveal", &moved, "--output", &back, "--force"]);
        assert_eq!(self.text(&back), expected);
        run.summary()
    }
}

#[test]
fn a_protected_identifier_moves_with_what_is_bound_to_it() {
    let world = World::new();
    world.protect(&[]);
    let expected = PATIENTS.replace("-id-3,", "-id-1,");
    let summary = world.moves("csv", MAP, &expected, &[]);
    assert_eq!([&summary["records"], &summary["values"], &summary["rebound"]], [3, 2, 1]);
    assert_eq!(summary["direction"], "rebound");
    let (sealed, moved) = (world.text("sealed.csv"), world.text("moved.csv"));
    let (sealed, moved): (Vec<_>, Vec<_>) = (sealed.lines().collect(), moved.lines().collect());
    assert_eq!(sealed[..3], moved[..3], "the other rows stay byte for byte");
    let (old, new): (Vec<_>, Vec<_>) = (sealed[3].split(',').collect(), moved[3].split(',').collect());
    assert_eq!(new[0], moved[1].split(',').next().expect("a cell"), "it joins with the patient that it is");
    assert!(old[1] != new[1] && old[2] != new[2]);
    assert_eq!(old[3..], new[3..], "what is not bound stays");
}

#[test]
fn an_identifier_in_clear_moves_and_bytes_of_other_rows_stay() {
    let world = World::new();
    world.write("policy.toml", clear_identifier());
    let unusual = "patient_id,name,ssn,note,state\r\n\"a\",Canáry7391,Canáry7391,Canáry7391,5'10\"\n\nb,\"Canáry7391\",Canáry7391,\"Canáry7391\",\"x\"\"y\"\r\n\
                   c,Canáry7391,Canáry7391,Canáry7391,5'10\"";
    world.write("in.csv", unusual);
    world.protect(&[]);
    let map = "from,to\na,\"c,\"\"d\"\"\"\n";
    let expected = unusual.replace("\n\"a\",", "\n\"c,\"\"d\"\"\",");
    world.moves("csv", map, &expected, &[]);
    // What is unquoted stays so where nothing requires it.
    world.moves("csv", "from,to\nc,d e\n", &unusual.replace("\nc,", "\nd e,"), &[]);
}

#[test]
fn documents_move() {
    let world = World::new();
    for policy in [common::POLICY_FILE.to_owned(), clear_identifier()] {
        // Without a type a number is sealed as one.
        world.write("policy.toml", policy.replace("type = \"text\"\n", ""));
        world.write("in.ndjson", DOCUMENTS);
        world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson", "--force"]);
        let map = "from,to\nCanáry7391-1,Canáry7391-2\n17,9\n17.0,1e3\n";
        let expected =
            DOCUMENTS.replace("\"Canáry7391-1\"", "\"Canáry7391-2\"").replace(":17}", ":9}").replace(":17.0}", ":1e3}");
        let summary = world.moves("ndjson", map, &expected, &[]);
        assert_eq!([&summary["records"], &summary["values"], &summary["rebound"]], [5, 4, 3]);
        let (sealed, moved) = (world.text("sealed.ndjson"), world.text("moved.ndjson"));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        for same in [1, 3, 4] {
            assert_eq!(lines(&sealed)[same], lines(&moved)[same]);
        }
        // A number stays a number.
        world.write("map.csv", "from,to\n17,Canáry7391\n");
        world.refuses(
            &["rebind", "--map", "map.csv", "sealed.ndjson", "--output", "x.ndjson"],
            DATA,
            &["line 3", "is a number"],
        );
    }
}

#[test]
fn a_map_that_is_not_clear_is_refused() {
    let world = World::new();
    world.protect(&[]);
    for (map, says) in [
        ("from,to\nCanáry7391,b\nx,y\nCanáry7391,c\n", "line 2 and line 4"),
        (
            "from,to\nCanáry7391-a,Canáry7391-b\n\nCanáry7391-b,Canáry7391-c\n",
            "line 2 leads to the identifier that line 4",
        ),
        ("from,to\n\"Canáry7391\na\",b\nb,Canáry7391\n", "line 2 leads to the identifier that line 4"),
        ("from,to\na,b\nb,a\n", "leads to"),
        ("from,to\na,b\nCanáry7391,Canáry7391\n", "line 3: the two"),
        ("from,to\n,b\n", "line 2: an identifier is empty"),
        ("from,to\na,\n", "line 2: an identifier is empty"),
        ("to,from\na,b\n", "header"),
        ("Canáry7391,b\n", "header"),
        ("from,to\n", "no rows"),
        ("", "header"),
        ("from,to\na,b,c\n", "row 1"),
    ] {
        world.write("map.csv", map);
        world.refuses(&REBIND, DATA, &[says, "map.csv"]);
    }
    world.write("map.csv", b"from,to\na,Can\xe1ry7391\n");
    world.refuses(&REBIND, DATA, &["UTF-8"]);
    world.write("map.csv", MAP);
    fs::set_permissions(world.path("map.csv"), fs::Permissions::from_mode(0o666)).expect("allowed");
    world.refuses(&REBIND, USAGE, &["anyone on the machine"]);
    fs::remove_file(world.path("map.csv")).expect("removed");
    fs::create_dir(world.path("map.csv")).expect("made");
    world.refuses(&REBIND, USAGE, &["regular file"]);
}

#[test]
fn identifiers_that_occur_in_no_row_are_refused_unless_allowed() {
    let world = World::new();
    world.protect(&[]);
    let map = format!("{MAP}Canáry7391-x,Canáry7391-id-1\nCanáry7391-y,Canáry7391-id-1\n");
    world.write("map.csv", &map);
    world.refuses(&REBIND, DATA, &["2 identifiers", "line 3", "--allow-missing"]);
    world.moves("csv", &map, &PATIENTS.replace("-id-3,", "-id-1,"), &["--allow-missing"]);
}

#[test]
fn what_does_not_belong_to_its_row_is_not_moved() {
    let world = World::new();
    let table = world.protect(&[]);
    world.write("map.csv", MAP);
    // The attacker's dream: a value of patient 2 that is laundered into patient 1's row.
    world.write("sealed.csv", table.swapped((2, 2), (3, 2)));
    world.refuses(&REBIND, KEY, &["row 3", "DecryptionFailed"]);
    world.write("sealed.csv", table.swapped((2, 1), (3, 2)));
    world.refuses(&REBIND, KEY, &["DecryptionFailed"]);
    world.write("sealed.csv", PATIENTS);
    world.refuses(&REBIND, DATA, &["not sealed"]);
    world.write("sealed.csv", table.render());
    world.refuses(&[&REBIND[..], &["--context", "tenant=b"]].concat(), KEY, &["DecryptionFailed"]);
    world.refuses(&[&REBIND[..], &["--scope", "typo"]].concat(), KEY, &["NoMatchingKey"]);
    world.succeeds(&REBIND);
}

#[test]
fn the_map_says_which_of_several_identifiers_it_means() {
    let world = World::new();
    let policy = "version = 1\n[fields.a]\nrow_binding = \"id\"\ncolumns = [\"a\"]\n[fields.b]\nrow_binding = \"visit\"\ncolumns = [\"b\"]\n";
    world.write("policy.toml", policy);
    world.write("in.csv", "id,visit,a,b\n1,1,Canáry7391,Canáry7391\n2,2,Canáry7391,Canáry7391\n");
    world.protect(&[]);
    world.write("map.csv", "from,to\n1,2\n");
    world.refuses(&REBIND, USAGE, &["\"id\"", "\"visit\"", "--row"]);
    world.refuses(&[&REBIND[..], &["--row", "a"]].concat(), USAGE, &["--row"]);
    let expected = "id,visit,a,b\n1,2,Canáry7391,Canáry7391\n2,2,Canáry7391,Canáry7391\n";
    world.moves("csv", "from,to\n1,2\n", expected, &["--row", "visit"]);

    world.write("policy.toml", "version = 1\n[fields.a]\ncolumns = [\"a\"]\n");
    world.refuses(&[&REBIND[..], &["--force"]].concat(), POLICY, &["bound"]);
}

#[test]
fn the_map_and_the_keyring_are_not_overwritten_and_nothing_shows_in_arguments() {
    let world = World::new();
    world.protect(&[]);
    world.write("map.csv", MAP);
    let onto =
        |path: &str| ["rebind", "--map", "map.csv", "sealed.csv", "--force", "--output", path].map(str::to_owned);
    for own in ["map.csv".to_owned(), "policy.toml".to_owned(), argument(&world.config()).to_owned()] {
        let arguments = onto(&own);
        world.refuses(&arguments.each_ref().map(String::as_str), USAGE, &[]);
    }
    world.refuses(&onto("sealed.csv").each_ref().map(String::as_str), USAGE, &[]);
    world.succeeds(&REBIND);
    assert!(!contains(&world.read("moved.csv"), common::CANARY.as_bytes()));
}

/// More than a batch: the map is found in every one, and order and bytes stay.
#[test]
fn many_rows() {
    let world = World::new();
    let row = |n: u32, id: u32| format!("Canáry7391-{id},Canáry7391 {n},Canáry7391-{n},x,KS\n");
    let rows = |id: fn(u32) -> u32| (0..10_000).map(|n| row(n, id(n))).collect::<String>();
    let header = "patient_id,name,ssn,note,state\n";
    world.write("in.csv", format!("{header}{}", rows(|n| n % 5_000)));
    world.protect(&[]);
    let map: String = (0..1_000).map(|n| format!("Canáry7391-{n},Canáry7391-{}\n", n + 1_000)).collect();
    let expected = format!("{header}{}", rows(|n| if n % 5_000 < 1_000 { n % 5_000 + 1_000 } else { n % 5_000 }));
    let summary = world.moves("csv", &format!("from,to\n{map}"), &expected, &[]);
    assert_eq!([&summary["records"], &summary["values"], &summary["rebound"]], [10_000, 4_000, 2_000]);
}
