"""Checks the Python decoder of FORMAT.md: it opens the vectors, the golden files and what the command wrote.

    check_decoder.py KEYFOLD       (in a Python that has the package `cryptography`)
"""

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testvectors"))
import bundle  # noqa: E402
import decoder  # noqa: E402
import stream  # noqa: E402

DECODER = ROOT / "testvectors" / "decoder.py"
POLICY = """
version = 1
[fields."patient.id"]
mode = "deterministic"
join_group = "patient"
columns = ["id"]
paths = ["$.id"]
[fields."device.patient"]
mode = "deterministic"
join_group = "patient"
keep_prefix = "Patient/"
columns = ["reference"]
paths = ["$.reference"]
[fields."patient.name"]
row_binding = { column = "id", path = "$.id" }
columns = ["name"]
paths = ["$.name"]
[fields."patient.born"]
type = "date"
padding = 16
optional = true
columns = ["born"]
[fields."patient.note"]
padding = "padme"
columns = ["note"]
paths = ["$.note"]
"""
ROWS = [["p-1", "Patient/p-1", "Zoë Müller", "1949-11-14", ""], ["p-2", "Patient/p-2", "李小龍", "2000-02-29", 'a "note", with\nlines']]
DOCUMENT = '{"id":"p-9","reference":"Patient/p-9","name":{"family":"Õ","given":["A"]},"note":-12.50}'


def run(*command, text=None):
    result = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}: {result.stderr}"
    return result.stdout


def decode(config, field, value, *options):
    lines = run(sys.executable, DECODER, "--config", config, "--field", field, *options, value).splitlines()
    return json.loads(lines[-1])


def decode_golden(version):
    """How many values of a version's golden files the decoder opens: a row of every type, a stream, the bundles."""
    ring, toml = ["--config", version / "ring" / "keyfold.toml"], tomllib.loads((version / "ring" / "keyfold.toml").read_text())
    rows = {name: list(csv.DictReader(open(version / name / "types.csv", newline=""))) for name in ("clear", "first", "second")}
    tenant = {"first": [], "second": ["--scope", "clinic-17", "--context", "tenant=clinic-17"]}
    count = 0
    for name, options in tenant.items():
        for kind, text in rows[name][0].items():
            lines = run(sys.executable, DECODER, *ring, "--field", f"type.{kind}", *options, text).splitlines()
            assert json.loads(lines[-1])["type"] == kind, f"{version.name}: {kind} is {lines[-1]}"
            if kind in ("text", "decimal", "date", "json"):
                assert json.loads(lines[-1])["value"] == rows["clear"][0][kind], f"{version.name}: {kind} is {lines[-1]}"
            count += 1
    keks = {alias: decoder.local_kek(version / "ring" / kek["uri"].removeprefix("local:")) for alias, kek in toml["keks"].items() if kek["uri"].startswith("local:")}
    records = sqlite3.connect(version / "ring" / "keys.db").execute("SELECT key_id, record FROM records")
    keyring, plain = decoder.Keyring(toml["keyring"] | {"lookup": toml["lookup"]}, keks, dict(records)), bytearray()
    stream.Stream(keyring, (version / "first" / "image.bin").read_bytes(), "patient.image").read(plain)
    assert plain == (version / "clear" / "image.bin").read_bytes(), f"{version.name}: the stream"
    device = version / "device"
    by_key, _ = bundle.open_bundle((device / "by-key.bundle").read_bytes(), (device / "published-test-transport.key").read_bytes())
    passphrase = (version / "ring" / "published-test-passphrase").read_text().strip()
    by_passphrase, _ = bundle.open_bundle((device / "by-passphrase.bundle").read_bytes(), passphrase=passphrase)
    assert by_key.opened == by_passphrase.opened, f"{version.name}: the bundles have one key"
    return count + 3


# Failure C23
def main():
    keyfold = sys.argv[1]
    code = [line for line in DECODER.read_text().splitlines() if line.strip()]
    assert len(code) < 230, f"the decoder has {len(code)} lines"
    lines = len(DECODER.read_text().splitlines())
    assert f"a decoder of {lines} lines of Python" in (ROOT / "README.md").read_text(), f"README.md: the decoder has {lines} lines"
    print(run(sys.executable, DECODER, "--vectors", ROOT / "testvectors").strip().splitlines()[-1])
    for version in sorted(path.parent for path in (ROOT / "testvectors" / "golden").glob("*/made.json")):
        # A copy, since SQLite writes beside a store.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(version, Path(folder) / version.name))
            print(f"the decoder opened {decode_golden(copy)} of the golden files of {version.name}")
    opened = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "policy.toml").write_text(POLICY)
        config = folder / "ring" / "keyfold.toml"
        run(keyfold, "init", folder / "ring")
        with open(folder / "in.csv", "w", newline="") as file:
            csv.writer(file).writerows([["id", "reference", "name", "born", "note"], *ROWS])
        (folder / "in.ndjson").write_text(DOCUMENT + "\n")
        # As made; after a rotation of the data key and of the root; in a scope, with a context.
        for step, options in enumerate([[], [], ["--scope", "clinic-17", "--context", "tenant=t1"]]):
            if step == 1:
                run(keyfold, "keys", "rotate", "--config", config)
                run(keyfold, "keys", "rotate", "--root", "--config", config)
                run(keyfold, "keys", "rotate", "--config", config)
            for name in ["in.csv", "in.ndjson"]:
                run(keyfold, "protect", "--config", config, "--policy", folder / "policy.toml", *options, folder / name,
                    "--output", folder / f"{step}-{name}")
            context = ["--context", "tenant=t1"] if options else []
            scope = options
            group = ["--join-group", "patient", *context]
            with open(folder / f"{step}-in.csv", newline="") as file:
                sealed = list(csv.reader(file))[1:]
            for (id, reference, name, born, note), plain in zip(sealed, ROWS):
                assert decode(config, "patient.id", id, *group) == {"type": "text", "value": plain[0]}
                assert reference == "Patient/" + id, "the reference joins with the ID"
                bound = [*scope, "--row", plain[0]]
                assert decode(config, "patient.name", name, *bound) == {"type": "text", "value": plain[2]}
                assert decode(config, "patient.born", born, *scope) == {"type": "date", "value": plain[3]}
                assert decode(config, "patient.note", note, *scope) == {"type": "text", "value": plain[4]}
                opened += 4
                refused = subprocess.run([sys.executable, DECODER, "--config", config, "--field", "patient.name", *scope, "--row", "p-x", name],
                                         capture_output=True)
                assert refused.returncode != 0, "the decoder opened a value of another row"
            document = json.loads((folder / f"{step}-in.ndjson").read_text())
            name = decode(config, "patient.name", document["name"], *scope, "--row", "p-9")
            assert name == {"type": "json", "value": '{"family":"Õ","given":["A"]}'}, name
            note = decode(config, "patient.note", document["note"], *scope)
            assert note == {"type": "decimal", "value": "-12.50"}, note
            opened += 2
    print(f"the decoder ({len(code)} lines) opened {opened} values that the command wrote")


main()
