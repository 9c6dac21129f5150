use serde_json::json;

use super::only;

/// The facts are NIST's; the `AADlen = 160` case and the one with a 64-bit nonce were computed with OpenSSL.
pub(super) const RSP: &str = "\
# CAVS 14.0
# GCM Decrypt with keysize 256 test information

[Keylen = 256]\r
[IVlen = 96]
[PTlen = 128]
[AADlen = 0]
[Taglen = 128]

Count = 0
Key = 4c8ebfe1444ec1b2d503c6986659af2c94fafe945f72c1e8486a5acfedb8a0f8
IV = 473360e0ad24889959858995
CT = d2c78110ac7e8f107c0df0570bd7c90c
AAD =\x20
Tag = c26a379b6d98ef2852ead8ce83a833a7
PT = 7789b41cb3ee548814ca0b388c10b343

Count = 1
Key = c997768e2d14e3d38259667a6649079de77beb4543589771e5068e6cd7cd0b14
IV = 835090aed9552dbdd45277e2
CT = 9f6607d68e22ccf21928db0986be126e
AAD =
Tag = f32617f67c574fd9f44ef76ff880ab9f
FAIL

[Keylen = 256]
[IVlen = 96]
[PTlen = 0]
[AADlen = 160]
[Taglen = 128]

Count = 0
Key = feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308
IV = cafebabefacedbaddecaf888
PT =
AAD = feedfacedeadbeeffeedfacedeadbeefabaddad2
CT =
Tag = 9f6be07603c0b0bd1272854063e9c9ba

[IVlen = 64]

Count = 0
Key = feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308
IV = cafebabefacedbad
PT =
AAD = feedfacedeadbeeffeedfacedeadbeefabaddad2
CT =
Tag = 2dd775575822838efa7652ae6cd0c455
";

#[test]
fn cavp_response_files_are_run() {
    let (ok, report) = only("gcmDecrypt256.rsp", RSP.as_bytes());
    assert!(ok, "{report}");
    assert_eq!((&report["run"], &report["passed"]), (&json!(3), &json!(3)));
    assert_eq!(report["not_applicable"], json!({ "nonce size 64 bits": 1 }));
}

/// One cause per case: what is changed in the file, and what is then reported.
#[test]
fn corrupted_response_files_fail() {
    for (from, to, reason) in [
        ("PT = 7789", "PT = 7788", "ring: sealed to other bytes"),
        ("Tag = c26a", "Tag = c26b", "ring: sealed to other bytes"),
        ("PT = 7789b41cb3ee548814ca0b388c10b343", "FAIL", "ring: an invalid message was accepted"),
        ("FAIL", "PT = 00000000000000000000000000000000", "ring: sealed to other bytes"),
        ("FAIL", "", "malformed: a line is missing"),
        ("FAIL", "FAIL\nPT =", "malformed: both PT and FAIL"),
        ("IV = 4733", "IV = 473", "malformed: not hexadecimal"),
        ("IV = 4733", "IV = 47", "malformed: not as long as the section declares"),
        ("PT = 7789", "PT = 7789\nPT = 77", "malformed: a line that occurs twice"),
        ("PT = 7789", "Salt = 00\nPT = 7789", "malformed: a line that is not understood"),
    ] {
        let text = RSP.replacen(from, to, 1);
        assert_ne!(text, RSP);
        let (ok, report) = only("gcmDecrypt256.rsp", text.as_bytes());
        assert!(!ok, "{from} as {to}");
        assert_eq!(report["failed"], 1, "{from} as {to}: {report}");
        assert_eq!(report["failures"][0]["reason"], reason, "{from} as {to}");
    }
    for text in ["", "# only a comment\n", "[Salt = 96]\n", "[L = 32]\nLen = 0\nMsg = 00\n"] {
        assert_eq!(only("other.rsp", text.as_bytes()).1["reason"], "unknown format", "{text:?}");
    }
    assert_eq!(only("other.rsp", b"[Keylen = \xff]").1["status"], "unreadable");
}
