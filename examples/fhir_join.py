#!/usr/bin/env python3
"""Seals the identifiers of a FHIR export of patients and devices, and joins devices to patients without opening either.

    python examples/fhir_join.py FOLDER      needs the wheel and pyarrow; makes FOLDER

Patients come from examples/patients.py; each has none, one or two made-up infusion pumps, of which some have a recall notice. The
question: which patients have a pump that is recalled? It is answered by a join of sealed identifiers, and only the telephone numbers of
those patients are opened.
"""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

import keyfold

PATIENTS = 50
POLICY = """
version = 1

[fields."patient.id"]                  # equal IDs give equal ciphertexts, in both tables: that is what joins them
mode = "deterministic"
type = "text"
identifier = "R"
columns = ["id"]

[fields."patient.name"]
identifier = "A"
row_binding = "id"
columns = ["name"]

[fields."patient.phone"]
identifier = "D"
row_binding = "id"
columns = ["phone"]

[fields."device.serial"]
identifier = "M"
row_binding = "device_id"
columns = ["serial"]
"""


def patients() -> list[dict]:
    """Patient resources, one per line of what the generator writes."""
    generator = Path(__file__).parent / "patients.py"
    command = [sys.executable, generator, "--rows", str(PATIENTS), "--format", "ndjson", "--output", "-"]
    written = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    return [json.loads(line) for line in written.stdout.splitlines()]


def phone_of(patient: dict) -> str | None:
    return patient["telecom"][0]["value"] if patient.get("telecom") else None


def devices(of: list[dict]) -> list[dict]:
    """Device resources that refer to patients."""
    made = []
    for number, patient in enumerate(of):
        for pump in range(number % 3):
            made.append({
                "resourceType": "Device", "id": f"dev-{number}-{pump}", "serialNumber": f"SN{7919 * (number + pump):08}",
                "patient": {"reference": f"Patient/{patient['id']}"},
                "safety": [{"text": "recalled"}] if (number + pump) % 8 == 0 else [],
            })
    return made


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/fhir_join.py FOLDER")
    folder = Path(sys.argv[1])
    try:
        config = keyfold.init(folder)
    except keyfold.StoreError as error:
        sys.exit(f"FOLDER is made anew each time: {error}")
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    exported = patients()
    made = devices(exported)

    with keyfold.Keyring.open(config, policies=[policy]) as ring:
        patient_id, name, phone = (ring.field(f"patient.{what}") for what in ("id", "name", "phone"))
        serial = ring.field("device.serial")

        # From here to the join, what is in the two tables is sealed, but for IDs of devices and recalls.
        ids = pa.array([patient["id"] for patient in exported])
        people = pa.table({
            "patient": patient_id.encrypt_column(ids),
            "name": name.encrypt_column(pa.array([patient["name"][0]["text"] for patient in exported]), rows=ids),
            "phone": phone.encrypt_column(pa.array([phone_of(patient) for patient in exported]), rows=ids),
        })
        device_ids = pa.array([device["id"] for device in made])
        references = [device["patient"]["reference"].removeprefix("Patient/") for device in made]
        pumps = pa.table({
            "device_id": device_ids,
            "serial": serial.encrypt_column(pa.array([device["serialNumber"] for device in made]), rows=device_ids),
            "patient": patient_id.encrypt_column(pa.array(references)),
            "recalled": [bool(device["safety"]) for device in made],
        })

        joined = pumps.filter(pc.field("recalled")).join(people, "patient", join_type="inner").combine_chunks()

        # The answer: whom to call. Their IDs are opened as well, since the numbers are bound to them.
        called = phone.decrypt_column(joined["phone"], rows=patient_id.decrypt_column(joined["patient"]))

    affected = {device["patient"]["reference"] for device in made if device["safety"]}
    expected = {phone_of(patient) for patient in exported if f"Patient/{patient['id']}" in affected}
    if set(called.to_pylist()) != expected:
        sys.exit("the join of sealed IDs does not find what one in clear does")
    print(f"{len(made)} devices, {joined.num_rows} of them recalled and joined to {len(affected)} of {len(exported)} patients")


if __name__ == "__main__":
    main()
