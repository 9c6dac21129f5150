#!/usr/bin/env python3
"""Random values between the library and testvectors/encoder.py and decoder.py, in both directions: tools/interop.py KEYFOLD.

Runs in a Python that has the wheel and the package `cryptography`. What the library seals the decoder opens, and the encoder makes
again byte for byte; what the encoder seals the library opens; what was damaged, or is bound to something else, both refuse with the
same class of error. Then faults are planted in the encoder, each of which must show.

    --cases N     of each kind and direction, 1,000 if not said
    --seed TEXT   others than those of every run
"""

import argparse
import contextlib
import io
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import unicodedata
from pathlib import Path

import keyfold

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testvectors"))
import decoder  # noqa: E402
import document  # noqa: E402
import encoder  # noqa: E402
import json_document  # noqa: E402
import lookup  # noqa: E402
import stream  # noqa: E402
from interop_site import Cached, Field, Values, damaged, outcome, pairs, same  # noqa: E402

PADDINGS = [None, None, 2, 16, 4096, "padme"]
STREAM_LENGTHS = [0, 1, 15, 16, 17, 16383, 16384, 16385, 32767, 32768, 32769]
DOCUMENTS = """\
[documents.member]
row_binding = "$.id"
only_if = { "$.kind" = "member" }
[documents.extension]
row_binding = "$.id"
header = "fhir-extension"
only_if = { "$.kind" = "extension" }
[documents.bare]
row_binding = "none"
manifest = "none"
only_if = { "$.kind" = "bare" }
[fields."document.id"]
mode = "deterministic"
type = "text"
keep_prefix = "Patient/"
optional = true
paths = ["$.subject.reference"]
[fields."document.name"]
mode = "document"
optional = true
paths = ["$.name[*].family", "$.name[*].given[*]"]
[fields."document.value"]
mode = "document"
optional = true
paths = ["$.value", "$.more.*"]
"""
INDEXES = {
    "exact": 'kind = "exact"\nbits = 256\nunique = true',
    "folded": 'kind = "case-folded"\nbits = 20',
    "digits": 'kind = "digits"\nbits = 1',
    "prefix": 'kind = "prefix"\nlength = [3]\nbits = 3',
}


class Suite:
    """A kind of sealed data. Each method is one case, which raises where something else comes back, or the two do not refuse the same."""

    both_refuse = None

    def __init__(self, site):
        self.ring, self.mine, self.scopes, self.fields = site.ring, site.mine, site.scopes, site.fields[type(self).__name__]

    def key(self, values, scope):
        return values.random.choice(self.mine.of_scope(scope))


class Randomized(Suite):
    """suite 01, one value"""

    def library_seals(self, values):
        field, context, row, scope = values.case(self, fill=True)
        plain = values.plain()
        sealed = self.ring.field(field.name, scope=scope, context=context).encrypt(plain, row=row)
        self.opens(field, context, row, scope, plain, sealed)

    def opens(self, field, context, row, scope, plain, sealed):
        row = row and row.hex()
        stated = {"field": field.name, "scope": scope, "context": pairs(context), "row": row, "row_bound": field.row}
        assert self.mine.open(sealed, **stated) == encoder.canonical(plain)
        key = self.mine.key(sealed[2:26], decoder.DATA, bytes(16) if scope is None else self.mine.scope(scope))
        again = encoder.seal_field(key, field.name, encoder.encode(*encoder.canonical(plain), field.padding), pairs(context), row, sealed[26:50])
        assert again == sealed, "the encoder makes other bytes of it"

    def encoder_seals(self, values):
        field, context, row, scope = values.case(self, fill=True)
        plain = values.plain()
        sealed = encoder.seal_field(self.key(values, scope), field.name, encoder.encode(*encoder.canonical(plain), field.padding), pairs(context), row and row.hex())
        opened = self.ring.field(field.name, scope=scope, context=context).decrypt(encoder.to_text(sealed) if len(sealed) % 2 else sealed, row=row)
        assert same(opened, plain)


    def both_refuse(self, values):
        field, context, row, scope = values.case(self)
        sealed = encoder.seal_field(self.key(values, scope), field.name, encoder.encode("text", b"x" * values.length(300), field.padding), pairs(context), row and row.hex())
        # One thing is another one: the value, or what it is bound to.
        other, (another, context_of_other, row_of_other, scope_of_other) = values.random.randrange(8), values.case(self)
        field = another if other == 0 and another.row == field.row else field
        context = context_of_other if other == 1 else context
        row = row_of_other if other == 2 and field.row and row_of_other else row
        scope = scope_of_other if other == 3 else scope
        sealed = damaged(values, sealed) if other > 3 else sealed
        stated = {"field": field.name, "scope": scope, "context": pairs(context), "row": row and row.hex(), "row_bound": field.row}
        opened = outcome(self.ring.field(field.name, scope=scope, context=context).decrypt, sealed, row=row)
        mine = outcome(self.mine.open, sealed, **stated)
        assert opened == (mine if isinstance(mine, str) else mine[1].decode()), f"{opened}, and {mine} from the decoder"


class Column(Randomized):
    """suite 01, columns"""

    both_refuse = None

    def library_seals(self, values):
        field, context, _, scope = values.case(self)
        column, rows = self.column(values, field)
        sealed = self.ring.field(field.name, scope=scope, context=context).encrypt_many(column, rows=rows)
        assert len({one[26:38] for one in sealed}) == 1, "a batch has one prefix"
        for plain, row, one in zip(column, rows or [None] * len(column), sealed, strict=True):
            self.opens(field, context, row, scope, plain, one)

    def encoder_seals(self, values):
        field, context, _, scope = values.case(self)
        column, rows = self.column(values, field)
        encoded = [encoder.encode(*encoder.canonical(plain), field.padding) for plain in column]
        sealed = encoder.seal_batch(self.key(values, scope), field.name, encoded, pairs(context), rows and [row.hex() for row in rows])
        opened = self.ring.field(field.name, scope=scope, context=context).decrypt_many(sealed, rows=rows)
        assert all(map(same, opened, column)) and len(opened) == len(column)

    def column(self, values, field):
        count = values.random.randint(1, 8)
        return [values.plain() for _ in range(count)], [values.characters(60, least=1).encode() for _ in range(count)] if field.row else None


class Deterministic(Suite):
    """suite 02"""

    def library_seals(self, values):
        field, context, _, _ = values.case(self, fill=True)
        plain = values.plain()
        sealed = self.ring.field(field.name, context=context).encrypt(plain)
        stated = {"field": field.name, "partition": "default", "join_group": field.join_group, "context": pairs(context)}
        assert self.mine.open(sealed, **stated) == encoder.canonical(plain)
        assert sealed == self.seal(field, context, plain), "the encoder makes other bytes of it"

    def seal(self, field, context, plain):
        encoded = encoder.encode(*encoder.canonical(plain), field.padding)
        return encoder.seal_deterministic(self.mine.of_partition(), field.name, encoded, pairs(context), field.join_group)

    def encoder_seals(self, values):
        field, context, _, _ = values.case(self, fill=True)
        plain = values.plain()
        assert same(self.ring.field(field.name, context=context).decrypt(self.seal(field, context, plain)), plain)


    def both_refuse(self, values):
        field, context, _, _ = values.case(self)
        text = damaged(values, encoder.to_text(self.seal(field, context, values.characters(30))).encode()).decode(errors="replace")
        opened = outcome(self.ring.field(field.name, context=context).decrypt, text)
        stated = {"field": field.name, "partition": "default", "join_group": field.join_group, "context": pairs(context)}
        mine = outcome(lambda: self.mine.open(decoder.from_text(text), **stated))
        assert opened == (mine if isinstance(mine, str) else mine[1].decode()), f"{opened}, and {mine} from the decoder"


class Frames(Suite):
    """suite 03, around values of suite 01 under a key that the store does not have"""

    def __init__(self, site):
        super().__init__(site)
        self.ring, self.mine, self.maker, self.records = site.second, site.second_mine, site.maker, site.second_records

    library_seals = None  # the wheel opens frames, and seals none

    def encoder_seals(self, values):
        field, context, row, _ = values.case(self, fill=True)
        plain = values.plain()
        key = values.random.choice(self.records["absent"])
        sealed = encoder.seal_field(key, field.name, encoder.encode(*encoder.canonical(plain), field.padding), pairs(context), row and row.hex())
        by_id = {record[6:30]: record for record in self.maker.records}
        framed = encoder.frame(sealed, [by_id[encoder.key_id(key)], by_id[encoder.key_id(self.maker.root)]])
        assert same(self.ring.field(field.name, context=context).decrypt(framed, row=row), plain)

    def both_refuse(self, values):
        field, context, row, _ = values.case(self)
        # A new key each time: the library knows one by itself that it has accepted.
        key = self.maker.key(decoder.DATA, bytes(16))
        sealed = encoder.seal_field(key, field.name, encoder.encode("text", b"x" * values.length(300), field.padding), pairs(context), row and row.hex())
        framed = damaged(values, encoder.frame(sealed, [self.maker.records[-1], self.maker.records[0]]))
        opened = outcome(self.ring.field(field.name, context=context).decrypt, framed, row=row)
        stated = {"context": pairs(context), "row": row and row.hex(), "row_bound": field.row, "accept": ["01", "03"]}
        mine = outcome(self.mine.open, framed, field.name, **stated)
        assert opened == (mine if isinstance(mine, str) else mine[1].decode()), f"{opened}, and {mine} from the decoder"


class Streams(Suite):
    """suite 04"""

    def plain(self, values):
        return values.random.randbytes(values.length(70_000, STREAM_LENGTHS))

    def library_seals(self, values):
        field, context, row, scope = values.case(self, fill=True)
        plain, out = self.plain(values), io.BytesIO()
        with self.ring.field(field.name, scope=scope, context=context).open_stream(out, "wb", row=row) as writer:
            for at in range(0, len(plain), step := values.random.randint(1000, 40_000)):
                writer.write(plain[at : at + step])
        sealed, opened, row = out.getvalue(), bytearray(), row and row.hex()
        stream.Stream(self.mine, sealed, field.name, scope, pairs(context), row, field.row).read(opened)
        assert opened == plain
        key = self.mine.key(sealed[2:26], decoder.DATA, bytes(16) if scope is None else self.mine.scope(scope))
        assert encoder.seal_stream(key, field.name, plain, pairs(context), row, sealed[27:51]) == sealed, "the encoder makes other bytes of it"

    def encoder_seals(self, values):
        field, context, row, scope = values.case(self, fill=True)
        plain = self.plain(values)
        sealed = encoder.seal_stream(self.key(values, scope), field.name, plain, pairs(context), row and row.hex())
        with self.ring.field(field.name, scope=scope, context=context).open_stream(io.BytesIO(sealed), row=row) as reader:
            start = values.random.choice([0, 0, values.random.randint(0, len(plain))])
            reader.seek(start)
            assert reader.read() == plain[start:] and reader.seek(0, io.SEEK_END) == len(plain)


    def both_refuse(self, values):
        field, context, row, scope = values.case(self)
        plain = values.random.randbytes(values.random.choice([0, 5, 16384, 20000]))
        sealed = damaged(values, encoder.seal_stream(self.key(values, scope), field.name, plain, pairs(context), row and row.hex()))

        def mine():
            opened = bytearray()
            stream.Stream(self.mine, sealed, field.name, scope, pairs(context), row and row.hex(), field.row).read(opened)
            return bytes(opened)

        library = self.ring.field(field.name, scope=scope, context=context)
        opened, expected = outcome(lambda: library.open_stream(io.BytesIO(sealed), row=row).read()), outcome(mine)
        assert opened == expected, f"{opened[:60]!r}, and {expected[:60]!r} from the decoder"


class Documents(Suite):
    """suite 05, in JSON"""

    def __init__(self, site):
        super().__init__(site)
        self.policy = tomllib.loads(DOCUMENTS)
        self.policy["fields"] = {name: {"keep_prefix": ""} | field for name, field in self.policy["fields"].items()}

    def document(self, values):
        """A document, and its kind. Strings that are sealed have the spelling of a writer of JSON."""
        kind = values.random.choice(list(self.policy["documents"]))
        members = {"kind": kind, "id": values.characters(60, least=1), "free": values.characters(60)}
        if values.random.random() < 0.7:
            members["subject"] = {"reference": values.random.choice(["Patient/", "", "patient/"]) + values.characters(40)}
        if values.random.random() < 0.7:
            members["name"] = [{"family": values.characters(300), "given": [values.characters(40) for _ in range(values.random.randrange(3))]} for _ in range(values.random.randrange(3))]
        if "name" not in members or not members["name"] or values.random.random() < 0.7:
            members["value"] = values.random.choice([0, -12.5, 10**30, True, False, None, [], {}, {"a'\\b": [1, {"c": "é"}]}, "2026-11-27", values.characters(5000)])
        if values.random.random() < 0.4:
            members["more"] = {values.characters(20): values.characters(20) for _ in range(values.random.randrange(4))}
        if values.random.random() < 0.4:
            members["extension"] = values.random.choice([[], [{"url": "urn:x", "valueInteger": 1}], [1, 2], "none"])
        members = dict(values.random.sample(list(members.items()), len(members)))
        text = json.dumps(members, ensure_ascii=False, indent=values.random.choice([None, None, 1]), separators=values.random.choice([(",", ":"), (" , ", " : ")]))
        return kind, text

    def library_seals(self, values):
        kind, text = self.document(values)
        context = values.context()
        sealed = self.ring.documents(context=context).protect(text)
        assert sealed != text and json_document.reveal(self.mine, self.policy, self.policy["documents"][kind], sealed, pairs(context)) == text

    def encoder_seals(self, values):
        kind, text = self.document(values)
        context, key, padding = values.context(), self.key(values, None), values.random.choice(PADDINGS)
        section, sequence = self.policy["documents"][kind], values.random.choice([0, 1, 2**64 - 1])
        sealed = encoder.protect_json(key, self.mine.of_partition(), self.policy, section, text, pairs(context), sequence, padding)
        assert self.ring.documents(context=context).reveal(sealed) == text

    def both_refuse(self, values):
        kind, text = self.document(values)
        context, section = values.context(), self.policy["documents"][kind]
        sealed = encoder.protect_json(self.key(values, None), self.mine.of_partition(), self.policy, section, text, pairs(context))
        parts = list(re.finditer(r'(?<=")(kf1d\.|kf1\.|(?=A{8}))[\w.-]{50,}(?=")', sealed))
        part, other = values.random.choice(parts), values.random.choice(parts)
        at = values.random.randrange(part.start(), part.end())
        sealed, context = values.random.choice([
            (sealed[:at] + values.random.choice("Ab0-_.") + sealed[at + 1 :], context),
            (sealed[:at] + sealed[part.end() :], context),
            (sealed[: part.start()] + other[0] + sealed[part.end() :], context),
            (re.sub(r',"manifest":"[^"]*"|,\{"url":"manifest"[^}]*\}', "", sealed), context),
            (sealed, values.context()),
            (sealed.replace('"id": "', '"id": "x', 1) if '"id": "' in sealed else sealed.replace('"id":"', '"id":"x', 1), context),
        ])
        opened = outcome(self.ring.documents(context=context).reveal, sealed)
        mine = outcome(json_document.reveal, self.mine, self.policy, section, sealed, pairs(context))
        assert opened == mine, f"{opened[:60]}, and {mine[:60]} from the decoder: {sealed[:1000]}"


class Indexes(Suite):
    """tokens of blind indexes, and texts that keep their format: the same from both"""

    def library_seals(self, values):
        context, name = values.context(), values.random.choice(list(INDEXES))
        text = values.random.choice([values.characters(40), f"+{values.random.randrange(10**12)}", "Straße ﬁ İ", "5 ½", ""])
        # What this Python's tables do not have, those of the library may.
        text = "".join(c for c in text if unicodedata.category(c) != "Cn")
        spec = tomllib.loads(INDEXES[name])
        case = {"field": "index.text", "context": pairs(context), "index": spec, "type": "text", "value": text.encode().hex()}
        try:
            # Without a policy that says otherwise, a text that would have no token is refused.
            expected = lookup.tokens(self.mine.of_partition(), case)[1] or ("InvalidInput" if text else [])
        except decoder.Refused as refused:
            expected = str(refused)
        try:
            found = [one.hex() if isinstance(one, bytes) else one for one in self.ring.field("index.text", context=context).index(name).tokens(text)]
        except keyfold.InvalidInput as refused:
            found = refused.kind
        assert found == expected, f"{name} of {text!r}: {found}, {expected}"
        text = "".join(values.random.choice("0123456789- ./") for _ in range(values.random.randint(20, 60)))
        case = {"field": "index.format", "context": pairs(context), "format": {"format": "digits"}}
        replaced, _ = lookup.preserve(self.mine.of_partition(), case, text, 1)
        preserver = self.ring.field("index.format", context=context).format_preserver()
        assert preserver.encrypt(text) == replaced and preserver.decrypt(replaced) == text

    encoder_seals = None  # compared in the other direction


SUITES = [Randomized, Column, Deterministic, Frames, Streams, Documents, Indexes]


class Site:
    """The keyring of the library, as it and the decoder see it; and one that the encoder made, which lacks a key."""

    def __init__(self, command, folder, seed):
        values = Values(seed, "site")
        self.fields = {suite.__name__: self.names(values, suite) for suite in SUITES}
        policy = folder / "policy.toml"
        policy.write_text(self.policy())
        config = keyfold.init(folder / "ring")
        self.ring = keyfold.Keyring.open(config, policies=[policy])
        self.scopes = [None, "s", values.characters(1024, least=1, controls=False), "ж" * 512]
        for scope in self.scopes:
            self.ring.field("index.any", scope=scope).encrypt("makes the scope")
            self.ring.rotate(scope)
        self.mine = Cached(config)
        self.second_keyring(command, folder / "second", policy)

    def second_keyring(self, command, folder, policy):
        """Made by the encoder, and restored by the command from the encoder's backup, all but two data keys."""
        folder.mkdir()
        kek = random.Random(0).randbytes(32).hex()
        self.maker = encoder.Maker("second", {"main": kek})
        partition = self.maker.key(decoder.LOOKUP, b"partition no. 1.")
        (folder / "main.kek").write_text(encoder.local_kek(kek))
        (folder / "main.kek").chmod(0o600)
        (folder / "keyfold.toml").write_text(self.maker.configuration({"default": partition}))
        present = self.maker.key(decoder.DATA, b"scope number one", "s")
        (folder / "all.backup").write_text(self.maker.backup())
        subprocess.run([command, "keys", "restore", "--config", folder / "keyfold.toml", "--from", folder / "all.backup", "--make-store"], check=True, capture_output=True)
        listed = subprocess.run([command, "keys", "list", "--config", folder / "keyfold.toml", "--json"], check=True, capture_output=True, text=True)
        keys = [json.loads(line) for line in listed.stdout.splitlines()]
        assert len(keys) == 4 and all(key["verified"] for key in keys), "the command does not trust the records that the encoder made"
        self.second_records = {"absent": [self.maker.key(decoder.DATA, bytes(16)) for _ in range(2)]}
        self.second = keyfold.Keyring.open(folder / "keyfold.toml", policies=[policy])
        self.second_mine = Cached(folder / "keyfold.toml")
        # Here frames matter, so nothing is kept.
        del self.second_mine.key
        sealed = encoder.seal_field(present, "index.any", encoder.encode("text", b"x"))
        assert self.second.field("index.any", scope="s").decrypt(sealed) == "x", "the library does not find the encoder's scope"

    @staticmethod
    def names(values, suite):
        """Fields of random names, of 1 to 255 bytes."""
        texts = {"".join(c for c in values.characters(255, 1, controls=False) if unicodedata.category(c) not in ("Cc", "Cn")) for _ in range(12)}
        texts = [f"{suite.__name__[0]}{text}".encode()[:255].decode(errors="ignore") for text in sorted(texts)] + [(suite.__name__ + "-" * 255)[:255], suite.__name__[:2]]
        if suite is Deterministic:
            # Fields of a join group have no padding.
            return [Field(text, padding=None if number % 2 else values.random.choice(PADDINGS), join_group=f"group é {number % 3}" if number % 2 else None) for number, text in enumerate(texts)]
        return [Field(text, row=number % 2 == 0, padding=None if suite is Streams else values.random.choice(PADDINGS)) for number, text in enumerate(texts)]

    def policy(self):
        lines = ["version = 1", DOCUMENTS, "[fields.\"index.any\"]", 'accept = ["01", "03"]', '[fields."index.format"]\nmode = "format-preserving"\nformat = "digits"', '[fields."index.text"]']
        lines += [f'[fields."index.text".index.{name}]\n{said}' for name, said in INDEXES.items()]
        for suite, fields in self.fields.items():
            for field in fields if suite not in ("Documents", "Indexes") else []:
                lines.append(f"[fields.{json.dumps(field.name, ensure_ascii=False)}]")
                mode = {"Deterministic": "deterministic", "Streams": "stream"}.get(suite, "randomized")
                lines += [f'mode = "{mode}"', *(['row_binding = "id"'] if field.row else []), *(['accept = ["01", "03"]'] if suite == "Frames" else [])]
                lines += [f"padding = {json.dumps(field.padding)}"] if field.padding else []
                lines += [f'join_group = "{field.join_group}"'] if field.join_group else []
        return "\n".join(lines) + "\n"


# Failure C23
def cases(suite, direction, count, seed):
    """The first case that fails, with its number, if one does."""
    for number in range(count):
        try:
            getattr(suite, direction)(Values(seed, type(suite).__name__, direction, number))
        except Exception as error:
            return f"case {number} of {type(suite).__name__}.{direction}, seed {seed!r}: {type(error).__name__}: {str(error)[:300]}"
    return None


def exchanged(key, nonce, aad, plain, seal=encoder.xaes_seal):
    return seal(key, nonce[12:] + nonce[:12], aad, plain)


def one_byte_off(context, row=None, row_bound=False, encoded=encoder.encoded_context):
    right = encoded(context, row, row_bound)
    return bytes([right[0] + 1]) + right[1:]


def without_row(context, row=None, row_bound=False, encoded=encoder.encoded_context):
    return encoded(context)


# Faults in the encoder: of which suite, in what, by what.
FAULTS = {
    "the halves of the nonce exchanged": (Randomized, encoder, "xaes_seal", exchanged),
    "a byte of the context": (Randomized, encoder, "encoded_context", one_byte_off),
    "the row left out": (Randomized, encoder, "encoded_context", without_row),
    "the halves of the nonce exchanged, in a batch": (Column, encoder, "xaes_seal", exchanged),
    "the name of another kind": (Deterministic, encoder, "field_name", lambda name: b"\3" + bytes([len(name.encode())]) + name.encode() + b"x"),
    "a byte of the context, deterministic": (Deterministic, encoder, "encoded_context", one_byte_off),
    "records in the other order": (Frames, encoder, "frame", lambda sealed, records, frame=encoder.frame: frame(sealed, records[::-1])),
    "chunks of another length": (Streams, stream, "CHUNK", 16383),
    "the row left out of a stream": (Streams, encoder, "encoded_context", without_row),
    "lengths of paths little-endian": (Documents, document, "sized", lambda path: len(path.encode()).to_bytes(2, "little") + path.encode()),
    "padding of zeros alone": (Randomized, encoder, "encode", lambda name, value, padding=None, encode=encoder.encode: encode(name, value, padding)[:-1] if padding else encode(name, value)),
}


def planted(site, seed):
    """Each fault must show in the first hundred cases of what the encoder seals."""
    missed = []
    for what, (suite, module, name, broken) in FAULTS.items():
        right = getattr(module, name)
        setattr(module, name, broken)
        try:
            if cases(suite(site), "encoder_seals", 100, seed) is None:
                missed.append(what)
        finally:
            setattr(module, name, right)
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keyfold", type=Path, help="the command")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", default="keyfold")
    options = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        site = Site(options.keyfold.resolve(), Path(folder), options.seed)
        stack.callback(site.ring.close)
        for kind in SUITES:
            suite = kind(site)
            for direction, name in {"library_seals": "the library seals", "encoder_seals": "the encoder seals", "both_refuse": "the same is refused"}.items():
                if getattr(suite, direction) is None:
                    continue
                start = time.monotonic()
                wrong = cases(suite, direction, options.cases, options.seed)
                failed, passed = failed + bool(wrong), passed + (options.cases if not wrong else 0)
                print(f"{name}, {kind.__doc__}: {options.cases} cases in {time.monotonic() - start:.1f} s" if not wrong else f"FAILED: {wrong}", flush=True)
        missed = planted(site, options.seed)
        failed += len(missed)
        print(f"{len(FAULTS) - len(missed)} of {len(FAULTS)} faults planted in the encoder show")
        for what in missed:
            print(f"FAILED: a planted fault does not show: {what}")
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
