#!/usr/bin/env python3
"""Who opens what whom has sealed: tools/languages/matrix.py --keyfold COMMAND [--c PREFIX] [--device FOLDER] [--programs FILE].

Each interface seals each kind of data that it can, and each other one opens it; what is bound to another row is refused by all.
Runs in a Python that has the wheel and the package `cryptography`. PREFIX is where bindings-c/install has put the C library, FOLDER
where bindings-c/device/build has put that for devices, FILE what run.py has written of the other languages. What is missing is
skipped aloud.
"""

import argparse
import copy
import csv
import io
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

import keyfold

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "testvectors"), str(ROOT / "tools"), str(HERE)]
import bundle  # noqa: E402
import decoder  # noqa: E402
import encoder  # noqa: E402
import json_document  # noqa: E402
import stream  # noqa: E402
from interop_site import Cached, pairs  # noqa: E402
from run import Failed, Program, run  # noqa: E402

# The letter of the table, and what the kind is. All but `value` are bound to a context.
KINDS = {
    "value": ("V", "single values under the keyring's own key (suite 01)"),
    "scope": ("S", "single values of a scope (suite 01)"),
    "column": ("C", "columns of a scope (suite 01, one nonce prefix)"),
    "equal": ("E", "deterministic values (suite 02)"),
    "frame": ("F", "values with their key records (suite 03)"),
    "stream": ("T", "streams (suite 04)"),
    "document": ("J", "JSON documents (suite 05)"),
    "bundle": ("B", "key bundles of devices"),
}
POLICIES = {
    "value": """version = 1
[fields.value]
row_binding = { column = "row", path = "$.row" }
columns = ["value"]
paths = ["$.value"]
accept = ["01", "03"]
""",
    "equal": 'version = 1\n[fields.equal]\nmode = "deterministic"\ncolumns = ["value"]\npaths = ["$.value"]\n',
    "stream": 'version = 1\n[fields.image]\nmode = "stream"\n',
    "document": """version = 1
[documents.patient]
row_binding = "$.id"
[fields.part]
mode = "document"
paths = ["$.name[*]", "$.born"]
""",
}
# Whose table is complete when so many are here.
DOCUMENT, MOST = ROOT / "docs" / "INTEROPERABILITY.md", 9
SCOPE, CONTEXT = "ward-1", {"tenant": b"t1"}
STATED = {"value": (None, {}), "equal": (None, CONTEXT)}
TEXTS = ["", "x", "999-81-5679", "Zoë Müller-Łukasz 病 🙂 עברית", "a 'b' \"c\", \\d;  ", "é" * 3000]
VALUES = [(f"r-{number}-病", text) for number, text in enumerate(TEXTS)]
STREAMS = [("", bytes(n % 251 for n in range(length))) for length in (0, 1, 16383, 16384, 16385, 40000)]
DOCUMENTS = [(f"p-{number}", json.dumps({"name": [text, text], "id": f"p-{number}", "n": 1.5, "born": None}, ensure_ascii=False)) for number, text in enumerate(TEXTS)]


def stated(kind):
    return STATED.get(kind, (SCOPE, CONTEXT))


def policy_of(kind):
    return kind if kind in POLICIES else "value"


def plain(kind):
    """Pairs of row and bytes."""
    if kind == "stream":
        return STREAMS
    return [(row, text.encode()) for row, text in (DOCUMENTS if kind == "document" else VALUES)]


class Command:
    """The library in Rust, by the command."""

    name, seals, opens = "Rust", "value scope column equal stream document bundle".split(), "value scope column equal stream document bundle".split()

    def __init__(self, site, keyfold_command):
        self.site, self.command = site, keyfold_command

    def _run(self, verb, kind, name, content):
        scope, context = stated(kind)
        options = [*(["--scope", scope] if scope else []), *(f"--context={key}={value.decode()}" for key, value in context.items())]
        options += ["--stream", "image"] if kind == "stream" else []
        (self.site.folder / name).write_bytes(content)
        out = self.site.folder / "out"
        run(self.command, verb, "--config", self.site.config, "--policy", self.site.policy(kind), *options, self.site.folder / name, "--output", out, "--force")
        return out.read_bytes()

    def _each(self, verb, kind, items):
        if kind == "stream":
            return [self._run(verb, kind, "in.bin", data) for _, data in items]
        if kind == "document":
            return self._run(verb, kind, "in.ndjson", b"".join(data + b"\n" for _, data in items)).splitlines()
        if kind == "column":
            cells = "".join('{},"{}"\n'.format(row, data.decode().replace('"', '""')) for row, data in items)
            lines = cells_of(self._run(verb, kind, "in.csv", f"row,value\n{cells}".encode()))
            return [line["value"].encode() for line in lines]
        lines = "".join(json.dumps({"row": row, "value": data.decode()}, ensure_ascii=False) + "\n" for row, data in items)
        return [json.loads(line)["value"].encode() for line in self._run(verb, kind, "in.ndjson", lines.encode()).splitlines()]

    def seal(self, kind, items):
        sealed = self._each("protect", kind, items)
        return sealed if kind in ("stream", "document") else [keyfold.from_text(text.decode()) for text in sealed]

    def open(self, kind, items):
        if kind not in ("stream", "document"):
            items = [(row, keyfold.to_text(sealed).encode()) for row, sealed in items]
        return self._each("reveal", kind, items)

    def make_bundle(self, out):
        run(self.command, "device", "provision", "--config", self.site.config, SCOPE, "--transport-key", self.site.transport_key, "--output", out)

    def opens_bundle(self, path):
        run(self.command, "device", "inspect", path, "--transport-key", self.site.transport_key)


def cells_of(data):
    csv.field_size_limit(1 << 24)
    return csv.DictReader(io.StringIO(data.decode(), newline=""))


class Wheel:
    """The Python package."""

    name, seals, opens = "Python", "value scope column equal stream document".split(), "value scope column equal frame stream document".split()

    def __init__(self, site):
        self.rings = {kind: keyfold.Keyring.open(site.config, policies=[site.policy(kind)]) for kind in self.opens}

    def _field(self, kind):
        scope, context = stated(kind)
        return self.rings[kind].field({"equal": "equal", "stream": "image"}.get(kind, "value"), scope=scope, context=context)

    def _each(self, kind, items, do):
        if kind == "document":
            documents = self.rings[kind].documents(scope=SCOPE, context=CONTEXT)
            return [getattr(documents, do[0])(data) for _, data in items]
        field = self._field(kind)
        if kind == "stream":
            return [do[1](field, data) for _, data in items]
        if kind == "column":
            return getattr(field, f"{do[2]}_many")([data for _, data in items], rows=[row for row, _ in items])
        return [getattr(field, do[2])(data, row=None if kind == "equal" else row) for row, data in items]

    def seal(self, kind, items):
        items = [(row, data if kind in ("stream", "document") else data.decode()) for row, data in items]
        return self._each(kind, items, ("protect", self._seal_stream, "encrypt"))

    def open(self, kind, items):
        opened = self._each(kind, items, ("reveal", lambda field, data: field.open_stream(io.BytesIO(data)).read(), "decrypt"))
        return [one.encode() if isinstance(one, str) else bytes(one) for one in opened]

    @staticmethod
    def _seal_stream(field, data):
        out = io.BytesIO()
        with field.open_stream(out, "wb") as writer:
            writer.write(data)
        return out.getvalue()


class Lines:
    """A program in C that takes lines of row and bytes."""

    def _run(self, *command, items):
        said = run(*command, text="".join(f"{row.encode().hex()}\t{data.hex()}\n" for row, data in items))
        return [bytes.fromhex(line) for line in said.splitlines()]


class C(Lines):
    """The C library."""

    name, seals, opens = "C", "value scope column equal stream document".split(), "value scope column equal frame stream document".split()

    def __init__(self, site, prefix):
        self.site, self.program = site, site.folder / "kinds"
        run("cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{prefix}/include", HERE / "kinds.c", f"-L{prefix}/lib", "-lkeyfold", f"-Wl,-rpath,{prefix}/lib", "-o", self.program)

    def seal(self, kind, items):
        return self._run(self.program, "seal", kind, self.site.config, self.site.policy(kind), items=items)

    def open(self, kind, items):
        return self._run(self.program, "open", kind, self.site.config, self.site.policy(kind), items=items)


class Device(Lines):
    """The C library for devices, with the bundle of the command."""

    name, seals, opens = "C for devices", ["scope"], ["scope", "column", "bundle"]

    def __init__(self, site, folder):
        self.site, self.program, self.slots = site, site.folder / "device", site.folder / "slots"
        run("cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I", folder / "include", HERE / "device.c", folder / "lib" / "libkeyfold_device.a", "-o", self.program)

    def seal(self, kind, items):
        return self._run(self.program, "seal", self.site.bundle, self.site.transport_key, self.slots, items=items)

    def open(self, kind, items):
        return self._run(self.program, "open", self.site.bundle, self.site.transport_key, self.slots, items=items)

    def opens_bundle(self, path):
        self._run(self.program, "open", path, self.site.transport_key, self.slots, items=[])


class Second:
    """testvectors/encoder.py and decoder.py."""

    name, seals, opens = "second implementation", list(KINDS), list(KINDS)

    def __init__(self, site):
        self.site, self.ring = site, Cached(site.config)
        policy = tomllib.loads(POLICIES["document"])
        self.policy = policy | {"fields": {name: {"keep_prefix": ""} | field for name, field in policy["fields"].items()}}

    def newest(self, scope):
        return max(self.ring.of_scope(scope), key=lambda key: key[1][-4:])

    def seal(self, kind, items):
        scope, context = stated(kind)
        context, key = pairs(context), self.newest(scope)
        encoded = [encoder.encode("text", data) for _, data in items] if kind not in ("stream", "document") else []
        if kind == "column":
            return encoder.seal_batch(key, "value", encoded, context, [row.encode().hex() for row, _ in items])
        if kind == "equal":
            return [encoder.seal_deterministic(self.ring.of_partition(), "equal", one, context) for one in encoded]
        if kind == "stream":
            return [encoder.seal_stream(key, "image", data, context) for _, data in items]
        if kind == "document":
            kinds = self.policy["documents"]["patient"]
            return [encoder.protect_json(key, None, self.policy, kinds, data.decode(), context).encode() for _, data in items]
        sealed = [encoder.seal_field(key, "value", one, context, row.encode().hex()) for (row, _), one in zip(items, encoded)]
        own = self.ring.records[encoder.key_id(key)]
        return [encoder.frame(one, [own, self.ring.records[own[62:86]]]) for one in sealed] if kind == "frame" else sealed

    def open(self, kind, items):
        scope, context = stated(kind)
        context = pairs(context)
        if kind == "stream":
            opened = [bytearray() for _ in items]
            for (_, sealed), plain in zip(items, opened):
                stream.Stream(self.ring, sealed, "image", scope, context).read(plain)
            return [bytes(plain) for plain in opened]
        if kind == "document":
            # The decoder's function knows no scopes: its key is that of the scope here.
            ring = copy.copy(self.ring)
            ring.key = lambda key_id, cls, _: self.ring.key(key_id, cls, self.ring.scope(scope))
            return [json_document.reveal(ring, self.policy, self.policy["documents"]["patient"], sealed.decode(), context).encode() for _, sealed in items]
        own = {"partition": "default"} if kind == "equal" else {"scope": scope, "row_bound": True, "accept": ["01", "03"]}
        rows = [None if kind == "equal" else row.encode().hex() for row, _ in items]
        return [self.ring.open(sealed, "equal" if kind == "equal" else "value", context=context, row=row, **own)[1] for row, (_, sealed) in zip(rows, items)]

    def make_bundle(self, out):
        out.write_bytes(encoder.bundle(self.newest(SCOPE), self.site.transport_key.read_bytes(), issued=1))

    def opens_bundle(self, path):
        bundle.open_bundle(path.read_bytes(), self.site.transport_key.read_bytes())


class Other:
    """An example in another language, which has values of rows."""

    seals, opens = ["value"], ["value"]

    def __init__(self, site, name, command):
        self.name, self.site, self.program = name, site, Program(command)

    def seal(self, kind, items):
        sealed = dict(self.program.seal(self.site.config, self.site.policy(kind), [(row, "text", data.decode()) for row, data in items]))
        return [keyfold.from_text(sealed[row]) for row, _ in items]

    def open(self, kind, items):
        opened = self.program.open(self.site.config, self.site.policy(kind), [(row, keyfold.to_text(sealed)) for row, sealed in items])
        assert all(of == "text" for _, (of, _) in opened)
        return [text.encode() for _, (_, text) in opened]


class Site:
    """A keyring, whose scope has two generations, and the policy of each kind."""

    def __init__(self, command, folder):
        self.folder, self.config, self.bundle, self.transport_key = folder, folder / "ring" / "keyfold.toml", folder / "bundle", folder / "transport-key"
        for name, text in POLICIES.items():
            self.policy(name).write_text(text)
        run(command, "init", folder / "ring")
        run(command, "device", "transport-key", "--output", self.transport_key)
        run(command, "device", "provision", "--config", self.config, SCOPE, "--transport-key", self.transport_key, "--output", folder / "older")
        run(command, "device", "rotate", "--config", self.config, SCOPE, "--transport-key", self.transport_key, "--output", self.bundle)
        # The first value makes the keyring's own key, which then every interface finds.
        Command(self, command).seal("value", plain("value"))

    def policy(self, kind):
        return self.folder / f"{policy_of(kind)}.toml"


def participants(options, site):
    """Those that are here."""
    found, missing = [Command(site, options.keyfold), Wheel(site), Second(site)], []
    for given, name, make in [(options.c, "--c", C), (options.device, "--device", Device)]:
        if given and shutil.which("cc"):
            found.insert(-1, make(site, given.resolve()))
        else:
            missing.append(f"{make.name}: no {name if not given else 'cc'}")
    programs = json.loads(options.programs.read_text()) if options.programs else {}
    found += [Other(site, name, command) for name, command in programs.items()]
    return found, missing + ([] if options.programs else ["C++, Go, Java and Node: no --programs"])


def refused(reader, kind, items):
    """Whether a reader refuses every one of these, as what does not open."""
    for item in items:
        try:
            reader.open(kind, [item])
            return False
        except (Failed, keyfold.KeyfoldError, decoder.Refused) as error:
            if not re.search("301|DecryptionFailed|decryption failed", f"{error} {getattr(error, 'kind', '')}"):
                raise
    return True


class Matrix:
    def __init__(self, all_of_them):
        self.all, self.passed, self.failed, self.cells = all_of_them, 0, 0, {}

    def check(self, holds, what):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print(f"FAILED: {what}", flush=True)
        return holds

    # Failure C23
    def fill(self, kind, folder):
        for writer in [one for one in self.all if kind in one.seals]:
            if kind == "bundle":
                sealed = folder / f"bundle of {writer.name.replace(' ', '-')}"
                writer.make_bundle(sealed)
            else:
                sealed = writer.seal(kind, plain(kind))
                self.check(len(sealed) == len(plain(kind)), f"{writer.name} seals {len(sealed)} of {kind}")
            for reader in [one for one in self.all if kind in one.opens]:
                try:
                    self.check(self.read(kind, sealed, reader, writer is self.all[0]), f"{reader.name} opens something else than {writer.name} has sealed as {kind}")
                    self.cells.setdefault((writer.name, reader.name), []).append(KINDS[kind][0])
                except Exception as error:  # each cell is told, whatever is wrong with it
                    self.check(False, f"{reader.name} does not open what {writer.name} has sealed as {kind}: {type(error).__name__} {str(error)[-300:]}")

    def read(self, kind, sealed, reader, with_refusals):
        if kind == "bundle":
            reader.opens_bundle(sealed)
            return True
        rows = [row for row, _ in plain(kind)]
        holds = reader.open(kind, list(zip(rows, sealed, strict=True))) == [data for _, data in plain(kind)]
        if with_refusals and kind in ("value", "scope", "column"):
            # In the row of another one.
            holds &= refused(reader, kind, [(rows[1], sealed[0]), (rows[0], sealed[-1])])
        return holds

    def table(self):
        readers = [one.name for one in self.all]
        lines = [["sealed by ↓, opened by →", *readers]]
        lines += [[one.name, *("".join(self.cells.get((one.name, reader), ["–"])) for reader in readers)] for one in self.all]
        rows = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyfold", type=Path, required=True, help="the command")
    for name in ("c", "device", "programs"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    options.keyfold = options.keyfold.resolve()
    with tempfile.TemporaryDirectory() as folder:
        if options.c:
            os.environ["LD_LIBRARY_PATH"] = str(options.c.resolve() / "lib")
        all_of_them, missing = participants(options, Site(options.keyfold, Path(folder)))
        matrix = Matrix(all_of_them)
        for kind in KINDS:
            matrix.fill(kind, Path(folder))
    if not missing and len(all_of_them) == MOST:
        matrix.check(matrix.table() in DOCUMENT.read_text(), f"{DOCUMENT.name} has another table")
    print("\n".join(f"{letter}  {what}" for letter, what in KINDS.values()) + f"\n\n{matrix.table()}\n")
    for what in missing:
        print(f"SKIPPED: {what}")
    print(f"{matrix.passed} passed, {matrix.failed} failed")
    return bool(matrix.failed)


if __name__ == "__main__":
    sys.exit(main())
