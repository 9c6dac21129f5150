"""Runs the test vectors with decoder.py: every case must come to exactly the result that it names."""
import json
import pathlib

import bundle
import decoder
import document
import json_document
import lookup
import stream


def run(folder):
    folder, count = pathlib.Path(folder), 0
    ring = json.loads((folder / "keyring.json").read_text())
    records = {bytes.fromhex(key["key_id"]): bytes.fromhex(key["record"]) for key in ring["cases"]}
    for file in ["field", "deterministic", "value", "text", "record", "frame"]:
        for count, case in enumerate(json.loads((folder / f"{file}.json").read_text())["cases"], count + 1):
            served = {bytes.fromhex(case["asked"]): bytes.fromhex(case["record"])} if "asked" in case else {}
            stated, missing = ring | case, {bytes.fromhex(key_id) for key_id in case.get("missing", [])}
            try:
                value = decoder.from_text(case["text"]) if "text" in case else bytes.fromhex(case["sealed"])
                kept = {key_id: record for key_id, record in (records | served).items() if key_id not in missing}
                keyring = decoder.Keyring(stated, stated["keks"], kept)
                name, canonical = keyring.open(value, **case["open"])
                found = "ok" if (name, canonical.hex()) == (case["type"], case["value"]) else "another value"
            except decoder.Refused as refused:
                found = str(refused)
            assert found == case["expect"], f"{case['id']} ({case['note']}): {found}, expected {case['expect']}"
    count += bundle.run(json.loads((folder / "bundle.json").read_text())["cases"])
    keyring = decoder.Keyring(ring, ring["keks"], records)
    count += document.run(keyring, json.loads((folder / "document.json").read_text())["cases"])
    count += json_document.run(keyring, json.loads((folder / "document-json.json").read_text()))
    count += stream.run(lambda case: decoder.Keyring(ring | case, ring["keks"], records), json.loads((folder / "stream.json").read_text())["cases"])
    lookups = [json.loads((folder / f"{file}.json").read_text())["cases"] for file in ("index", "fpe", "token")]
    count += lookup.run(decoder.Keyring(ring, ring["keks"], records), ring["lookup"], *lookups)
    print(f"{count} vectors pass")
