#!/usr/bin/env python3
"""Writes made-up patients, as CSV or as NDJSON of FHIR-like Patient resources.

The same options give the same bytes on every machine: row n depends on the seed and on n alone (SHAKE128), so a
longer file starts with a shorter one, and the CSV and the NDJSON speak of the same people. Python 3, standard
library only.

No person, address or number is real: telephone numbers are 555-01xx, social security numbers are 9xx with a group
that is in no range of the IRS either, towns and streets are invented.
"""

import argparse
import csv
import hashlib
import io
import itertools
import os
import sys

HEADER = ["patient_id", "name", "birth_date", "ssn", "phone", "address", "latitude", "longitude", "sex", "hba1c"]

# Given names, family names. Decomposed letters and characters outside the basic plane are written as escapes.
SCRIPTS = [
    (["Anna", "James", "Mary", "Samuel"], ["Miller", "O'Connor", "Smith-Jones", "de la Cruz"]),
    (["Zoë", "Łukasz", "Françoise", "Søren", "İpek"], ["Müller", "Nguyễn", "Dvořák", "Ångström", "Núñez"]),
    (["Zoe\u0308", "Franc\u0327oise", "Jose\u0301"], ["Mu\u0308ller", "Nguye\u0302\u0303n", "Nu\u0301n\u0303ez"]),
    (["Анна", "Алёна", "Юрий", "Тарас"], ["Иванова", "Щербак", "Ковальчук", "Ўринов"]),
    (["Ελένη", "Γιώργος", "Μαΐρη"], ["Παπαδόπουλος", "Οικονόμου", "Αγγελίδης"]),
    (["小明", "芳", "建國", "\U00020bb7"], ["王", "李", "歐陽", "司馬"]),
    (["さくら", "太郎", "ハナコ", "美咲"], ["山田", "佐藤", "髙橋", "\U00020bb7田"]),
    (["محمد", "فاطمة", "عُمَر"], ["الأحمد", "بن علي", "حدّاد"]),
    (["שרה", "דָּוִד", "יוסף"], ["כהן", "לוי", "בן־דוד"]),
    (["प्रिया", "अर्जुन", "लक्ष्मी"], ["शर्मा", "सिंह", "कृष्णन"]),
    (["민준", "서연", "\u1112\u1161\u11ab"], ["김", "이", "남궁"]),
    (['James "Jim"', "Anna, called Nan", "Kim \U0001f33b", "Sam \U0001f469\u200d\U0001f680"], ["Doe", "Roe", "Poe"]),
]
STREETS = [
    "{} Example Street, Apt {}", 'Haus "Zur Probe", Musterweg {}/{}', "{} rue de l’Exemple\nbâtiment {}",
    "Примерная улица {}, кв. {}", "見本町{}丁目{}番", "{} Sample Road\r\nUnit {}", "شارع المثال {}، شقة {}", "{} Specimen Ln #{}",
]
TOWNS = ["Exampleville", "Musterstadt", "Sainte-Épreuve", "Примерск", "見本市", "مدينة المثال", "Παράδειγμα", "Villa «Muestra»"]
# How a result may be spelt. A number that is parsed and printed again often loses such a spelling.
HBA1C = ["5.40", "6.1", "7.0", "10.000", "5.4999999999999999999", "6.02214076", "0.0", ""]
JSON_NUMBERS = ["5.40", "61E-1", "7.0", "1e+1", "5.4999999999999999999", "6.02214076e0", "-0.0", "null"]


class Row:
    """Draws the values of one patient."""

    def __init__(self, seed, number):
        self.bits = int.from_bytes(hashlib.shake_128(b"%d:%d" % (seed, number)).digest(64), "big")

    def below(self, limit):
        self.bits, drawn = divmod(self.bits, limit)
        return drawn

    def one_of(self, values):
        return values[self.below(len(values))]

    def digits(self, count):
        return f"{self.below(10 ** count):0{count}d}"


def patient(seed, number):
    """The cells of HEADER, and the rest of the row's random bits."""
    row = Row(seed, number)
    hexadecimal = f"{row.below(1 << 128):032x}"
    patient_id = "-".join((hexadecimal[:8], hexadecimal[8:12], hexadecimal[12:16], hexadecimal[16:20], hexadecimal[20:]))
    given, family = SCRIPTS[number % len(SCRIPTS)]
    name = f"{row.one_of(given)} {row.one_of(family)}"
    birth_date = f"{1920 + row.below(105)}-{1 + row.below(12):02d}-{1 + row.below(28):02d}"
    ssn = f"9{row.digits(2)}-{1 + row.below(49):02d}-{row.digits(4)}" if row.below(10) else ""
    phone = f"+1-{200 + row.below(800)}-555-01{row.digits(2)}" if row.below(8) else ""
    address = f"{row.one_of(STREETS).format(1 + row.below(9999), 1 + row.below(99))}, {row.one_of(TOWNS)}"
    latitude = longitude = ""
    if row.below(12):
        latitude = f"{row.below(179) - 89}.{row.digits(row.one_of((2, 6, 15, 18)))}"
        longitude = f"{row.below(359) - 179}.{row.digits(row.one_of((2, 6, 14, 18)))}"
    sex = row.one_of(("female", "male", "other", "unknown", ""))
    hba1c = row.one_of(HBA1C)
    return [patient_id, name, birth_date, ssn, phone, address, latitude, longitude, sex, hba1c], row


def json_string(text, style):
    """A JSON string, in one of four spellings: as is, ASCII only, with `\\/`, with needless escapes."""
    out = ['"']
    for char in text:
        code = ord(char)
        if char in '"\\':
            out.append("\\" + char)
        elif char == "\n":
            out.append("\\n")
        elif code < 0x20:
            out.append(f"\\u{code:04x}")
        elif style == 1 and code > 0xFFFF:
            code -= 0x10000
            out.append(f"\\u{0xD800 + (code >> 10):04X}\\u{0xDC00 + (code & 0x3FF):04x}")
        elif style == 1 and code > 0x7E:
            out.append(f"\\u{code:04x}")
        elif style == 2 and char == "/":
            out.append("\\/")
        elif style == 3 and char == "a":
            out.append("\\u0061")
        else:
            out.append(char)
    out.append('"')
    return "".join(out)


def resource(seed, number):
    """One line: a Patient whose spelling, order of members and white space vary."""
    cells, row = patient(seed, number)
    patient_id, name, birth_date, ssn, phone, address, latitude, longitude, sex, _ = cells
    style = row.below(4)
    colon, comma = row.one_of(((":", ","), (": ", ", "), (" : ", " ,  ")))

    def members(pairs):
        return "{" + comma.join(f'"{key}"{colon}{value}' for key, value in pairs) + "}"

    def text(value):
        return json_string(value, style)

    place = [("text", text(address))]
    if latitude:
        pair = ((k, v) for k, v in (("latitude", latitude), ("longitude", longitude)))
        parts = comma.join(members([("url", f'"{key}"'), ("valueDecimal", value)]) for key, value in pair)
        geolocation = '"http://hl7.org/fhir/StructureDefinition/geolocation"'
        place.append(("extension", "[" + members([("url", geolocation), ("extension", f"[{parts}]")]) + "]"))
    pairs = [
        ("id", f'"{patient_id}"'),
        ("name", "[" + members([("use", '"usual"'), ("text", text(name))]) + "]"),
        ("birthDate", f'"{birth_date}"'),
        ("address", "[" + members(place) + "]"),
        ("hba1c", row.one_of(JSON_NUMBERS)),
    ]
    if ssn:
        system = '"http://hl7.org/fhir/sid/us-ssn"'
        pairs.append(("identifier", "[" + members([("system", system), ("value", f'"{ssn}"')]) + "]"))
    else:
        pairs.append(("identifier", "[]"))
    if phone:
        pairs.append(("telecom", "[" + members([("system", '"phone"'), ("value", f'"{phone}"')]) + "]"))
    if sex:
        pairs.append(("gender", f'"{sex}"'))
    turn = row.below(len(pairs))
    return members([("resourceType", '"Patient"')] + pairs[turn:] + pairs[:turn])


def lines(kind, rows, seed):
    """The file in pieces of about a thousand rows."""
    for start in range(0, rows, 1000):
        numbers = range(start, min(start + 1000, rows))
        if kind == "csv":
            buffer = io.StringIO(newline="")
            writer = csv.writer(buffer, lineterminator="\r\n")
            if start == 0:
                writer.writerow(HEADER)
            writer.writerows(patient(seed, number)[0] for number in numbers)
            yield buffer.getvalue().encode()
        else:
            yield "".join(resource(seed, number) + "\n" for number in numbers).encode()
    if rows == 0 and kind == "csv":
        yield (",".join(HEADER) + "\r\n").encode()


# The files that the repository keeps, next to this script.
KEPT = [("patients.csv", "csv", 200), ("patients.ndjson", "ndjson", 50)]


def check():
    """Compares the kept files with what this script writes; returns the number of differences."""
    folder = os.path.dirname(os.path.abspath(__file__))
    different = 0
    for name, kind, rows in KEPT:
        with open(os.path.join(folder, name), "rb") as file:
            same = file.read() == b"".join(lines(kind, rows, 1))
        print(f"{name}: {'identical' if same else 'DIFFERENT'}")
        different += not same
    return different


def main():
    parser = argparse.ArgumentParser(description="Writes made-up patients: the same options, the same bytes.")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=["csv", "ndjson"], default="csv")
    parser.add_argument("--output", default="-", help="a file, or - for standard output (default)")
    parser.add_argument("--check", action="store_true", help="compare the files in this folder with a new run, write nothing")
    args = parser.parse_args()
    if args.rows < 0 or args.seed < 0:
        parser.error("--rows and --seed are 0 or more")
    if args.check:
        return 1 if check() else 0
    try:
        if args.output == "-":
            sys.stdout.buffer.writelines(lines(args.format, args.rows, args.seed))
            sys.stdout.buffer.flush()
        else:
            with open(args.output, "wb") as file:
                file.writelines(lines(args.format, args.rows, args.seed))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
