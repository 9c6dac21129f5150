#!/usr/bin/env python3
"""What did not run is said, and counts as skipped: by tests in Rust, by the steps of ./test and in the failure matrix. Prints `N passed, M failed`.

A test that cannot run here passes, as there is nothing else that it could do, and says why in a line that begins with SKIPPED. What it prints by
`println!` is kept by the test harness and thrown away where the test passes, so the line is written to the stream itself.
"""

import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import re
import subprocess
import sys
import unittest
from pathlib import Path

import failures

ROOT = Path(__file__).resolve().parent.parent
SWALLOWED = re.compile(r'\be?print(?:ln)?!\(\s*"[^"]*SKIPPED')


def swallowed(text):
    """The lines where something is said to be skipped in a way that nobody hears."""
    return [text.count("\n", 0, match.start()) + 1 for match in SWALLOWED.finditer(text)]


def load_test():
    """./test as a module."""
    loader = importlib.machinery.SourceFileLoader("keyfold_test", str(ROOT / "test"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Rust(unittest.TestCase):
    def test_what_is_skipped_is_said_past_the_harness(self):
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.rs"], cwd=ROOT, check=True, capture_output=True, text=True)
        # Benchmarks have no harness.
        paths = [path for path in sorted(listed.stdout.split()) if "/benches/" not in path and (ROOT / path).exists()]
        self.assertGreater(len(paths), 100)
        found = [f"{path}:{line}" for path in paths for line in swallowed((ROOT / path).read_text())]
        self.assertEqual(found, [], "println! is thrown away where a test passes")

    def test_each_form_is_found(self):
        for line in ['println!("SKIPPED: no disk")', 'return eprintln!("SKIPPED {name}");', 'print!(\n    "\\nSKIPPED: {why}"\n)', 'eprint!("  SKIPPED")']:
            self.assertEqual(swallowed(f"fn a() {{\n{line}"), [2], line)
        for line in ['writeln!(std::io::stdout(), "\\nSKIPPED: {why}")', 'println!("{keys} keys")', 'skip("no disk")']:
            self.assertEqual(swallowed(line), [], line)


class Steps(unittest.TestCase):
    """What ./test says of a step whose commands print and end so."""

    def outcome(self, *commands):
        test = load_test()
        result = {}

        def step(results, options):
            """A step."""
            for text, code in commands:
                test.run(results, sys.executable, "-c", f"print({text!r}); raise SystemExit({code})")
            result["results"] = results

        with contextlib.redirect_stdout(said := io.StringIO()):
            test.run_steps([step], argparse.Namespace(long=False))
        row, total = re.search(r"^step +[\d.]+ s  (\w+)", said.getvalue(), re.MULTILINE)[1], said.getvalue().splitlines()[-1]
        return row, total

    def check(self, expected, total, *commands):
        self.assertEqual(self.outcome(*commands), (expected, total), commands)

    def test_a_step_that_ran_nothing_is_skipped(self):
        self.check("skipped", "0 passed, 0 failed, 1 skipped", ("SKIPPED: no compiler", 79))
        self.check("skipped", "0 passed, 0 failed, 2 skipped", ("SKIPPED: no compiler", 79), ("SKIPPED: no emulator", 79))
        self.check("skipped", "0 passed, 0 failed, 1 skipped", ("SKIPPED: no emulator\n0 passed, 0 failed", 0))
        self.check("skipped", "0 passed, 0 failed, 1 skipped", ("SKIPPED: no compiler", 0))

    def test_a_step_that_ran_something_passes_and_names_the_rest(self):
        self.check("passed", "1 passed, 0 failed, 0 skipped", ("fine", 0))
        self.check("passed", "3 passed, 0 failed, 0 skipped", ("3 passed, 0 failed", 0))
        self.check("passed", "3 passed, 0 failed, 1 skipped", ("3 passed, 0 failed", 0), ("SKIPPED: no emulator", 79))
        self.check("passed", "2 passed, 0 failed, 1 skipped", ("SKIPPED: a part\n2 passed, 0 failed", 0))

    def test_what_ran_nothing_and_does_not_say_why_has_failed(self):
        self.check("FAILED", "0 passed, 1 failed, 0 skipped", ("", 79))
        self.check("FAILED", "0 passed, 1 failed, 0 skipped", ("0 passed, 0 failed", 0))
        self.check("FAILED", "0 passed, 1 failed, 0 skipped")

    def test_a_failure_is_one(self):
        self.check("FAILED", "0 passed, 1 failed, 1 skipped", ("SKIPPED: no compiler", 1))
        # libFuzzer ends with 77 where it has found something, and others where they ran nothing.
        self.check("FAILED", "0 passed, 1 failed, 1 skipped", ("SKIPPED: no compiler", 77))
        self.check("FAILED", "3 passed, 2 failed, 0 skipped", ("3 passed, 2 failed", 1))


LOG = """\
test keyring::a_keyring_on_an_overlay ... ok
test limits ... ok
test cold ... ignored

SKIPPED keyring::a_keyring_on_an_overlay: an overlay file system (no unshare)

=== What ran
fmt                1.0 s  passed
portable           1.0 s  passed
                          skipped: core on a big-endian machine
io_faults          0.0 s  skipped
                          skipped: takes minutes
device             9.0 s  passed
"""


class Matrix(unittest.TestCase):
    """What tools/failures.py makes of a run."""

    def outcome(self, path, name, step, long, log=LOG):
        return failures.Run(log).outcome(failures.Test(path, name, step, long))

    def test_what_did_not_run_is_not_passed(self):
        for name, expected in {"limits": "passed", "a_keyring_on_an_overlay": "skipped", "cold": "not run", "of_nobody": "not run"}.items():
            self.assertEqual(self.outcome("cli/tests/x.rs", name, "tests", False), expected, name)
        self.assertEqual(self.outcome("tools/io_faults.py", "system_calls", "io_faults", True), "skipped")
        self.assertEqual(self.outcome("bindings-c/device/tests/run.py", "host", "device", False), "passed")
        self.assertEqual(self.outcome("tools/sbom.py", "check", "sbom", False), "not run")

    def test_what_needs_long_did_not_run_without(self):
        of_portable = ("tools/portable.py", "main", "portable", True)
        self.assertEqual(self.outcome(*of_portable), "not run")
        long = LOG.replace("=== What ran", "=== What ran, with --long")
        self.assertEqual(self.outcome(*of_portable, log=long), "passed in part")

    def test_steps_that_only_long_runs_are_known(self):
        steps = failures.long_steps((ROOT / "test").read_text())
        self.assertTrue({"io_faults", "deny", "soak", "c_sanitizers", "coverage"} <= steps, steps)
        self.assertFalse({"portable", "device", "tests", "api"} & steps, steps)


if __name__ == "__main__":
    done = unittest.main(exit=False, warnings="ignore").result
    failed = len(done.failures) + len(done.errors)
    print(f"{done.testsRun - failed} passed, {failed} failed")
    sys.exit(bool(failed))
