#!/usr/bin/env python3
"""Writes the golden files of a version: testvectors/golden/make.py VERSION KEYFOLD DEVICE, with the command of that version, and with
tools/languages/device.c, compiled with the library for devices of that version.

What it has written is read for ever by check.py, and never written again: a version that is there is refused. All data is made
up here, and every key is published with it.
"""

import argparse
import base64
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PASSPHRASE = "published with the golden files"
# Options that bind what is sealed after the rotations to a tenant.
TENANT = ["--scope", "clinic-17", "--context", "tenant=clinic-17"]

# Of each file the policy by which it is sealed.
POLICIES = {
    # Each mode that a column has: randomized, deterministic, with its format kept, as a token; and two indexes.
    "patients": """\
version = 1
rows = 1000000
[fields."patient.id"]
mode = "deterministic"
join_group = "patient"
type = "text"
columns = ["id"]
paths = ["$.id"]
[fields."patient.reference"]
mode = "deterministic"
join_group = "patient"
type = "text"
keep_prefix = "Patient/"
columns = ["reference"]
paths = ["$.subject.reference"]
[fields."patient.name"]
row_binding = { column = "id", path = "$.id" }
columns = ["name"]
paths = ["$.name"]
[fields."patient.name".index.start]
kind = "prefix"
length = [3]
bits = 8
column = "name_start"
[fields."patient.ssn"]
row_binding = { column = "id", path = "$.id" }
padding = "padme"
columns = ["ssn"]
paths = ["$.ssn"]
[fields."patient.ssn".index.digits]
kind = "digits"
bits = 256
unique = true
column = "ssn_digits"
[fields."patient.mrn"]
mode = "format-preserving"
format = "digits"
partition = "study"
columns = ["mrn"]
paths = ["$.mrn"]
[fields."patient.code"]
mode = "token"
partition = "study"
columns = ["code"]
paths = ["$.code"]
""",
    # Each type that a value has in clear.
    "types": "version = 1\n" + "".join(
        f'[fields."type.{kind}"]\ntype = "{kind}"\ncolumns = ["{kind}"]\n{padding}'
        for kind, padding in {
            "bytes": "", "text": "padding = 64\n", "integer": "", "decimal": "", "float": "padding = 16\n", "boolean": "", "date": "", "timestamp": "", "json": "padding = \"padme\"\n",
        }.items()),
    # Documents: a header as a member, and a FHIR extension, with a manifest and without.
    "documents": """\
version = 1
[documents.patient]
row_binding = "$.id"
header = "fhir-extension"
only_if = { "$.resourceType" = "Patient" }
[documents.observation]
row_binding = "none"
manifest = "none"
only_if = { "$.resourceType" = "Observation" }
[documents.bundle]
root = "$.entry[*].resource"
row_binding = "$.id"
only_if = { "$.resourceType" = "Bundle" }
[documents."around a bundle"]
row_binding = "none"
only_if = { "$.resourceType" = "Bundle" }
[fields."Patient.id"]
mode = "deterministic"
type = "text"
keep_prefix = "Patient/"
optional = true
paths = ["$.id", "$.subject.reference"]
[fields."Patient.name"]
mode = "document"
optional = true
paths = ["$.name[*].family", "$.name[*].given[*]"]
[fields."Patient.birthDate"]
mode = "document"
type = "date"
optional = true
padding = 16
paths = ["$.birthDate"]
[fields."Observation.value"]
mode = "document"
optional = true
paths = ["$.valueQuantity"]
""",
    "messages": """\
version = 1
[hl7]
versions = ["2.5.1"]
clear = ["MSH", "EVN-1", "PID-1", "PID-3.4", "PID-3.5", "PID-8", "OBX-1", "OBX-2", "OBX-3", "OBX-6", "OBX-11"]
[fields."hl7.patient"]
mode = "deterministic"
type = "text"
segments = ["PID-3.1"]
[fields."hl7.name"]
row_binding = { segment = "PID-3.1" }
segments = ["PID-5"]
[fields."hl7.born"]
row_binding = { segment = "PID-3.1" }
segments = ["PID-7"]
[fields."hl7.result"]
row_binding = { segments = ["PID-3.1", "OBX"] }
segments = ["OBX-5"]
""",
    "streams": """\
version = 1
[fields."patient.image"]
mode = "stream"
[fields."patient.scan"]
mode = "stream"
row_binding = "id"
""",
    "device": """\
version = 1
[fields.value]
row_binding = { column = "row" }
columns = ["value"]
""",
}
READINGS = [("r-1", "98.6"), ("r-2", ""), ("r-3", "SpO₂ 97 %"), ("r-4", "x" * 300)]
PATIENTS = [
    ("p-17", "Zoë Müller-Łukasz", "999-81-5679", "123-4567", "C-0001"),
    ("p-18", 'O\'Brien "Bo", von', "999-44-7125", "765-4321", "C-0002"),
    ("p-19", "李小龍", "999-00-0001", "000-0000", ""),
]
DOCUMENTS = [
    {"resourceType": "Patient", "id": "p-17", "name": [{"family": "Müller", "given": ["Zoë", "Ada"]}], "birthDate": "1949-11-14", "extension": [{"url": "urn:example", "valueInteger": 1}]},
    {"resourceType": "Observation", "subject": {"reference": "Patient/p-17"}, "valueQuantity": {"value": 6.50, "unit": "%"}},
    {"resourceType": "Bundle", "entry": [{"resource": {"id": "p-18", "name": [{"family": "O'Brien \\ \"Bo\""}]}}, {"resource": {"id": "p-19", "name": [{"family": "李"}], "birthDate": "2000-02-29"}}]},
]
TYPES = [
    ("bytes", "text", "integer", "decimal", "float", "boolean", "date", "timestamp", "json"),
    ("b", "é🙂", "0", "1.50", "6.5", "true", "2026-11-27", "2026-11-27T08:00:00Z", '"{""a"":[1,2.0e3,null]}"'),
    ("", "", "-129", "-0", "-0", "false", "0000-01-01", "1969-12-31T23:59:59.000000001Z", '"""x"""'),
    ("longer bytes", "a", "170141183460469231731687303715884105727", "1e400", "NaN", "true", "9999-12-31", "9999-12-31T23:59:59.5Z", "null"),
]
MESSAGE = "\r".join([
    r"MSH|^~\&|REGISTER|HILLSIDE|EHR|HILLSIDE|20260314091500||ORU^R01^ORU_R01|R00417|P|2.5.1||||||UNICODE UTF-8",
    r"PID|1||MRN-500417^^^HILLSIDE^MR||Järvinen^Maribel^Q\T\R||19510622|F",
    r"OBX|1|NM|4548-4^HbA1c^LN||6.5|%|||||F",
    r"OBX|2|TX|8251-1^Note^LN||Fell at \.br\ the farm~twice||||||F",
]) + "\r"
TOKENS = """
CREATE TABLE keyfold_tokens (
    field TEXT NOT NULL,
    partition TEXT NOT NULL,
    token TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL,
    proof BLOB NOT NULL,
    UNIQUE (field, partition, value)
)
"""


def noise(name, length):
    """The same bytes every time."""
    return hashlib.shake_128(f"keyfold golden {name}".encode()).digest(length)


def write_clear(folder):
    """What is sealed."""
    (folder / "clear" / "folder" / "below").mkdir(parents=True)
    quoted = ['"' + name.replace('"', '""') + '"' for _, name, *_ in PATIENTS]
    rows = [f"{id},Patient/{id},{name},{ssn},{mrn},{code},in clear" for (id, _, ssn, mrn, code), name in zip(PATIENTS, quoted)]
    lines = [{"id": id, "subject": {"reference": f"Patient/{id}"}, "name": name, "ssn": ssn, "mrn": mrn, "code": code, "n": 1.50} for id, name, ssn, mrn, code in PATIENTS]
    files = {
        "patients.csv": "id,reference,name,ssn,mrn,code,other\r\n" + "".join(f"{row}\r\n" for row in rows),
        "patients.ndjson": "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
        "types.csv": "".join(",".join(cells) + "\n" for cells in TYPES),
        "documents.ndjson": "".join(json.dumps(document, ensure_ascii=False, separators=(" ,", ": ")) + "\n" for document in DOCUMENTS),
        "messages.hl7": MESSAGE,
        "scan.row": "p-17\n",
        "device.csv": "row,value\n" + "".join(f"{row},{value}\n" for row, value in READINGS),
    }
    for name, text in files.items():
        (folder / "clear" / name).write_bytes(text.encode())
    # With a full chunk; the vectors have every length at which one ends.
    for name, length in {"image.bin": 16384 + 1, "scan.bin": 100, "folder/empty.bin": 0, "folder/below/one.bin": 1}.items():
        (folder / "clear" / name).write_bytes(noise(name, length))
    for name, text in POLICIES.items():
        (folder / "policies" / f"{name}.toml").write_text(text)


class Maker:
    def __init__(self, keyfold, device, folder):
        self.keyfold, self.device, self.folder, self.files, self.lost = keyfold, device, folder, [], []

    def run(self, *arguments):
        done = subprocess.run([str(self.keyfold), *map(str, arguments)], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"keyfold {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def seal(self, into, options):
        (self.folder / into).mkdir()
        streams = ["--policy", "policies/streams.toml", "--stream"]
        # Lists of columns, or members at the top, that are the same whenever and by whatever version they are sealed again.
        steady = ["id", "reference", "mrn", "code", "ssn_digits", "name_start"]
        for name, own, same in [
            ("patients.csv", ["--policy", "policies/patients.toml", "--tokens", "sqlite:tokens.db"], steady),
            ("patients.ndjson", ["--policy", "policies/patients.toml", "--tokens", "sqlite:tokens.db"], [one for one in steady if one != "reference"]),
            ("types.csv", ["--policy", "policies/types.toml"], []),
            ("documents.ndjson", ["--policy", "policies/documents.toml"], []),
            ("messages.hl7", ["--policy", "policies/messages.toml"], []),
            ("image.bin", [*streams, "patient.image"], []),
            ("scan.bin", [*streams, "patient.scan", "--row-file", "clear/scan.row"], []),
            ("folder", [*streams, "patient.scan"], []),
        ]:
            # Once is enough of what is large.
            if name == "image.bin" and into != "first":
                continue
            self.files.append({"clear": f"clear/{name}", "sealed": f"{into}/{name}", "options": [*own, *options], "steady": same})
            self.run("protect", "--config", "ring/keyfold.toml", *own, *options, f"clear/{name}", "--output", f"{into}/{name}")

    def seal_on_device(self, bundle, transport_key):
        """What a device sends, in text form: two values with random nonces, and two with counted ones."""
        lines = "".join(f"{row.encode().hex()}\t{value.encode().hex()}\n" for row, value in READINGS)
        done = subprocess.run([self.device, "seal", bundle, transport_key, "device/slots"], cwd=self.folder, input=lines, capture_output=True, text=True, check=True)
        sealed = [bytes.fromhex(line) for line in done.stdout.splitlines()]
        texts = [f"kf1.{one[1:6].hex()}.{base64.urlsafe_b64encode(one[6:]).decode().rstrip('=')}" for one in sealed]
        (self.folder / "device" / "sealed.csv").write_text("row,value\n" + "".join(f"{row},{text}\n" for (row, _), text in zip(READINGS, texts, strict=True)))
        self.files.append({"clear": "clear/device.csv", "sealed": "device/sealed.csv",
                           "options": ["--policy", "policies/device.toml", "--scope", "pump-1", "--context", "tenant=t1"], "steady": []})

    def seal_and_lose(self, ring):
        """What must never open again: under a key that was destroyed, with its certificate, and under one that is compromised."""
        (self.folder / "lost").mkdir()
        for scope in ("shredded", "revoked"):
            options = ["--policy", "policies/types.toml", "--scope", scope]
            self.run("protect", *ring, *options, "clear/types.csv", "--output", f"lost/{scope}.csv")
            self.lost.append({"sealed": f"lost/{scope}.csv", "options": options})
        self.run("keys", "shred", *ring, "--scope", "shredded", "--reason", "golden")
        self.run("keys", "shred", *ring, "--scope", "shredded", "--finish", "--yes", "--certificate", "lost/shredded.certificate")
        self.run("device", "revoke", *ring, "revoked", "--yes", "--reason", "golden")

    def make(self):
        ring = ["--config", "ring/keyfold.toml"]
        for name in ("policies", "ring", "device"):
            (self.folder / name).mkdir()
        write_clear(self.folder)
        for name in ("root", "audit"):
            self.run("keys", "new-kek", f"ring/published-test-{name}.kek")
        passphrase = self.folder / "ring" / "published-test-passphrase"
        passphrase.write_text(PASSPHRASE + "\n")
        passphrase.chmod(0o600)
        phrase = ["--passphrase-file", "ring/published-test-passphrase"]
        self.run("keys", "new-kek", "ring/by-passphrase.kek", "--passphrase", "--memory", 19, *phrase)
        self.run("init", "ring", "--kek", "published=local:published-test-root.kek", "--kek", "recovery=passphrase:by-passphrase.kek", *phrase, "--environment", "golden")
        config = self.folder / "ring" / "keyfold.toml"
        text = config.read_text().replace("[store]\n", '[store]\njournal = "file:keys.journal"\n')
        # Keys are rotated by hand: what a test does must not hang on the year.
        config.write_text(text.replace("[keks.recovery]\n", '[keks.recovery]\nuse = "recovery"\n') + """
[shred]
waiting = "none"
backups = ["tapes"]

[rotation]
data_age = "never"
root_age = "never"

[audit]
file = "audit.log"
kek = "audit"
anchors = "audit.anchors"

[keks.audit]
uri = "local:published-test-audit.kek"
wraps = "audit"
""")
        self.run("keys", "journal", *ring)
        section = self.run("keys", "partition", *ring, "study")
        config.write_text(config.read_text() + "\n" + section)
        table = sqlite3.connect(self.folder / "tokens.db")
        table.execute(TOKENS)
        table.close()
        self.seal("first", [])
        # Two generations of data keys, and of roots, of which the first is pinned and endorses the second.
        self.run("keys", "rotate", *ring)
        self.run("keys", "rotate", *ring, "--root", *phrase)
        self.run("keys", "rotate", *ring)
        self.seal("second", TENANT)
        self.run("device", "transport-key", "--output", "device/published-test-transport.key")
        self.run("device", "provision", *ring, "pump-1", "--transport-key", "device/published-test-transport.key", "--output", "device/by-key.bundle")
        self.seal_on_device("device/by-key.bundle", "device/published-test-transport.key")
        self.run("device", "provision", *ring, "pump-1", "--device-passphrase-file", "ring/published-test-passphrase", "--memory", 19,
                 "--output", "device/by-passphrase.bundle")
        self.run("reencrypt", *ring, "--policy", "policies/types.toml", "first/types.csv", "--output", "second/again.csv", "--statement", "second/again.statement")
        self.files.append({"clear": "clear/types.csv", "sealed": "second/again.csv", "options": ["--policy", "policies/types.toml"], "steady": []})
        self.seal_and_lose(ring)
        self.run("keys", "backup", *ring, "keys.backup")
        self.run("audit", "verify", *ring)
        keys, census = (
            [json.loads(line) for line in self.run(*command, "--json").splitlines()]
            for command in [("keys", "list", *ring), ("census", "first/patients.csv", "second/patients.csv")]
        )
        return {"files": self.files, "lost": self.lost, "keys": keys, "census": census}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("keyfold", type=Path, help="the command of that version")
    parser.add_argument("device", type=Path, help="device.c of that version, compiled")
    options = parser.parse_args()
    keyfold, golden = options.keyfold.resolve(), HERE / options.version
    said = subprocess.run([keyfold, "--version"], capture_output=True, text=True, check=True).stdout
    if options.version not in (number := said.split()[1], number.rpartition(".")[0]):
        sys.exit(f"{options.keyfold} is of another version: {said.strip()}")
    if golden.exists():
        sys.exit(f"{golden} is there: golden files are never written again")
    # Certificates and statements name the paths of files, which are nobody's business.
    folder = Path(tempfile.gettempdir(), "keyfold-golden")
    folder.mkdir(mode=0o700)
    try:
        made = Maker(keyfold, options.device.resolve(), folder).make()
        (folder / "made.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        sums = "".join(f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n" for file in files)
        (folder / "SHA256SUMS").write_text(sums)
        shutil.copytree(folder, golden)
    finally:
        shutil.rmtree(folder)
    total = sum((golden / file).stat().st_size for file in files)
    print(f"{len(files)} files, {total} bytes. Add to SUMS of check.py:\n    \"{options.version}\": \"{hashlib.sha256(sums.encode()).hexdigest()}\",")


if __name__ == "__main__":
    main()
