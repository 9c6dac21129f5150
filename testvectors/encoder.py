"""Seals what decoder.py opens: a second implementation of docs/FORMAT.md, whose sections are cited as §. Not for production.

What is drawn at random can be given, so that vectors come out byte for byte; whoever gives a nonce twice shows two plaintexts.
"""
import base64, datetime, decimal, hashlib, hmac, os, struct
from cryptography.hazmat.primitives import cmac, keywrap
from cryptography.hazmat.primitives.ciphers import aead, algorithms
import document, json_document, stream
from context import check_context, encoded_context, field_name
from decoder import LOOKUP, ROOT, TYPES, check, derive

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

def canonical(plain):  # §4.2; the type and the canonical bytes
    if isinstance(plain, (bool, type(None))):
        return ("null", b"") if plain is None else ("boolean", bytes([plain]))
    if isinstance(plain, int):
        return "integer", plain.to_bytes((~plain if plain < 0 else plain).bit_length() // 8 + 1, "big", signed=True)
    if isinstance(plain, float):
        return "float", bytes.fromhex("7ff8000000000000") if plain != plain else struct.pack(">d", plain)
    if isinstance(plain, datetime.datetime):
        microseconds = (plain - EPOCH) // datetime.timedelta(microseconds=1)
        return "timestamp", struct.pack(">qI", microseconds // 10**6, microseconds % 10**6 * 1000)
    if isinstance(plain, datetime.date):
        return "date", struct.pack(">i", plain.toordinal() - EPOCH.toordinal())
    if isinstance(plain, decimal.Decimal):
        return "decimal", str(plain).encode()
    return ("text", plain.encode()) if isinstance(plain, str) else ("bytes", bytes(plain))

def encode(name, value, padding=None):  # §4.2
    check(len(value) <= 1048576, "LimitExceeded")
    kind = TYPES.index(name) + 1
    if padding in (None, "none"):
        return bytes([kind]) + value
    p = 1 + len(value) + 1
    if padding == "padme":
        e = p.bit_length() - 1
        padding = 1 << max(e - e.bit_length(), 0)
    return (bytes([kind | 0x80]) + value + b"\x80").ljust(-(-p // padding) * padding, b"\0")

def key_id(key):  # §2.3; `key` is a pair of key and identity
    return key[1][-4:] + derive(key, b"keyfold/v1/commitment")[:20]

def xaes_seal(key, nonce, aad, plain):  # §4.5
    derived = b""
    for i in (1, 2):
        c = cmac.CMAC(algorithms.AES256(key))
        c.update(bytes([0, i]) + b"X\0" + nonce[:12])
        derived += c.finalize()
    return aead.AESGCM(derived).encrypt(nonce[12:], plain, aad)

def seal_field(key, field, encoded, context=(), row=None, nonce=None):  # §4
    check_context(context)
    nonce, header = nonce or os.urandom(24), b"\xf5\x01" + key_id(key)
    aad = header + b"\x10keyfold/field/v1" + field_name(field) + encoded_context(context, row, row is not None)
    return header + nonce + xaes_seal(derive(key, b"keyfold/v1/data/01-field"), nonce, aad, encoded)

def seal_batch(key, field, encoded, context=(), rows=None):  # §4.4, of one chunk
    check(len(encoded) <= 4096, "LimitExceeded")
    prefix, seed = os.urandom(12), os.urandom(32)
    nonces = aead.AESGCM(seed).encrypt(bytes(12), bytes(12 * len(encoded)), None)
    rows = rows or [None] * len(encoded)
    return [seal_field(key, field, one, context, row, prefix + nonces[12 * i :][:12]) for i, (one, row) in enumerate(zip(encoded, rows, strict=True))]

def seal_deterministic(key, field, encoded, context=(), join_group=None):  # §5
    check_context(context)
    name = field_name(join_group or field)
    header, name = b"\xf5\x02" + key_id(key), bytes([2 if join_group else 1]) + name[1:]
    siv = aead.AESSIV(derive(key, b"keyfold/v1/lookup/02-deterministic", 64))
    return header + siv.encrypt(encoded, [header, name, encoded_context(context)])

def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

def to_text(sealed):  # §6
    return f"kf1.{sealed[1:6].hex()}.{base64url(sealed[6:])}"

def frame(sealed, records):  # §14.1; `records`: of the key and of its root
    records = b"".join(struct.pack(">H", len(record)) + record for record in records)
    return b"\xf5\x03" + sealed[2:26] + struct.pack(">I", len(records)) + records + sealed

def seal_stream(key, field, plain, context=(), row=None, salt=None):  # §19
    check_context(context)
    salt, header = salt or os.urandom(24), b"\xf5\x04" + key_id(key)
    binding = header + b"\x11keyfold/stream/v1" + field_name(field) + b"\1" + encoded_context(context, row, row is not None)
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + binding
    derived = stream.expand(derive(key, b"keyfold/v1/data/04-stream"), info, 76)
    cipher, base = aead.AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big")
    chunks = [plain[at : at + stream.CHUNK] for at in range(0, len(plain) + 1, stream.CHUNK)]
    return header + b"\1" + salt + derived[44:] + b"".join(cipher.encrypt((base ^ i).to_bytes(12, "big"), chunk, None) for i, chunk in enumerate(chunks))

def seal_document(key, values, beside=(), sequence=None, context=(), row=None, drawn=None):  # §18
    """Returns the texts of header, bodies and manifest. `values`: triples of field, path and encoded value; `beside`: pairs of path and text;
    `sequence`: None without a manifest; `drawn`: document ID and nonces."""
    check_context(context)
    paths = [path for _, path, _ in values] + [path for path, _ in beside]
    check(len(set(paths)) == len(paths), "InvalidInput")
    document_id, nonces = drawn or (os.urandom(24), [os.urandom(12) for _ in values])
    header, has_manifest = b"\xf5\x05" + key_id(key) + document_id, sequence is not None
    key, bound = derive(key, b"keyfold/v1/data/05-document"), encoded_context(context, row, row is not None)
    cipher = aead.AESGCM(document.expand(key, b"keyfold/document/v1/key", header, has_manifest, bound))
    bodies = [nonce + cipher.encrypt(nonce, encoded, b"\x13keyfold/document/v1" + field_name(field) + document.sized(path))
              for (field, path, encoded), nonce in zip(values, nonces, strict=True)]
    manifest = None
    if has_manifest:  # §18.5
        label = b"keyfold/document/v1/manifest"
        entries = [(path.encode(), b"\1" + document.sized(path) + body[-16:]) for (_, path, _), body in zip(values, bodies)]
        entries += [(path.encode(), b"\2" + document.sized(path) + struct.pack(">Q", len(text.encode())) + text.encode()) for path, text in beside]
        number = struct.pack(">Q", sequence)
        message = bytes([len(label)]) + label + number + struct.pack(">I", len(entries)) + b"".join(entry for _, entry in sorted(entries))
        manifest = base64url(number + hmac.digest(document.expand(key, label, header, True, bound), message, "sha256"))
    return to_text(header), ["kf1d." + base64url(body) for body in bodies], manifest

def json_value(text, node):  # what a value of JSON is sealed as
    bare = text[node.start : node.end]
    if node.text is not None:
        return canonical(node.text)
    simple = {"true": True, "false": False, "null": None}
    return canonical(simple[bare]) if bare in simple else ("json" if bare[0] in "{[" else "decimal", bare.encode())

def protect_json(key, lookup_key, policy, kind, text, context=(), sequence=0, padding=None):  # §18.6, one document that is not inside of another
    root, values, beside, replaced, clear = json_document.parse(text), [], [], [], {}
    for name, field in policy["fields"].items():
        for path, node in (found for query in field["paths"] for found in json_document.select(root, query)):
            if field["mode"] == "document":
                values.append((name, path, encode(*json_value(text, node), padding)))
                replaced.append(node)
                continue
            kept = field.get("keep_prefix", "")
            kept = kept if kept and node.text.startswith(kept) else ""
            sealed = kept + to_text(seal_deterministic(lookup_key, name, encode("text", node.text.removeprefix(kept).encode()), context))
            beside.append((path, sealed))
            clear[node] = sealed
    row = None
    if kind["row_binding"] != "none":
        [(_, node)] = json_document.select(root, kind["row_binding"])
        row = (text[node.start : node.end] if node.text is None else node.text).encode().hex()
    header, bodies, manifest = seal_document(key, values, beside, sequence if kind.get("manifest", "required") != "none" else None, context, row)
    for node, body in sorted([*zip(replaced, bodies), *clear.items()], key=lambda pair: -pair[0].start):
        text = text[: node.start] + f'"{body}"' + text[node.end :]
    return with_header(text, header, manifest, kind.get("header", "member"))

def with_header(text, header, manifest, place):
    root = json_document.parse(text)
    extension = root.member("extension")
    inside = [("document", header)] + ([("manifest", manifest)] if manifest else [])
    comma = "," if root.children else ""
    start = root.start + 1
    if place == "fhir-extension" and (not extension or extension.kind == "[" and extension.children):
        parts = ",".join(f'{{"url":"{url}","valueString":"{said}"}}' for url, said in inside)
        entry = f'{{"url":"{json_document.URL}","extension":[{parts}]}}'
        if not extension:
            return f'{text[:start]}"extension":[{entry}]{comma}{text[start:]}'
        end = extension.children[-1][2].end
        return f"{text[:end]},{entry}{text[end:]}"
    parts = ",".join(f'"{name}":"{said}"' for name, said in inside)
    return f'{text[:start]}"_keyfold":{{{parts}}}{comma}{text[start:]}'

def bundle(key, transport_key, device_id=None, issued=0):  # §16, under a transport key
    head = b"KFDB\1\1" + key_id(key) + key[1][:16] + key[1][17:33] + (device_id or os.urandom(8)) + struct.pack(">Q", issued) + bytes(28)
    return head + keywrap.aes_key_wrap_with_padding(transport_key, key[0] + hashlib.sha256(b"keyfold/device-bundle/v1" + head).digest())

class Maker:
    """A new keyring: its keys, and their records (§7) in a backup (appendix D). `keks`: alias → KEK, in hexadecimal."""

    def __init__(self, environment, keks, created=1790000000):
        self.environment, self.keks, self.created = environment.encode(), keks, created
        self.lineage, self.records, self.generation = os.urandom(16), [], 0
        self.root = self.identity(ROOT, bytes(16))
        self.record(self.root, bytes(16), bytes(32), [self.kek_wrap(self.root, *kek) for kek in keks.items()])
        self.scope_names = self.key(LOOKUP, bytes(16))

    def identity(self, cls, slot):  # a new key
        self.generation += 1
        return os.urandom(32), self.lineage + bytes([cls]) + slot + struct.pack(">I", self.generation)

    def kek_wrap(self, key, alias, kek):  # §7.3, appendix A
        binding = key[1] + derive(key, b"keyfold/v1/commitment") + self.environment
        payload = key[0] + hashlib.sha256(b"keyfold/v1/kms-binding" + binding).digest()
        wrapped = keywrap.aes_key_wrap_with_padding(bytes.fromhex(kek), payload)
        version = hashlib.sha256(b"keyfold/v1/local-kek-id" + bytes.fromhex(kek)).hexdigest()[:16].encode()
        return b"\2" + bytes([len(alias)]) + alias.encode() + bytes([len(version)]) + version + struct.pack(">H", len(wrapped)) + wrapped

    def key(self, cls, slot, scope=None):  # under the root
        key, nonce, tag = self.identity(cls, slot), os.urandom(24), bytes(32)
        sealed = xaes_seal(derive(self.root, b"keyfold/v1/root/child-wrap"), nonce, key[1] + derive(key, b"keyfold/v1/commitment"), key[0])
        if scope is not None:  # §7.4
            tag = hmac.digest(derive(self.scope_names, b"keyfold/v1/lookup/scope-names"), scope.encode(), "sha256")
        self.record(key, slot, tag, [b"\1\0\0" + struct.pack(">H", len(nonce + sealed)) + nonce + sealed])
        return key

    def record(self, key, slot, tag, wraps):  # §7.1
        data = b"KFR\1" + bytes([key[1][16], 2]) + key_id(key) + derive(key, b"keyfold/v1/commitment") + key_id(self.root) + self.lineage + slot + tag
        data += struct.pack(">4Q", 1, *[self.created] * 3) + bytes([len(self.environment)]) + self.environment
        data += bytes([len(wraps)]) + b"".join(wraps) + b"\0" + b"\0\0"
        self.records.append(data + hmac.digest(derive(self.root, b"keyfold/v1/root/record-mac"), data, "sha256"))

    def backup(self):  # appendix D
        text, link = "keyfold-records 1 backup\n", hashlib.sha256(b"0" * 16 + b"keyfold-records 1 backup").hexdigest()[:16]
        def add(text, link, entry):
            link = hashlib.sha256((link + entry).encode()).hexdigest()[:16]
            return text + f"{entry} {link}\n", link
        for record in self.records:
            text, link = add(text, link, f"record {record.hex()}")
        return add(text, link, f"end {len(self.records)} {hashlib.sha256(text.encode()).hexdigest()}")[0]

    def configuration(self, lookup):  # appendix B; `lookup`: partition → key
        lines = ["version = 1", "[keyring]", 'name = "second"', f'environment = "{self.environment.decode()}"', f'lineage = "{self.lineage.hex()}"']
        lines += [f'root_pins = ["{derive(self.root, b"keyfold/v1/commitment").hex()}"]', f'scope_names = "{key_id(self.scope_names).hex()}"']
        lines += ["[store]", 'uri = "sqlite:keys.db"', *(f'[keks.{alias}]\nuri = "local:{alias}.kek"' for alias in self.keks)]
        for name, key in lookup.items():
            lines += [f'[lookup."{name}"]', f'partition = "{key[1][17:33].hex()}"', f'seals = "{key_id(key).hex()}"', "opens = []"]
        return "\n".join(lines) + "\n"

def local_kek(kek):  # appendix A
    first = b"keyfold-local-kek-1\n"
    return first.decode() + f"{kek}\n{hashlib.sha256(first + bytes.fromhex(kek)).hexdigest()[:16]}\n"
