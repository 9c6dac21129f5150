"""Opens documents: a second implementation of docs/FORMAT.md §18. Not for production."""
import base64, hmac, re, struct
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
import decoder
from context import check_context, encoded_context, field_name
from decoder import attempt, check

def base64url(text):
    decoded = attempt("Malformed", ValueError, base64.urlsafe_b64decode, text + "==")
    check(base64.urlsafe_b64encode(decoded).decode().rstrip("=") == text, "Malformed")
    return decoded

def expand(key, label, header, has_manifest, context):  # §18.3
    return HKDFExpand(hashes.SHA256(), 32, bytes([len(label)]) + label + header + bytes([has_manifest]) + context).derive(key)

def sized(path):
    check(len(path.encode()) <= 65535, "LimitExceeded")
    return struct.pack(">H", len(path.encode())) + path.encode()

def open_document(ring, header, bodies, beside, manifest, manifest_rule, scope=None, context=(), row=None, row_bound=False, required_context=()):
    check_context(context, required_context)
    names = [field_name(body["field"]) for body in bodies]
    slot = bytes(16) if scope is None else ring.scope(scope)
    match = re.fullmatch(r"kf1\.05([0-9a-f]{8})\.([A-Za-z0-9_-]{59})", header)  # §18.2
    check(match, "Malformed")
    header = bytes.fromhex("f505" + match[1]) + base64url(match[2])
    sealed = []
    for body in bodies:
        check(body["body"].startswith("kf1d."), "Malformed")
        sealed.append(base64url(body["body"][5:]))
        check(29 <= len(sealed[-1]) <= 28 + 1 + 1048576 + 65536, "Malformed")
    paths = [body["path"] for body in bodies] + [path for path, _ in beside]
    check(len(set(paths)) == len(paths), "Malformed")
    if manifest is not None:
        manifest = base64url(manifest)
        check(len(manifest) == 40, "Malformed")
    check(manifest is not None or manifest_rule != "required", "PolicyRefused")
    key = decoder.derive(ring.key(header[2:26], decoder.DATA, slot), b"keyfold/v1/data/05-document")
    encoded = encoded_context(context, row, row_bound)
    sequence = None
    if manifest is not None:  # §18.5
        label = b"keyfold/document/v1/manifest"
        entries = [(body["path"].encode(), b"\1" + sized(body["path"]) + found[-16:]) for body, found in zip(bodies, sealed)]
        entries += [(path.encode(), b"\2" + sized(path) + struct.pack(">Q", len(text.encode())) + text.encode()) for path, text in beside]
        message = bytes([len(label)]) + label + manifest[:8] + struct.pack(">I", len(entries)) + b"".join(entry for _, entry in sorted(entries))
        mac = hmac.digest(expand(key, label, header, True, encoded), message, "sha256")
        check(hmac.compare_digest(mac, manifest[8:]), "DecryptionFailed")
        sequence = int.from_bytes(manifest[:8], "big")
    cipher, values = aead.AESGCM(expand(key, b"keyfold/document/v1/key", header, manifest is not None, encoded)), []
    for name, body, found in zip(names, bodies, sealed):  # §18.4
        aad = b"\x13keyfold/document/v1" + name + sized(body["path"])
        values.append(decoder.decode(attempt("DecryptionFailed", InvalidTag, cipher.decrypt, found[:12], found[12:], aad)))
    return sequence, values

def run(ring, cases):
    stated = ["header", "bodies", "beside", "manifest", "manifest_rule", "scope", "context", "row", "row_bound", "required_context"]
    for case in cases:
        try:
            sequence, values = open_document(ring, **{name: case[name] for name in stated if name in case})
            expected = [(body.get("type"), body.get("value")) for body in case["bodies"]]
            same = [(name, value.hex()) for name, value in values] == expected and sequence == case.get("sequence")
            found = "ok" if same else "another value"
        except decoder.Refused as refused:
            found = str(refused)
        assert found == case["expect"], f"{case['id']} ({case['note']}): {found}, expected {case['expect']}"
    return len(cases)
