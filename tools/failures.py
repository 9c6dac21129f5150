#!/usr/bin/env python3
"""The failure matrix, docs/FAILURE-MATRIX.md: what can fail (docs/failures.toml), and the tests that name it.

    python3 tools/failures.py                   writes the page
    python3 tools/failures.py --check           fails if it is not what the tests say, or a row has neither test nor reason
    python3 tools/failures.py --results FILE    prints the table with what became of each test in a run: ./test 2>&1 | tee FILE

A test names rows in a comment directly above it: `// Failure A1`, `# Failures A1, B2`, `/* Failure A1 */`.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "FAILURE-MATRIX.md"
MARK = re.compile(r"\s*(?://|#|/\*) Failures? ([A-Z]\d+(?:, [A-Z]\d+)*)(?: \*/)?$")
LOOSE = re.compile(r"(?://|#|/\*) Failures? [A-Z]\d")
FUNCTION = re.compile(r"\s*(?:pub )?(?:async )?(?:fn|def) (\w+)|static \w+ \*?(\w+)\(")
# What may stand between: attributes, decorators, comments.
BETWEEN = re.compile(r"\s*(?:#\[|@|//|#|/?\*)")
# Which step of ./test runs what is not a test in Rust.
STEPS = {
    "bindings-c/device/tests/": "device", "bindings-c/tests/": "c", "bindings-python/tests/": "python", "testvectors/golden/": "golden", "testvectors/": "decoder",
    "examples/gateway/": "gateway", "tools/check_decoder.py": "decoder", "tools/check_dependencies.py": "dependencies",
    "tools/interop.py": "interop", "tools/io_faults.py": "io_faults", "tools/languages/": "languages", "tools/sanitizers.py": "c_sanitizers", "tools/sbom.py": "sbom",
    "tools/check_deny.py": "deny", "tools/package_tests.py": "archives", "tools/release_tests.py": "release", "tools/reproducible.py": "reproducible",
    "tools/crates.py": "crates", "benches/side-channels/": "side_channels", "tools/portable.py": "portable",
