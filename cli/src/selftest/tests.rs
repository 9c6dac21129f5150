mod response_files;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::failure::Exit;
use response_files::RSP;

fn selftest(vectors: Option<&Path>) -> (bool, Value) {
    let mut out = Vec::new();
    let ok = run(vectors, true, &mut out).expect("the folder is readable");
    (ok, serde_json::from_slice(&out).expect("the report is JSON"))
}

fn selftest_text(vectors: Option<&Path>) -> (bool, String) {
    let mut out = Vec::new();
    let ok = run(vectors, false, &mut out).expect("the folder is readable");
    (ok, String::from_utf8(out).expect("the report is text"))
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a file in it");
    }
    folder
}

/// The report on the only file of a folder, without known answers.
fn only(name: &str, bytes: &[u8]) -> (bool, Value) {
    let folder = folder(&[(name, bytes)]);
    let vectors = folder::run(folder.path()).expect("the folder is readable");
    let report = report::Report::new(Vec::new(), Some(vectors));
    let json = serde_json::to_value(&report).expect("the report is JSON");
    (report.ok, json["vectors"]["files"][0].clone())
}

fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testvectors").join(path);
    if path.exists() {
        return Some(path);
    }
    // Past the capture of the test harness, so that it is seen.
    writeln!(io::stderr(), "SKIPPED 1 test of selftest: {} is not here", path.display()).expect("stderr");
    None
}

#[test]
fn known_answers_pass_on_every_backend() {
    let (ok, report) = selftest(None);
    assert!(ok, "{report:#}");
    let rows: Vec<_> = report["known_answers"].as_array().expect("rows").iter().collect();
    let row = |row: &Value| format!("{} {} {}", row["primitive"], row["backend"], row["run"]).replace('"', "");
    assert_eq!(
        rows.into_iter().map(row).collect::<Vec<_>>(),
        [
            "AES-256-GCM ring 16",
            "AES-256-GCM RustCrypto 16",
            "XAES-256-GCM ring 5",
            "XAES-256-GCM RustCrypto 5",
            "AES-256-SIV RustCrypto 8",
            "HKDF-SHA-256 RustCrypto 4",
            "HMAC-SHA-256 RustCrypto 7",
            "CMAC-AES-256 RustCrypto 4",
            "AES-256-KW RustCrypto 6",
            "AES-256-KWP RustCrypto 4",
            "FF1-AES-256 fpe 4",
        ]
    );
    assert_eq!((&report["passed"], &report["failed"], &report["skipped"]), (&json!(79), &json!(0), &json!(0)));
    assert!(selftest_text(None).1.ends_with("\n79 passed, 0 failed, 0 skipped\n"));
}

/// Case counts per file, so that nothing is skipped silently when a file or the reader changes.
#[test]
fn shared_vectors_pass() {
    let Some(vectors) = shared("") else { return };
    let (ok, report) = selftest(Some(&vectors));
    assert!(ok, "{}", selftest_text(Some(&vectors)).1);
    let count = |file: &str| {
        let files = report["vectors"]["files"].as_array().expect("files");
        let found =
            files.iter().find(|found| found["file"] == file).unwrap_or_else(|| panic!("{file} is not reported"));
        let not_applicable: u64 = match &found["not_applicable"] {
            Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
            _ => found["cases"].as_u64().unwrap_or_default(),
        };
        (found["run"].as_u64().unwrap_or_default(), not_applicable)
    };
    for (file, run, not_applicable) in [
        ("aead_aes_siv_cmac_test.json", 300, 600),
        ("aes_cmac_test.json", 102, 209),
        ("aes_ff1_radix10_test.json", 0, 3845),
        ("aes_gcm_siv_test.json", 0, 202),
        ("aes_gcm_test.json", 66, 250),
        ("aes_gmac_test.json", 0, 414),
        ("aes_kwp_test.json", 94, 160),
        ("aes_siv_cmac_test.json", 147, 295),
        ("aes_wrap_test.json", 68, 97),
        ("chacha20_poly1305_test.json", 0, 325),
        ("hkdf_sha256_test.json", 86, 0),
        ("hmac_sha256_test.json", 174, 0),
        ("hmac_sha512_test.json", 0, 174),
    ] {
        assert_eq!(count(&format!("wycheproof/{file}")), (run, not_applicable), "{file}");
    }
    let reason = |file: &str| {
        let files = report["vectors"]["files"].as_array().expect("files");
        files.iter().find(|found| found["file"] == file).map(|found| found["reason"].clone()).unwrap_or_default()
    };
    assert_eq!(reason("own/aes256gcm_two_key.json"), "unknown format");
    assert_eq!(reason("wycheproof/LICENSE"), "not a vector file");
    assert_eq!(reason("wycheproof/chacha20_poly1305_test.json"), "algorithm not used: CHACHA20-POLY1305");
}

/// One hex digit changed in an expected value of each file that is run: exactly one more case fails.
#[test]
fn a_corrupted_copy_fails() {
    let Some(vectors) = shared("wycheproof") else { return };
    for (file, field, bits) in [
        ("aes_gcm_test.json", "tag", 256),
        ("aes_siv_cmac_test.json", "ct", 512),
        ("aead_aes_siv_cmac_test.json", "tag", 512),
        ("hkdf_sha256_test.json", "okm", 256),
        ("hmac_sha256_test.json", "tag", 256),
        ("aes_cmac_test.json", "tag", 256),
        ("aes_wrap_test.json", "ct", 256),
        ("aes_kwp_test.json", "ct", 256),
    ] {
        let text = fs::read(vectors.join(file)).expect("the vector file");
        let mut set: Value = serde_json::from_slice(&text).expect("JSON");
        let groups = set["testGroups"].as_array_mut().expect("groups");
        let applies =
            |group: &&mut Value| group["keySize"] == bits && [json!(96), Value::Null].contains(&group["ivSize"]);
        let tests = groups.iter_mut().filter(applies).flat_map(|group| group["tests"].as_array_mut().expect("tests"));
        let test = tests.into_iter().find(|test| test["result"] == "valid").expect("a valid case");
        let value = test[field].as_str().expect("hexadecimal").to_owned();
        let first = if value.starts_with('0') { "1" } else { "0" };
        test[field] = format!("{first}{}", &value[1..]).into();
        let id = format!("tcId {}", test["tcId"]);

        let (ok, report) = only(file, &serde_json::to_vec(&set).expect("JSON"));
        assert!(!ok, "{file}");
        assert_eq!(report["failed"], 1, "{file}: {report}");
        assert_eq!(report["failures"][0]["case"], id, "{file}: {report}");
    }
}

/// An invalid case relabelled as valid and a valid one relabelled as invalid both fail.
#[test]
fn a_wrong_expectation_fails() {
    let Some(vectors) = shared("wycheproof") else { return };
    let text = fs::read_to_string(vectors.join("aes_gcm_test.json")).expect("the vector file");
    let set: Value = serde_json::from_str(&text).expect("JSON");
    let groups = set["testGroups"].as_array().expect("groups");
    let group =
        groups.iter().find(|group| group["keySize"] == 256 && group["ivSize"] == 96).expect("a group that is run");
    let tests = group["tests"].as_array().expect("tests");
    let invalid = tests.iter().filter(|test| test["result"] == "invalid").count();
    for (from, to, failed) in [("valid", "invalid", tests.len() - invalid), ("invalid", "valid", invalid)] {
        let relabelled: Vec<Value> = tests
            .iter()
            .filter(|test| test["result"] == from)
            .map(|test| {
                let mut test = test.clone();
                test["result"] = to.into();
                test
            })
            .collect();
        let set = json!({ "algorithm": "AES-GCM", "testGroups": [{ "tests": relabelled }] });
        let (ok, report) = only("relabelled.json", set.to_string().as_bytes());
        assert!(!ok && failed > 0);
        assert_eq!((&report["run"], &report["failed"]), (&json!(failed), &json!(failed)), "{from} as {to}");
    }
}

/// Nothing that a file can hold makes the command panic, and nothing malformed counts as passed.
#[test]
fn hostile_files_are_reported() {
    let case = |test: &str| format!(r#"{{"algorithm":"HKDF-SHA-256","testGroups":[{{"tests":[{test}]}}]}}"#);
    let hkdf = |more: &str| case(&format!(r#"{{"tcId":1,"result":"valid","ikm":"","salt":"","info":"",{more}}}"#));
    for (text, status, reason) in [
        ("[".repeat(1_000_000), "unreadable", "malformed JSON"),
        (format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), "not_applicable", "unknown format"),
        (r#"{"algorithm": "AES-GCM", "testGroups": ["#.to_owned(), "unreadable", "malformed JSON"),
        (r#"{"algorithm": "AES-GCM"} {}"#.to_owned(), "unreadable", "malformed JSON"),
        (String::new(), "unreadable", "malformed JSON"),
        ("7".to_owned(), "not_applicable", "unknown format"),
        (r#"{"algorithm": 7, "testGroups": []}"#.to_owned(), "not_applicable", "unknown format"),
        (r#"{"algorithm": "AES-GCM", "testGroups": 7}"#.to_owned(), "unreadable", "malformed test groups"),
        (r#"{"algorithm": "AES-GCM", "testGroups": [{}]}"#.to_owned(), "unreadable", "malformed test groups"),
        (
            r#"{"algorithm": "\u001b[2J\u202e", "testGroups": []}"#.to_owned(),
            "not_applicable",
            "used: \\u{1b}[2J\\u{202e}",
        ),
        (case("7"), "run", "malformed"),
        (case(&"[".repeat(200).replace('[', "[[").to_string()), "unreadable", "malformed JSON"),
        (case(r#"{"tcId":1}"#), "run", "malformed: missing field"),
        (hkdf(r#""okm":"0g","size":1"#), "run", "malformed: not hexadecimal"),
        (hkdf(r#""okm":"0","size":1"#), "run", "malformed: not hexadecimal"),
        (hkdf(r#""okm":"00","size":1e999"#), "run", "malformed"),
        (hkdf(r#""okm":"00","size":18446744073709551616"#), "run", "malformed"),
        (hkdf(r#""okm":"00","size":18446744073709551615"#), "run", "not derived"),
        (hkdf(r#""okm":"00","size":-1"#), "run", "malformed"),
        (hkdf(r#""okm":"00""#), "run", "malformed: no size"),
        (hkdf(r#""okm":"00","okm":"00","size":1"#), "run", "malformed: duplicate field"),
        (case(r#"{"tcId":1,"result":"perhaps"}"#), "run", "malformed: unknown variant"),
    ] {
        let (ok, report) = only("hostile.json", text.as_bytes());
        assert!(!ok, "{report}");
        assert_eq!(report["status"], status, "{report}");
        let told = report["reason"].as_str().or(report["failures"][0]["reason"].as_str()).expect("a reason");
        assert!(told.contains(reason), "{report}");
    }
}

/// Every byte of a file of either kind replaced by others: no panic, and every case is either passed or failed.
#[test]
fn mutated_files_are_survived() {
    let json = r#"{"algorithm":"HMACSHA256","testGroups":[{"tagSize":128,"tests":[{"tcId":1,"result":"valid",
        "key":"4a656665","msg":"7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        "tag":"5bdcc146bf60754e6a042426089575c7"}]}]}"#;
    let mut passed_unchanged = 0;
    for text in [RSP, json] {
        for at in 0..text.len() {
            for byte in *b"\0 \n\"0a[{=9\xff" {
                let mut mutated = text.as_bytes().to_vec();
                mutated[at] = byte;
                let outcome = if text == RSP { cavp::run(&mutated) } else { wycheproof::run(&mutated).1 };
                let report::FileOutcome::Run { tally, .. } = outcome else { continue };
                assert_eq!(tally.run, tally.passed + tally.failed);
                passed_unchanged += usize::from(tally.failed == 0);
            }
        }
    }
    assert!(passed_unchanged > 0, "some replacements change nothing");
}

/// A MAC tag without bytes would match everything.
#[test]
fn an_empty_tag_is_refused() {
    for size in ["0", "1", "264", "18446744073709551615", "null"] {
        let set = format!(
            r#"{{"algorithm":"HMACSHA256","testGroups":[{{"tagSize":{size},"tests":[
                {{"tcId":1,"result":"valid","key":"00","msg":"","tag":""}}]}}]}}"#
        );
        assert_eq!(only("empty.json", set.as_bytes()).1["failed"], 1, "{size}");
    }
}

#[test]
fn a_folder_without_cases_fails() {
    let empty = folder(&[]);
    let (ok, text) = selftest_text(Some(empty.path()));
    assert!(!ok);
    assert!(
        text.contains("\nthe vector folder holds no case that can be run: Wycheproof's files (.json")
            && text.ends_with("are run by testvectors/decoder.py\n79 passed, 0 failed, 0 skipped\n"),
        "{text}"
    );

    let none = folder(&[("LICENSE", b"text"), ("other.json", b"{}")]);
    assert!(!selftest(Some(none.path())).0);

    let mut out = Vec::new();
    let error = run(Some(&empty.path().join("missing")), false, &mut out).expect_err("there is no such folder");
    assert_eq!(error.code, Exit::Storage as u8);
    assert!(out.is_empty());
    let file = none.path().join("LICENSE");
    assert_eq!(run(Some(&file), false, &mut out).expect_err("not a folder").code, Exit::Storage as u8);
}

#[cfg(unix)]
#[test]
fn links_pipes_and_depth_are_safe() {
    use std::os::unix::fs::symlink;
    let folder = folder(&[("a.rsp", RSP.as_bytes())]);
    let at = |name: &str| folder.path().join(name);
    symlink(folder.path(), at("loop")).expect("a link");
    symlink(at("self.json"), at("self.json")).expect("a link");
    symlink(at("a.rsp"), at("link.rsp")).expect("a link");
    symlink("/dev/zero", at("zero.json")).expect("a link");
    let mut deep = at("deep");
    for _ in 0..40 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).expect("folders");
    fs::File::create(at("long.json")).and_then(|file| file.set_len((64 << 20) + 1)).expect("a sparse file");

    let (ok, report) = selftest(Some(folder.path()));
    assert!(!ok);
    let files: Vec<(String, String)> = report["vectors"]["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|file| (file["file"].to_string().replace('"', ""), file["reason"].to_string().replace('"', "")))
        .collect();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[0], "a.rsp");
    assert!(names[1].starts_with("deep/d/"), "{names:?}");
    assert_eq!(names[2..], ["link.rsp", "long.json", "loop", "self.json", "zero.json"]);
    assert_eq!(files[1].1, "nested too deeply");
    assert_eq!(files[3].1, "longer than 64 MiB");
    assert_eq!(files[4].1, "a symbolic link to a folder, not followed");
    assert!(files[5].1.contains("symbolic link"), "{:?}", files[5]);
    assert_eq!(files[6].1, "not a regular file");
    assert_eq!(report["failed"], 3, "deep, long and self");
}

/// A report that cannot be written is an error, not a success.
#[test]
fn a_broken_output_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for json in [false, true] {
        assert_eq!(run(None, json, &mut Full).expect_err("nothing can be written").code, Exit::Storage as u8);
    }
}
