#!/usr/bin/env python3
"""Writes docs/CONTROLS.md, for reviewers: where each question is answered, and the control map of `keyfold report` (report/src/controls.toml) by clause.

    controls.py            writes it
    controls.py --check    fails if it is not what the map says
"""

import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAP = "report/src/controls.toml"
PAGE = "docs/CONTROLS.md"
HEAD = f"""\
# For reviewers: HIPAA, FDA, SOC 2, IEC 62304, NIST

Made by `python3 tools/controls.py` from [{MAP}](../{MAP}). In our own words, and no legal advice: Keyfold *supports* clauses; whether they are met is for the
customer and an auditor to say. [`keyfold report`](REPORT.md) prints the same map with the settings of an installation and what was measured there.

## Where each question is answered

| question | where |
|---|---|
| what is encrypted, with which key | `keyfold report`, "Encryption of each service and field" and "Key inventory" ([REPORT.md](REPORT.md#what-is-in-it)); `keyfold census FILE`: under which keys the values of a file are |
| who used a key, and when | `keyfold report`, "Use of keys"; event by event: [AUDIT.md](AUDIT.md#who-used-a-key) |
| when a key was made, rotated, destroyed, and by whom | `keyfold report`, "Rotation and drill history"; `keyfold keys list` |
| whether the trail is what was written | `keyfold audit verify` ([AUDIT.md](AUDIT.md)) |
| what is *not* protected | [THREAT-MODEL.md](THREAT-MODEL.md), [LIMITS.md](LIMITS.md) |
| the key management procedure, and what to do when something leaks, is lost, or somebody leaves | [KEY-MANAGEMENT.md](KEY-MANAGEMENT.md), [runbooks](runbooks/README.md); each command of them is run by `./test runbooks` |
| algorithms, modes, and FIPS 140 | [FORMAT.md](FORMAT.md), [FIPS.md](FIPS.md) |
| Keyfold as software of unknown provenance; bill of materials; how a release is made and verified; how flaws are reported | [SOUP.md](SOUP.md), [RELEASE.md](RELEASE.md), [SECURITY.md](../SECURITY.md) |
| what was tested, how, and with what figures | [GATES.md](GATES.md), [FAILURE-MATRIX.md](FAILURE-MATRIX.md), [TRACE.md](TRACE.md), [PERFORMANCE.md](PERFORMANCE.md) |

## Clause by clause

Commands print the evidence, or are how it is done; tests show that the mechanism works, and are run by `./test`.
"""


def cell(text):
    return text.replace("|", "\\|")


def page():
    controls = tomllib.loads((ROOT / MAP).read_text())["control"]
    sources = defaultdict(list)
    for control in controls:
        sources[control["source"]].append(control)
    lines = [HEAD]
    for source, rows in sources.items():
        lines += [f"### {source}", "", "| clause | asks | commands | tests | what remains with the customer |", "|---|---|---|---|---|"]
        for row in rows:
            clause = row["clause"] + (f" ({row['kind']})" if row.get("kind") else "")
            commands, tests = (", ".join(f"`{name}`" for name in row.get(names, [])) for names in ("commands", "tests"))
            lines.append(f"| {' | '.join(map(cell, (clause, row['asks'], commands, tests, row['customer'])))} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main():
    text = page()
    if sys.argv[1:] == ["--check"]:
        if (ROOT / PAGE).read_text() != text:
            sys.exit(f"{PAGE} is not what {MAP} says: run python3 tools/controls.py")
        print(f"{PAGE}: {text.count('::')} tests named")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        (ROOT / PAGE).write_text(text)


if __name__ == "__main__":
    main()
