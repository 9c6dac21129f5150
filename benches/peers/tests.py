#!/usr/bin/env python3
"""Tests of what run.py writes, from results that are made up: no peer is installed, nothing is measured. Prints `N passed, M failed`."""

import json
import subprocess
import sys
import tempfile
import tomllib
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import chart
import figures
import run
import table

HERE = Path(__file__).resolve().parent
ROUNDS = 11


def peer(seal, size, per_value=0, note="", works=("one", "column", "large", "threads", "handle")):
    """A peer that takes `seal` ns in the first round and a ns more in each one after it."""
    times = [{"seal": seal + number, "open": 2.0 * (seal + number)} for number in range(ROUNDS)]
    rounds = {"one": times, "column": [one | {"bytes": size} for one in times], "large": times, "cold": [{"cpu": 5e6, "wall": 7e6}] * ROUNDS,
              "threads": [{"gain": 1.5, "cpu": 1.0}] * ROUNDS, "handle": [{"cpu": 2e6}] * ROUNDS}
    return {
        "setting": "its only one", "source": "https://example.org/", "binds": "row", "kms_is": "counted in the process", "note": note,
        "versions": {"package": "1.0"}, "works": list(works), "rounds": {work: rounds[work] for work in [*works, "cold"]},
        "calls": {str(count): {"seal": 1 + per_value * count, "open": 1} for count in (100, 1_000)}, "memory": [{"before": 3e7, "peak": 4e7}],
    }


def found():
    peers = {"keyfold": peer(200, 83), "bare": peer(100, 44, note="has no key ID"), "slow": peer(4_000, 120, per_value=1),
             "pages": peer(20, 16.1, works=("column", "handle"))}
    rust = {"rust/keyfold": peer(160, 83), "rust/ring": peer(180, 44)}
    for one in rust.values():
        one |= {"calls": {}, "memory": [], "rounds": {work: one["rounds"][work] for work in ("one", "column", "large", "threads")}}
    return {
        "date": "2026-11-26 12:00 UTC", "machine": {"processor": "P", "cores": 2, "system": "S", "python": "3.11"}, "load": [0.1, 0.2],
        "wheel": {"name": "keyfold.whl", "sha256": "ab" * 32, "how": "built with --release"}, "minutes": 20.5, "quick": False, "seed": 1, "rounds": ROUNDS, "rows": 10,
        "peers": peers | rust, "skipped": {"gone": "pip: no such package"}, "two_processes": {"python": [1.9] * ROUNDS},
    }


class Figures(unittest.TestCase):
    def test_spread_is_that_of_the_benches_in_rust(self):
        self.assertEqual(figures.spread(range(101)), (50, 5, 95))
        self.assertEqual(figures.spread([3.0]), (3.0, 3.0, 3.0))

    def test_ratios_are_of_the_same_round(self):
        self.assertEqual(figures.ratio_of(found(), "bare", "column-seal")[1], 100 / 200)
        self.assertEqual(figures.ratio_of(found(), "rust/ring", "column-seal")[2], (180 + 1) / (160 + 1))

    def test_calls_are_a_line_to_a_million(self):
        self.assertEqual(figures.calls_of(found(), "slow", "seal"), 1_000_001)
        self.assertEqual(figures.calls_of(found(), "slow", "open"), 1)
        self.assertIsNone(figures.calls_of(found(), "rust/ring", "seal"))

    def test_who_is_ahead_is_computed(self):
        better = {(name, words) for name, words, _ in figures.ahead(found())}
        self.assertIn(("bare", "sealing a column"), better)
        self.assertIn(("pages", "bytes per value"), better)
        self.assertNotIn("slow", {name for name, _ in better})
        self.assertEqual({words for name, words in better if name == "rust/ring"}, {"bytes per value"})

    def test_numbers_have_three_digits(self):
        self.assertEqual([figures.number(it) for it in (0.123, 0.997, 12.34, 123.4, 999.7, 158_321.0)], ["0.12", "0.997", "12.3", "123", "1,000", "158,000"])


class Written(unittest.TestCase):
    def test_table_says_machine_spread_exceptions_and_what_was_skipped(self):
        text = table.table(found())
        for part in ("2 cores", "11 rounds", "20.5 minutes", "abababababababab", "105; ×", "**205**", "has no key ID", "Skipped: 1",
                     "gone: pip: no such package", "a second *process* of `cryptography` gained 1.9", "1,000,001", "package 1.0"):
            self.assertIn(part, text)
        self.assertNotIn("numbers mean nothing", text)
        self.assertIn("numbers mean nothing", table.table(found() | {"quick": True}))

    def test_charts_are_xml_and_the_same_every_time(self):
        charts = chart.charts(found())
        self.assertEqual(sorted(charts), ["bytes.svg", "column-rust.svg", "column.svg", "kms.svg", "one-rust.svg", "one.svg"])
        for text in charts.values():
            ElementTree.fromstring(text)
        self.assertEqual(charts, chart.charts(json.loads(json.dumps(found()))))
        self.assertIn("pages: seal 25 ns", charts["column.svg"])

    def test_render_writes_the_same_again(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "results.json"
            file.write_text(json.dumps(found()))
            subprocess.run([sys.executable, HERE / "run.py", "--render", file], check=True, capture_output=True)
            self.assertEqual((Path(folder) / "table.md").read_text(), table.table(found()))


class Peers(unittest.TestCase):
    def test_every_peer_is_listed_and_says_what_it_needs_at_which_version(self):
        files = {file.stem for file in (HERE / "peers").glob("*.py")} - {"__init__"}
        self.assertEqual(files, set(run.PYTHON))
        pinned = {line.partition("==")[0] for line in (HERE / "constraints.txt").read_text().splitlines() if "==" in line}
        for name in run.PYTHON:
            packages = run.declared(name)["packages"]
            self.assertTrue(packages, name)
            self.assertLessEqual(set(packages) - {"keyfold"}, pinned, name)


class Rust(unittest.TestCase):
    def test_its_lock_file_has_what_the_crates_of_the_workspace_need(self):
        """Cargo would refuse `--locked`, in the middle of a run that takes half an hour."""
        root = HERE.parent.parent
        paths = {crate["name"]: file.parent for file in root.glob("*/Cargo.toml") if (crate := tomllib.loads(file.read_text()).get("package"))}
        locked = {one["name"]: one for one in tomllib.loads((HERE / "rust" / "Cargo.lock").read_text())["package"]}
        seen = set(paths) & set(locked)
        self.assertIn("keyfold", seen)
        for name in seen:
            needs = tomllib.loads((paths[name] / "Cargo.toml").read_text()).get("dependencies", {})
            needs = {need for need, how in needs.items() if not (isinstance(how, dict) and how.get("optional"))}
            has = {one.partition(" ")[0] for one in locked[name].get("dependencies", [])}
            self.assertEqual(needs - has, set(), f"{name}: run `cargo update --workspace` in benches/peers/rust")


def main():
    result = unittest.TextTestRunner(verbosity=1).run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__]))
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
