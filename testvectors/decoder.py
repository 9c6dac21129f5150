"""Opens Keyfold values: a second implementation of docs/FORMAT.md, whose sections are cited as §. Not for production."""
import argparse, base64, contextlib, copy, datetime, hashlib, hmac, importlib, io, json, math, pathlib, re, sqlite3, struct, tomllib
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import cmac, hashes, keywrap
from cryptography.hazmat.primitives.ciphers import aead, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ROOT, DATA, LOOKUP = 1, 2, 3
TYPES = ["bytes", "text", "integer", "decimal", "float", "boolean", "date", "timestamp", "json", "null"]
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)

class Refused(Exception): pass  # with an error class of §9

def check(condition, kind):
    if not condition:
        raise Refused(kind)

def attempt(kind, exception, function, *args):
    try:
        return function(*args)
    except exception:
        raise Refused(kind) from None

def derive(key, label, length=32):  # §2.2; `key` is a pair of key and identity
    return HKDF(hashes.SHA256(), length, None, bytes([len(label)]) + label + key[1]).derive(key[0])

def check_mac(key, message, found):
    check(hmac.compare_digest(hmac.digest(key, message, "sha256"), found), "RecordRejected")

def xaes_open(key, nonce, aad, sealed, kind):  # §4.5
    derived = b""
    for i in (1, 2):
        c = cmac.CMAC(algorithms.AES256(key))
        c.update(bytes([0, i]) + b"X\0" + nonce[:12])
        derived += c.finalize()
    return attempt(kind, InvalidTag, aead.AESGCM(derived).decrypt, nonce[12:], sealed, aad)

def take(stream, n):
    part = stream.read(n)
    check(len(part) == n, "Malformed")
    return part

def number(stream, n):
    return int.from_bytes(take(stream, n), "big")

class Record:  # §7.1
    def __init__(self, data):
        r = io.BytesIO(data)
        check(len(data) <= 40960 and take(r, 3) == b"KFR", "Malformed")
        check(number(r, 1) == 1, "Unsupported")
        self.cls, self.state = take(r, 2)
        check(1 <= self.cls <= 4 and 1 <= self.state <= 6, "Unsupported")
        self.key_id, self.commitment, self.root, self.lineage, self.slot = (take(r, n) for n in (24, 32, 24, 16, 16))
        self.tag, _, self.environment, count = take(r, 32), take(r, 32), take(r, number(r, 1)), number(r, 1)
        check(count <= 8 and re.fullmatch(rb"[a-z0-9._-]{1,64}", self.environment), "Malformed")
        self.wraps = [self.wrap(r) for _ in range(count)]
        self.endorsed = number(r, 1)
        self.endorser, self.endorsement = take(r, 24 * self.endorsed), take(r, 32 * self.endorsed)
        extensions, kinds = io.BytesIO(take(r, number(r, 2))), []  # §7.5
        while extensions.tell() < len(extensions.getbuffer()):
            kinds.append(number(extensions, 2))
            take(extensions, number(extensions, 2))
        check(kinds == sorted(set(kinds)), "Malformed")
        check(max(kinds, default=0) < 0x8000, "Unsupported")
        self.mac, self.authenticated = take(r, 32), data[:-32]
        check(not r.read() and self.key_id[4:] == self.commitment[:20] and any(self.key_id[:4]), "Malformed")
        check((count == 0) == (self.state == 6) and self.endorsed <= (self.cls == ROOT), "Malformed")
        self.identity = self.lineage + bytes([self.cls]) + self.slot + self.key_id[:4]  # §2.1

    def wrap(self, r):  # §7.2
        kind, alias, version, data = number(r, 1), take(r, number(r, 1)), take(r, number(r, 1)), take(r, number(r, 2))
        check(kind < 0x80, "Unsupported")
        check(kind and len(data) <= 4096 and (kind != 1 or not alias + version and len(data) == 72), "Malformed")
        check(kind != 2 or re.fullmatch(rb"[a-z0-9_-]{1,64}", alias), "Malformed")
        version = attempt("Malformed", UnicodeDecodeError, version.decode) if kind == 2 else ""
        return kind, alias.decode("latin-1"), version, data

    def vouched(self, root):  # of a root: by itself
        check(self.root == root[1][-4:] + derive(root, b"keyfold/v1/commitment")[:20], "RecordRejected")
        check_mac(derive(root, b"keyfold/v1/root/record-mac"), self.authenticated, self.mac)
        return root

    def committed(self, key):  # §2.3
        check(hmac.compare_digest(derive((key, self.identity), b"keyfold/v1/commitment"), self.commitment), "RecordRejected")
        return key, self.identity

class Keyring:  # `ring`: [keyring] and [lookup] of keyfold.toml; `records`: what the store answers, by key ID
    def __init__(self, ring, keks, records):
        self.environment, self.lineage, self.keks, self.records = ring["environment"].encode(), bytes.fromhex(ring["lineage"]), keks, records
        self.pins, self.scope_names = [bytes.fromhex(pin) for pin in ring["root_pins"]], bytes.fromhex(ring["scope_names"])
        self.lookup = {name: bytes.fromhex(keys["partition"]) for name, keys in ring["lookup"].items()}
        self.framed = ()
        check(self.pins, "Configuration")

    def record(self, key_id, missing="NoMatchingKey"):
        record = Record(attempt(missing, KeyError, self.records.__getitem__, key_id))
        check((record.key_id, record.lineage, record.environment) == (key_id, self.lineage, self.environment), "RecordRejected")
        return record

    def root(self, key_id, depth=0):  # §7.6
        record = self.record(key_id, "RecordRejected")
        check(record.cls == ROOT, "RecordRejected")
        if record.commitment not in self.pins:
            check(record.endorser and depth < 16, "RecordRejected")
            key = derive(self.root(record.endorser, depth + 1), b"keyfold/v1/root/endorsement")
            check_mac(key, record.key_id + record.commitment + record.lineage, record.endorsement)
        check(record.state in (1, 2, 3), "KeyState")
        return record.vouched(self.unwrap(record))

    def unwrap(self, record):  # §7.3, appendix A
        error, asked, binding = "Configuration", [], record.identity + record.commitment + record.environment
        binding = hashlib.sha256(b"keyfold/v1/kms-binding" + binding).digest()
        for kind, alias, version, wrapped in record.wraps:
            if kind != 2 or alias not in self.keks or record.key_id in self.framed and alias in asked:
                continue
            asked.append(alias)
            kek = bytes.fromhex(self.keks[alias])
            ours = version == hashlib.sha256(b"keyfold/v1/local-kek-id" + kek).hexdigest()[:16]
            error = "InvalidCiphertext" if ours else "WrongKey"
            with contextlib.suppress(keywrap.InvalidUnwrap):
                payload = keywrap.aes_key_unwrap_with_padding(kek, wrapped)
                if ours and hmac.compare_digest(payload[32:], binding):
                    return record.committed(payload[:32])
        raise Refused(error)

    def key(self, key_id, cls, slot, frame=None):  # §8.2
        if frame and key_id not in self.records:  # §14.2; the store wins
            ring, own, root = copy.copy(self), *map(Record, frame)
            ring.records, ring.framed = {own.root: frame[1]} | self.records | {key_id: frame[0]}, {own.root} - self.records.keys()
            check((root.key_id, root.lineage, root.environment) == (own.root, self.lineage, self.environment), "RecordRejected")
            ring.record(key_id)
            root.vouched(ring.root(own.root))
            return ring.key(key_id, cls, slot)
        record = self.record(key_id)
        root = record.vouched(self.root(record.root))
        check((record.cls, record.slot) == (cls, slot), "WrongScope")
        check(record.state in (1, 2, 3), "KeyState")
        wrap = next((wrap for kind, _, _, wrap in record.wraps if kind == 1), None)
        if wrap is None:  # an isolated key, unless every wrap is of an unknown type
            check(self.framed == () and any(kind == 2 for kind, *_ in record.wraps), "RecordRejected")
            return self.unwrap(record)
        key = derive(root, b"keyfold/v1/root/child-wrap")
        return record.committed(xaes_open(key, wrap[:24], record.identity + record.commitment, wrap[24:], "RecordRejected"))

    def scope(self, name):  # §7.4
        check(1 <= len(name.encode()) <= 1024, "InvalidInput")
        key = derive(self.key(self.scope_names, LOOKUP, bytes(16)), b"keyfold/v1/lookup/scope-names")
        tag = hmac.digest(key, name.encode(), "sha256")
        slot = next((record[102:118] for record in self.records.values() if record[118:150] == tag), None)
        check(slot, "NoMatchingKey")
        record = self.record(max(i for i, record in self.records.items() if record[4:5] + record[102:118] == bytes([DATA]) + slot))
        check(record.vouched(self.root(record.root)) and (record.cls, record.slot, record.tag) == (DATA, slot, tag), "RecordRejected")
        return slot

    def open(self, value, field, partition=None, join_group=None, scope=None, context=(), row=None, row_bound=False,
             required_context=(), accept=(), max_frame_records=4096):  # §8.1
        context = dict(context)
        check(set(required_context) <= set(context), "PolicyRefused")
        accept = [int(suite, 16) for suite in accept] or ([2] if partition else [1])
        check((not partition or partition in self.lookup) and accept != [3] and 1 <= max_frame_records <= 65536, "Configuration")
        scope = self.scope(scope) if scope is not None and 1 in accept else bytes(16)
        check(len(value) > 1 and value[0] == 0xF5, "Malformed")
        value, frame = unframe(value, 3 in accept, max_frame_records) if value[1] == 3 else (value, None)
        check(len(value) > 1 and value[0] == 0xF5, "Malformed")
        suite, header, overhead = value[1], value[:26], {1: 67, 2: 43}.get(value[1])
        check(overhead, "Unsupported")
        check(overhead <= len(value) <= overhead + 1048576 + 65536, "Malformed")
        check(suite in accept, "PolicyRefused")
        key = self.key(value[2:26], *{1: (DATA, scope), 2: (LOOKUP, self.lookup.get(partition))}[suite], frame)
        check((row is not None) == (row_bound and suite == 1) and row != "", "InvalidInput")
        pairs = sorted((k.encode(), bytes.fromhex(v)) for k, v in (context | ({} if row is None else {"kf:row": row})).items())
        pairs = bytes([len(pairs)]) + b"".join(struct.pack(">H", len(part)) + part for pair in pairs for part in pair)
        kind, name = (2, join_group) if suite == 2 and join_group else (1, field)
        name = bytes([kind, len(name.encode())]) + name.encode()
        if suite == 1:  # §4
            key = derive(key, b"keyfold/v1/data/01-field")
            aad = header + b"\x10keyfold/field/v1" + name + pairs
            return decode(xaes_open(key, value[26:50], aad, value[50:], "DecryptionFailed"))
        siv = aead.AESSIV(derive(key, b"keyfold/v1/lookup/02-deterministic", 64))  # §5
        return decode(attempt("DecryptionFailed", InvalidTag, siv.decrypt, value[26:], [header, name, pairs]))

def unframe(data, accepted, limit):  # §14.1; returns the value and the two records
    check(accepted, "PolicyRefused")
    stream = io.BytesIO(data)
    header, length = take(stream, 26), number(stream, 4)
    check(length <= 65536, "Malformed")
    records, value = io.BytesIO(take(stream, length)), stream.read()
    frame = [take(records, number(records, 2)) for _ in range(2)]
    check(not records.read() and value[:2] != b"\xf5\x03" and value[2:26] == header[2:], "Malformed")
    check(length <= limit, "LimitExceeded")
    return value, frame

def decode(encoded):  # §4.2; returns the type and the canonical bytes
    failed, kind, value = "DecryptionFailed", encoded[0] & 0x7F, encoded[1:]
    if encoded[0] & 0x80:
        value, start, zeros = value.rpartition(b"\x80")
        check(start and not zeros.strip(b"\0"), failed)
    check(1 <= kind <= 10 and len(value) <= 1048576, failed)
    name, number = TYPES[kind - 1], int.from_bytes(value[:17], "big", signed=True)
    text = attempt(failed, UnicodeDecodeError, value.decode) if name in ("text", "json", "decimal") else ""
    check(name != "decimal" or NUMBER.fullmatch(text), failed)
    shortest = min(16, (~number if number < 0 else number).bit_length() // 8 + 1)
    sizes = {"float": 8, "boolean": 1, "date": 4, "timestamp": 12, "null": 0, "integer": shortest}
    check(len(value) == sizes.get(name, len(value)) and (name != "boolean" or number in (0, 1)), failed)
    check(name != "float" or value.hex() == "7ff8000000000000" or not math.isnan(struct.unpack(">d", value)[0]), failed)
    check(name != "timestamp" or int.from_bytes(value[8:], "big") < 10**9, failed)
    return name, value

def from_text(text):  # §6
    match = re.fullmatch(rb"kf1\.([0-9a-f]{2})([0-9a-f]{8})\.(.*)", text.encode(), re.DOTALL)
    check(match, "Malformed")
    check(match[1] in (b"01", b"02"), "Unsupported")
    body = attempt("Malformed", ValueError, base64.urlsafe_b64decode, match[3] + b"==")
    check(base64.urlsafe_b64encode(body).rstrip(b"=") == match[3], "Malformed")
    return b"\xf5" + bytes.fromhex((match[1] + match[2]).decode()) + body

def shown(name, value):
    plain = int.from_bytes(value, "big", signed=True)
    if name in ("float", "date", "timestamp"):
        numbers = struct.unpack({"float": ">d", "date": ">i", "timestamp": ">qI"}[name], value)
        return str(datetime.date(1970, 1, 1) + datetime.timedelta(plain)) if name == "date" else numbers
    return {"null": None, "boolean": plain == 1, "integer": plain, "bytes": value.hex()}.get(name, value.decode(errors="ignore"))

def local_kek(path):  # appendix A
    first, key, checksum = path.read_text().splitlines()
    assert hashlib.sha256(first.encode() + b"\n" + bytes.fromhex(key)).hexdigest()[:16] == checksum, "not a local KEK"
    return key

def main(options):
    if options["vectors"]:
        return importlib.import_module("run_vectors").run(options["vectors"])
    folder, toml = pathlib.Path(options["config"]).parent, tomllib.loads(pathlib.Path(options["config"]).read_text())
    keks = {alias: local_kek(folder / kek["uri"].removeprefix("local:")) for alias, kek in toml["keks"].items() if kek["uri"].startswith("local:")}
    store = sqlite3.connect(folder / toml["store"]["uri"].removeprefix("sqlite:"))  # appendix B
    rows = store.execute("SELECT key_id, record FROM records WHERE lineage = ?", [bytes.fromhex(toml["keyring"]["lineage"])])
    ring = Keyring(toml["keyring"] | {"lookup": toml.get("lookup", {})}, keks, dict(rows))
    row = options["row"] and options["row"].encode().hex()
    context = [(k, v.encode().hex()) for k, v in (pair.split("=", 1) for pair in options["context"])]
    for value in map(from_text, options["values"]):
        own = ["partition", "join_group"] if value[1] == 2 else ["scope"]
        name, canonical = ring.open(value, options["field"], context=context, row=row, row_bound=bool(row), **{o: options[o] for o in own})
        print(json.dumps({"type": name, "value": shown(name, canonical)}, ensure_ascii=False))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ["--vectors", "--config", "--field", "--join-group", "--partition", "--scope", "--row"]:
        parser.add_argument(option, default="default" if option == "--partition" else None)
    parser.add_argument("--context", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("values", nargs="*")
    main(vars(parser.parse_args()))
