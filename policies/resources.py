#!/usr/bin/env python3
"""Writes made-up Patient, Device, Encounter and Observation resources, alone and in Bundles, and the list of what identifies somebody in them.

    python3 policies/resources.py            writes resources.ndjson and resources.identifiers beside this file
    python3 policies/resources.py --check    says whether both are what it writes

Every field of the policy fhir-r4.toml has a value in some resource. Nobody and nothing is real. The
same bytes on every machine: each draw is SHAKE128 of what it is for. Python 3, standard library only.
"""

import hashlib
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENTS = 6
DEFINITION = "http://hl7.org/fhir/StructureDefinition/"
GIVEN = ["Aurelio", "Zoë", "Łukasz", "Françoise", "さくら", "Иванна"]
FAMILY = ["Quillfeather", "Ångström-Vey", "O'Brambley", "Dvořáková", "見本山田", "Примерова"]
TOWNS = ["Exampleford", "Musterhausen", "Sainte-Épreuve", "Specimenton", "Parchment Falls", "Villa Muestra"]
# (LOINC, what it is, unit)
RESULTS = [("8867-4", "Heart rate", "/min"), ("4548-4", "Hemoglobin A1c", "%"), ("2339-0", "Glucose", "mg/dL"), ("30525-0", "Age", "a")]

planted = set()


def number(what, below):
    return int.from_bytes(hashlib.shake_128(what.encode()).digest(8), "big") % below


def uuid(what):
    digits = hashlib.shake_128(what.encode()).hexdigest(16)
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


def plant(value):
    """Remembers a value that must not be found in a protected file, as it is written in JSON."""
    planted.add(value if isinstance(value, str) else json.dumps(value))
    return value


def digits(what, count):
    value = f"{number(what, 10**count):0{count}}"
    # A short number may be part of a code by chance; what it stands in is planted.
    return plant(value) if count >= 5 else value


def moment(what, date_only=False):
    time = datetime(1990, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=number(what, 36 * 365 * 86_400))
    return plant(time.strftime("%Y-%m-%d") if date_only else time.strftime("%Y-%m-%dT%H:%M:%S+00:00"))


def period(what):
    return {"start": moment(what + "s"), "end": moment(what + "e")}


def reference(kind, name, display=None):
    value = {"reference": f"{kind}/{plant(uuid(name))}"}
    return value | ({"display": plant(display)} if display else {})


def common(kind, name):
    """What every resource has, with a narrative that repeats what is in it."""
    narrative = f"{kind} of {person(name[:2])['name']}, seed {digits(name + 'seed', 12)}"
    return {
        "resourceType": kind,
        "id": plant(uuid(name)),
        "meta": {
            "profile": [DEFINITION + kind], "lastUpdated": moment(name + "meta"),
            "source": plant("urn:node:" + uuid(name + "src")),
        },
        "text": {"status": "generated", "div": plant(f'<div xmlns="http://www.w3.org/1999/xhtml">{narrative}</div>')},
        "extension": [{"url": "http://example.org/seen-by", "valueString": plant(f"Dr. {FAMILY[number(name, 6)]} {digits(name + 'x', 6)}")}],
    }


def contained(name):
    """A resource inside of another one."""
    relative = plant(f"Cousin {FAMILY[number(name + 'r', 6)]} {digits(name + 'r', 6)}")
    return [{"resourceType": "RelatedPerson", "id": "r1", "name": [{"text": relative}]}]


def extension(name):
    """Of a primitive element."""
    return {"extension": [{"url": "http://example.org/original-text", "valueString": plant("As written: " + digits(name + "as", 9))}]}


def person(name):
    at = int(name[1:])
    given, family = GIVEN[at], FAMILY[at]
    planted.update([given, family])
    return {"given": given, "family": family, "name": plant(f"{given} {family}")}


def practitioner(name):
    return reference("Practitioner", name + "doc", f"Dr. {FAMILY[number(name + 'doc', 6)]} {digits(name + 'npi', 10)}")


def note(name, owner, text):
    return [{"authorString": plant(person(owner)["name"]), "time": moment(name + "note"), "text": plant(text)}]


def patient(name):
    who = person(name)
    birth = moment(name + "birth", date_only=True)
    latitude, longitude = (number(name + axis, 10**15) / 10**13 for axis in ("lat", "lon"))
    geolocation = [{"url": axis, "valueDecimal": plant(value)} for axis, value in (("latitude", latitude), ("longitude", longitude))]
    ssn = plant(f"9{number(name + 'a', 100):02}-{number(name + 'b', 100):02}-{number(name + 'c', 10000):04}")
    resource = common("Patient", name)
    resource["extension"] += [
        {"url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex", "valueCode": "F"},
        {"url": DEFINITION + "patient-mothersMaidenName", "valueString": plant(f"Née {FAMILY[(int(name[1:]) + 1) % 6]}-Oldname")},
        {"url": DEFINITION + "patient-birthPlace", "valueAddress": {"city": plant(TOWNS[number(name, 6)])}},
        {
            "url": "http://synthetichealth.github.io/synthea/disability-adjusted-life-years",
            "valueDecimal": plant(number(name + "daly", 10**12) / 10**11),
        },
    ]
    return resource | {
        "identifier": [
            {"system": "http://hl7.org/fhir/sid/us-ssn", "value": ssn},
            {"system": "http://hospital.smarthealthit.org", "value": plant("MRN-" + digits(name + "mrn", 9))},
            {"system": "urn:oid:2.16.840.1.113883.4.3.25", "value": plant("S" + digits(name + "dl", 8))},
            {"system": "http://standardhealthrecord.org/fhir/StructureDefinition/passportNumber", "value": plant("X" + digits(name + "pp", 8))},
            {"system": "http://example.org/health-plan", "value": plant("HP" + digits(name + "hp", 10)), "period": period(name + "hp")},
        ],
        "name": [{"use": "official", "family": who["family"], "given": [who["given"]], "text": who["name"], "period": period(name + "name")}],
        "telecom": [
            {"system": "phone", "value": plant(f"555-01{number(name + 'p', 100):02}-{digits(name + 'ext', 5)}")},
            {"system": "fax", "value": plant(f"555-01{number(name + 'f', 100):02}-{digits(name + 'fax', 5)}")},
            {"system": "email", "value": plant(f"{uuid(name)[:8]}@mail.example")},
            {"system": "url", "value": plant(f"https://home.example/~{uuid(name + 'u')[:8]}"), "period": period(name + "url")},
            {"system": "other", "value": plant(f"amateur radio {uuid(name + 'radio')[:8]}")},
        ],
        "gender": "female",
        "birthDate": birth,
        "_birthDate": {"extension": [{"url": DEFINITION + "patient-birthTime", "valueDateTime": moment(name + "time")}]},
        "address": [{
            "extension": [{"url": DEFINITION + "geolocation", "extension": geolocation}],
            "line": [plant(f"{number(name + 'h', 900) + 100} Specimen Lane {digits(name + 'apt', 4)}")],
            "city": plant(TOWNS[number(name + "t", 6)]), "district": plant("Inkwell County"), "state": "MA",
            "postalCode": digits(name + "zip", 5), "country": "US", "text": plant(f"c/o {FAMILY[number(name + 'co', 6)]}, {digits(name + 'apt', 4)}"),
            "period": period(name + "lived"),
        }],
        "contact": [{
            "name": {"text": plant(f"Guardian {FAMILY[number(name + 'g', 6)]}")},
            "telecom": [{"system": "phone", "value": plant("555-0199-" + digits(name + "g", 5))}],
        }],
        "photo": [{"contentType": "image/png", "data": plant("iVBORw0KGgo" + uuid(name + "photo").replace("-", ""))}],
        "deceasedDateTime": moment(name + "death"),
        # Not planted: a digit is anywhere. That it is sealed shows by its place.
        "multipleBirthInteger": 2,
        "link": [{"other": reference("Patient", f"p{(int(name[1:]) + 1) % PATIENTS}", "Twin " + digits(name + "twin", 9)), "type": "seealso"}],
        "contained": contained(name),
        "modifierExtension": [{"url": "http://example.org/was-known-as", "valueString": plant("Alias " + digits(name + "alias", 9))}],
        "generalPractitioner": [reference("Practitioner", name + "gp", f"Dr. {FAMILY[number(name + 'gp', 6)]}")],
    }


def device(name, owner):
    return common("Device", name) | {
        "identifier": [{"system": "http://example.org/assets", "value": plant("ASSET-" + digits(name + "a", 8)), "period": period(name + "a")}],
        "udiCarrier": [{
            "deviceIdentifier": digits(name + "di", 14),
            "carrierHRF": plant(f"(01){digits(name + 'di', 14)}(21){digits(name + 'sn', 10)}"), "_carrierHRF": extension(name + "hrf"),
        }],
        "status": "active", "distinctIdentifier": digits(name + "di", 14),
        "manufactureDate": moment(name + "made"), "expirationDate": moment(name + "expires"),
        "lotNumber": digits(name + "lot", 10), "serialNumber": digits(name + "sn", 10), "_serialNumber": extension(name + "sn"),
        "deviceName": [
            {"name": plant(f"{person(owner)['given']}'s pump {digits(name + 'n', 6)}"), "type": "patient-reported-name"},
            {"name": "Insulin pump", "type": "user-friendly-name"},
        ],
        "type": {"coding": [{"system": "http://snomed.info/sct", "code": "69805005", "display": "Insulin pump"}]},
        "version": [{"component": {"value": plant("BOARD-" + digits(name + "board", 8))}, "value": "2.1"}],
        "patient": reference("Patient", owner, person(owner)["name"]),
        "parent": reference("Device", name + "-hub", "Hub " + digits(name + "hub", 9)),
        "owner": reference("Organization", name + "own", f"Clinic of {TOWNS[number(name + 'own', 6)]}"),
        "location": reference("Location", name + "at", "Room " + digits(name + "room", 6)),
        "contact": [{"system": "phone", "value": plant("555-0142-" + digits(name + "contact", 5))}],
        "contained": contained(name),
        "url": plant(f"https://{uuid(name + 'net')[:8]}.device.example"),
        "note": note(name, owner, f"Picked up by {person(owner)['name']}, badge {digits(name + 'badge', 7)}"),
    }


def encounter(name, owner):
    return common("Encounter", name) | {
        "identifier": [{"use": "official", "value": plant("VISIT-" + digits(name + "v", 9)), "period": period(name + "v")}],
        "status": "finished", "_status": extension(name + "status"), "class": {"code": "AMB"}, "contained": contained(name),
        "statusHistory": [{"status": "arrived", "period": period(name + "sh")}],
        "type": [{"coding": [{"system": "http://snomed.info/sct", "code": "185349003"}], "text": "Check-up"}],
        "subject": reference("Patient", owner, person(owner)["name"]),
        "participant": [{
            "type": [{"text": "primary performer"}], "period": period(name + "part"),
            "individual": practitioner(name),
        }],
        "period": period(name + "when"), "length": {"value": 25, "unit": "min"},
        "reasonReference": [reference("Condition", name + "cond")],
        "hospitalization": {
            "preAdmissionIdentifier": {"value": plant("PRE-" + digits(name + "pre", 8))},
            "origin": reference("Location", name + "from", f"Ward {digits(name + 'ward', 4)}, {TOWNS[number(name, 6)]}"),
            "dischargeDisposition": {"text": "Home"},
        },
        "location": [{
            "location": reference("Location", name + "loc", f"Clinic of {TOWNS[number(name + 'c', 6)]}"),
            "status": "completed", "period": period(name + "loc"),
        }],
        "serviceProvider": reference("Organization", name + "org", f"Hospital of {TOWNS[number(name + 'o', 6)]}"),
        "partOf": reference("Encounter", name[:2] + "-episode", "Stay " + digits(name + "stay", 9)),
    }


def observation(name, owner, visit, own_device, at):
    code, what, unit = RESULTS[at % len(RESULTS)]
    resource = common("Observation", name) | {
        "identifier": [{"system": "http://example.org/lab", "value": plant("LAB-" + digits(name + "l", 9)), "period": period(name + "l")}],
        "status": "final", "category": [{"text": "laboratory"}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": what}]},
        "subject": reference("Patient", owner, person(owner)["name"]),
        "encounter": reference("Encounter", visit, "Visit " + digits(visit + "d", 9)),
        "issued": moment(name + "issued"), "_issued": extension(name + "issued"), "contained": contained(name),
        "performer": [practitioner(name), reference("Patient", owner, person(owner)["name"])],
        "note": note(name, owner, f"Told {person(owner)['given']} by phone {digits(name + 'phone', 10)}"),
        "device": reference("Device", own_device, "Pump " + digits(own_device + "d", 9)),
        "specimen": reference("Specimen", name + "spec", "Tube " + digits(name + "tube", 9)),
    }
    time = [("effectiveDateTime", moment), ("effectivePeriod", period), ("effectiveInstant", moment)][at % 3]
    resource[time[0]] = time[1](name + "eff")
    if code == "30525-0":
        # Not planted: a short number is anywhere. That it is sealed shows by its place.
        resource["valueQuantity"] = {"value": 90 + number(name, 9), "unit": unit}
        if at % 8 == 3:
            # The code may be any of the codings.
            resource["code"]["coding"].insert(0, {"system": "http://example.org/codes", "code": "AGE-AT-VISIT"})
    elif at % 5 == 1:
        resource["valueString"] = plant(f"Seen with {person(owner)['name']}, see chart {digits(name + 'chart', 8)}")
    elif at % 5 == 2:
        resource["valueDateTime"] = moment(name + "value")
    else:
        resource["valueQuantity"] = {"value": number(name, 300) / 10, "unit": unit}
    resource["component"] = [
        {"code": {"text": "comment"}, "valueString": plant(f"Relative of {person(owner)['family']}, {digits(name + 'rel', 8)}")},
        {"code": {"text": what}, "valueQuantity": {"value": number(name + "c", 300) / 10, "unit": unit}},
        {
            "code": {"coding": [{"system": "http://example.org/codes", "code": "AGE"}, {"system": "http://loinc.org", "code": "30525-0"}]},
            "valueQuantity": {"value": 90 + number(name + "age", 9), "unit": "a"},
        },
    ]
    if at:
        resource["hasMember"] = [reference("Observation", name[:-1] + str(at - 1))]
        resource["derivedFrom"] = [reference("Media", name + "media", "Picture " + digits(name + "pic", 9))]
    return resource


CODING = {"system": "http://example.org/codes", "version": "1", "code": "c1", "display": "A code", "userSelected": True}
CONCEPT = {"coding": [CODING], "text": "A concept"}
QUANTITY = {"value": 1.5, "comparator": "<", "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}
RANGE = {"low": QUANTITY, "high": QUANTITY}
SAMPLES = {"origin": QUANTITY, "period": 10, "factor": 1, "lowerLimit": 0, "upperLimit": 9, "dimensions": 1, "data": "1 2 3"}
REFERENCE_RANGE = RANGE | {"type": CONCEPT, "appliesTo": [CONCEPT], "age": RANGE, "text": "Of adults"}
MEASURED = {"dataAbsentReason": CONCEPT, "interpretation": [CONCEPT], "referenceRange": [REFERENCE_RANGE]}
VALUES = {"Quantity": QUANTITY, "CodeableConcept": CONCEPT, "Range": RANGE, "Ratio": {"numerator": QUANTITY, "denominator": QUANTITY}, "SampledData": SAMPLES}
# Every element that the policy leaves in clear.
CLEAR = {
    "Patient": {
        "active": True, "maritalStatus": CONCEPT, "communication": [{"language": CONCEPT, "preferred": True}],
    },
    "Device": {
        "definition": {"reference": "DeviceDefinition/pump", "type": "DeviceDefinition", "display": "A pump"},
        "statusReason": [CONCEPT], "manufacturer": "Pumps", "modelNumber": "M1", "partNumber": "P1", "safety": [CONCEPT],
        "specialization": [{"systemType": CONCEPT, "version": "1"}], "property": [{"type": CONCEPT, "valueQuantity": [QUANTITY], "valueCode": [CONCEPT]}],
    },
    "Encounter": {
        "class": CODING, "classHistory": [{"class": CODING, "period": {"start": "2020"}}], "serviceType": CONCEPT, "priority": CONCEPT, "reasonCode": [CONCEPT],
        "diagnosis": [{"condition": {"reference": "Condition/c"}, "use": CONCEPT, "rank": 1}], "length": QUANTITY,
    },
    "Observation": MEASURED | {"bodySite": CONCEPT, "method": CONCEPT},
}
BACKBONES = {
    "classHistory", "communication", "component", "deviceName", "diagnosis", "hospitalization", "link", "participant", "property", "referenceRange",
    "specialization", "statusHistory", "udiCarrier", "version",
}


def worn(value, name, member=""):
    """`value` with an extension and an `id` on every element, primitive ones as well, each of them planted."""
    if isinstance(value, list):
        return [worn(item, f"{name}.{at}", member) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    made = {key: worn(item, f"{name}.{key}", key) for key, item in value.items()}
    if "resourceType" not in value:
        made.setdefault("id", plant("e" + digits(name + "id", 9)))
        made.setdefault("extension", extension(name)["extension"])
    if member in BACKBONES:
        made["modifierExtension"] = extension(name + "m")["extension"]
    for key, item in value.items():
        items = item if isinstance(item, list) else [item]
        if key in ("id", "resourceType", "url") or key[0] == "_" or any(isinstance(each, dict) for each in items):
            continue
        hung = [extension(f"{name}.{key}.{at}") for at in range(len(items))]
        made.setdefault("_" + key, hung if isinstance(item, list) else hung[0])
    return made


def plain(resource):
    return resource


def all_worn(resource):
    """The resource with all that may stay in clear, and everything that R4 lets hang on its elements."""
    kind, name = resource["resourceType"], resource["id"]
    whole = resource | CLEAR[kind]
    whole["meta"] = whole["meta"] | {"security": [CODING]}
    whole["identifier"] = [identifier | {"use": "usual", "type": CONCEPT} for identifier in whole["identifier"]]
    if kind == "Patient":
        whole["telecom"][0]["rank"] = 1
    if kind == "Device":
        whole["udiCarrier"][0]["entryType"] = "barcode"
        whole["version"][0]["type"] = CONCEPT
    if kind == "Encounter":
        codes = {"admitSource": CONCEPT, "reAdmission": CONCEPT, "dischargeDisposition": CONCEPT}
        whole["hospitalization"] |= codes | {"dietPreference": [CONCEPT], "specialCourtesy": [CONCEPT], "specialArrangement": [CONCEPT]}
        whole["participant"][0]["type"] = [CONCEPT]
        whole["location"][0] |= {"physicalType": CONCEPT, "modifierExtension": extension(name + "room")["extension"]}
    if kind == "Observation":
        whole["component"] = whole["component"] + [{"code": CONCEPT, "value" + of: value} | MEASURED for of, value in VALUES.items()]
        age, aged = {"coding": [{"system": "http://loinc.org", "code": "30525-0"}]}, plant("Aged " + digits(name + "aged", 9))
        stage = {"coding": [CODING | {"code": digits(name + "stage", 9), "display": aged}], "text": aged}
        values = VALUES | {"CodeableConcept": stage, "SampledData": SAMPLES | {"data": aged}, "String": aged, "Integer": 95, "Boolean": True}
        whole["component"] += [{"code": age, "value" + of: value} for of, value in values.items()]
    return worn(whole, name)


def bundle(owner):
    """What a server answers that was asked for everything about a patient."""
    name, visit = owner + "-bundle", owner + "-visit0"
    inside = [patient(owner), device(f"{owner}-device", owner), encounter(visit, owner), observation(visit + "-o0", owner, visit, f"{owner}-device", 3)]

    def entry(resource):
        kind, id = resource["resourceType"], resource["id"]
        return {
            "link": [{"relation": "self", "url": plant(f"https://fhir.example/{kind}/{id}")}], "fullUrl": plant("urn:uuid:" + id),
            "_fullUrl": extension(name + kind), "id": plant("entry" + digits(name + kind + "e", 9)), "resource": resource, "search": {"mode": "match"},
            "request": {"method": "PUT", "url": plant(f"{kind}/{id}"), "ifMatch": plant(f'W/"{digits(name + kind, 9)}"')},
            "response": {
                "status": "200", "location": plant(f"{kind}/{id}/_history/{digits(name + kind + 'h', 9)}"), "lastModified": moment(name + kind),
                "outcome": {"resourceType": "OperationOutcome", "issue": [{"diagnostics": plant(f"{person(owner)['name']} was merged")}]},
            },
        }

    return {
        "resourceType": "Bundle", "id": plant(uuid(name)), "identifier": {"value": plant("BUNDLE-" + digits(name, 9))},
        "meta": {"lastUpdated": moment(name + "meta")}, "type": "searchset", "timestamp": moment(name),
        "link": [{"relation": "self", "url": plant(f"https://fhir.example/Patient/{uuid(owner)}/$everything")}],
        "entry": [entry(resource) for resource in inside],
    }


def resources():
    for at in range(PATIENTS):
        owner = f"p{at}"
        # Of everything that may hang on an element, one resource of each type has all.
        wear = all_worn if at == 0 else plain
        yield wear(patient(owner))
        yield wear(device(f"{owner}-device", owner))
        for visit in range(2):
            yield (wear if visit == 0 else plain)(encounter(f"{owner}-visit{visit}", owner))
            for result in range(3):
                name, at_all = f"{owner}-visit{visit}-o{result}", result + visit * 2 + at
                yield (wear if at_all == 0 else plain)(observation(name, owner, f"{owner}-visit{visit}", f"{owner}-device", at_all))
    yield bundle("p1")


def main():
    lines = [json.dumps(resource, ensure_ascii=number(resource["id"], 2) == 0, separators=(",", ":")) for resource in resources()]
    made = {"resources.ndjson": lines, "resources.identifiers": sorted(json.dumps(value) for value in planted)}
    for name, text in made.items():
        file, content = HERE / name, ("\n".join(text) + "\n").encode()
        if "--check" not in sys.argv[1:]:
            file.write_bytes(content)
        elif file.read_bytes() != content:
            raise SystemExit(f"{file} is not what resources.py writes")


if __name__ == "__main__":
    main()
