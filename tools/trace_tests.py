#!/usr/bin/env python3
"""Tests of trace.py: a small project that is traced, and each way in which one is not. Prints `N passed, M failed`."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

import trace

FORMAT = """
# Format

MUST is used as in RFC 2119.

## 1. Bytes

A reader MUST refuse
another magic [F-1-1]. It MUST NOT panic [F-1-2]: never. A writer may
write more, and MUST stop at 9 [F-1-3, no test: nobody sees where it stops].

```
MUST is no requirement here [F-1-9].
```

1. The length is wrong: `Malformed` [F-1-4].
2. Nothing else.
"""
CONTRACT = "| attempts [KC-1] | 4 |\n"
CODE = """
// F-1-1, F-1-2.
fn read() {}
fn write() {} // F-1-3 and F-1-4
/// Waits. KC-1 says how often.
fn attempts() {}
"""
TESTS = """
/// Something else.
/// Covers F-1-1, F-1-2,
/// KC-1.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn it_reads() {}
"""
COVERS = '["F-1-4"]\nfield = ["the first * bytes"]\n'
CASES = [{"id": f"field-{number:03}", "note": note} for number, note in
         enumerate(["good", "the first 1 bytes", "the first 2 bytes", "another", "the first 30 bytes", "the first 4 bytes twice"], 1)]


class Traced(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for name, text in {
            "docs/FORMAT.md": FORMAT, "docs/KMS-CONTRACT.md": CONTRACT, "core/src/lib.rs": CODE, "core/tests/all.rs": TESTS,
            "testvectors/covers.toml": COVERS, "testvectors/field.json": json.dumps({"cases": CASES}),
        }.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def replace(self, name, old, new):
        text = (self.root / name).read_text()
        self.assertIn(old, text)
        self.write(name, text.replace(old, new))

    def trace(self):
        return trace.Trace(self.root)

    def assert_problems(self, *expected):
        found = self.trace().problems
        self.assertEqual(len(found), len(expected), found)
        for problem, words in zip(found, expected):
            self.assertIn(words, problem)

    def test_what_is_covered_has_no_problems(self):
        traced = self.trace()
        self.assertEqual(traced.problems, [])
        self.assertEqual(list(traced.requirements), ["F-1-1", "F-1-2", "F-1-3", "F-1-4", "KC-1"])
        self.assertEqual(traced.requirements["F-1-1"], ("docs/FORMAT.md", "1. Bytes", "A reader MUST refuse another magic"))
        self.assertEqual(traced.tests["KC-1"], {"core/tests/all.rs: `it_reads`"})
        self.assertEqual(traced.tests["F-1-4"], {"testvectors/field.json: 002–003, 005"})
        page = traced.page()
        self.assertIn("| F-1-3 | A writer may write more, and MUST stop at 9 | core/src/lib.rs | none: nobody sees where it stops |", page)
        self.assertIn("| KC-1 | attempts | core/src/lib.rs | core/tests/all.rs: `it_reads` |", page)

    def test_a_requirement_without_code(self):
        self.replace("core/src/lib.rs", "F-1-1, ", "")
        self.assert_problems("F-1-1 has no code")

    def test_a_requirement_without_a_test(self):
        self.replace("core/tests/all.rs", "KC-1", "it")
        self.assert_problems("KC-1 has no test")
        self.replace("docs/FORMAT.md", "F-1-3, no test: nobody sees where it stops", "F-1-3")
        self.assert_problems("F-1-3 has no test", "KC-1 has no test")

    def test_a_reason_that_is_none_any_more(self):
        self.replace("core/tests/all.rs", "KC-1", "KC-1, F-1-3")
        self.assert_problems("F-1-3 has a test and says that it has none")

    def test_an_identifier_that_is_not_defined(self):
        self.replace("core/src/lib.rs", "F-1-1", "F-1-1, F-1-9, F-1-10")
        self.replace("testvectors/covers.toml", "F-1-4", "F-7.6-4")
        self.assert_problems("F-1-4 has no test", "F-1-10, which core/src/lib.rs names", "F-1-9, which core", "F-7.6-4, which testvectors/field.json")

    def test_an_identifier_that_is_there_twice(self):
        self.replace("docs/KMS-CONTRACT.md", "| 4 |", "| 4 [KC-1] |")
        self.assert_problems("KC-1 is there twice")

    def test_a_sentence_with_must_and_no_identifier(self):
        self.replace("docs/FORMAT.md", "2. Nothing else.", "2. Nothing else. It MUST end.")
        self.assert_problems("docs/FORMAT.md:17: a sentence with MUST has no identifier: It MUST end.")
        self.replace("docs/FORMAT.md", "It MUST end.", "It MUST end [F-1-5].")
        self.assert_problems("F-1-5 has no code", "F-1-5 has no test")

    def test_what_follows_must_be_a_test(self):
        self.replace("core/tests/all.rs", "#[tokio::test(start_paused = true)]\n", "")
        self.assert_problems(*["no test follows"] * 3, *["has no test"] * 3)

    def test_a_test_that_does_not_say_that_it_covers(self):
        self.replace("core/tests/all.rs", "Covers", "Like")
        self.assert_problems(*["without saying that it is covered"] * 3, *["has no test"] * 3)

    def test_cases_that_are_not_there(self):
        self.replace("testvectors/covers.toml", ' bytes"]\n', ' bytes", "renamed"]\n')
        self.assert_problems("no case of field.json has the note 'renamed'")

    def test_other_texts_are_no_identifiers(self):
        self.write("core/src/other.rs", '// UTF-8, F19, PDF-1-9, F-, KC-9b, F-1-9-2\n')
        self.write("target/x.rs", "// F-9-9\n")
        self.assertEqual(self.trace().problems, [])

    def test_in_python(self):
        self.write("tools/tests/test_x.py", "# Covers F-1-1.\ndef test_it():\n    pass\n\n# Covers F-1-2.\nVALUE = 1\n")
        self.assert_problems("F-1-2 is said to be covered, but no test follows")
        self.assertIn("tools/tests/test_x.py: `test_it`", self.trace().tests["F-1-1"])


if __name__ == "__main__":
    result = unittest.TextTestRunner(stream=sys.stderr).run(unittest.defaultTestLoader.loadTestsFromTestCase(Traced))
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    sys.exit(bool(failed))
