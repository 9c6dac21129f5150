"""Opens streams: a second implementation of docs/FORMAT.md §19. Not for production."""
import hashlib, hmac, struct
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import aead
import decoder
from decoder import attempt, check

SALT, COMMITMENT, CHUNKS, SEALED_CHUNK = 27, 51, 83, 16384 + 16

def expand(key, info, length):  # RFC 5869 §2.3, which the library refuses for a key of 32 bytes
    out = block = b""
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([len(out) // 64 + 1]), "sha512")
        out += block
    return out[:length]

def open_stream(ring, sealed, field, scope=None, context=(), row=None, row_bound=False, required_context=()):
    check(set(required_context) <= {key for key, _ in context}, "PolicyRefused")
    slot = bytes(16) if scope is None else ring.scope(scope)
    check(len(sealed) >= 2 and sealed[0] == 0xF5, "Malformed")  # §19.4
    check(sealed[1] == 4, "Unsupported")
    check(len(sealed) >= CHUNKS, "Malformed")
    check(sealed[26] == 1, "Unsupported")
    key = decoder.derive(ring.key(sealed[2:26], decoder.DATA, slot), b"keyfold/v1/data/04-stream")
    check((row is not None) == row_bound and row != "", "InvalidInput")
    pairs = sorted((k.encode(), bytes.fromhex(v)) for k, v in (dict(context) | ({} if row is None else {"kf:row": row})).items())
    encoded = bytes([len(pairs)]) + b"".join(struct.pack(">H", len(part)) + part for pair in pairs for part in pair)
    name = field.encode()  # §19.2
    binding = sealed[:26] + b"\x11keyfold/stream/v1\1" + bytes([len(name)]) + name + sealed[26:27] + encoded
    derived = expand(key, b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + sealed[SALT:COMMITMENT] + binding, 76)
    check(hmac.compare_digest(derived[44:], sealed[COMMITMENT:CHUNKS]), "DecryptionFailed")
    cipher, base = aead.AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big")
    out, at, number = b"", CHUNKS, 0
    while True:  # §19.3
        chunk = sealed[at:at + SEALED_CHUNK]
        check(len(chunk) >= 16, "Malformed")
        out += attempt("DecryptionFailed", InvalidTag, cipher.decrypt, (base ^ number).to_bytes(12, "big"), chunk, None)
        if len(chunk) < SEALED_CHUNK:
            return out
        at, number = at + SEALED_CHUNK, number + 1

def assemble(cases, parts):
    return b"".join(bytes.fromhex(part) if isinstance(part, str) else assemble(cases, cases[part[0]]["sealed"])[part[1]:part[2]] for part in parts)

def run(ring, cases):
    by_id = {case["id"]: case for case in cases}
    for case in cases:
        try:
            opened = open_stream(ring, assemble(by_id, case["sealed"]), **case["open"])
            same = (len(opened), hashlib.sha256(opened).hexdigest()) == (case.get("length"), case.get("sha256"))
            found = "ok" if same else "another plaintext"
        except decoder.Refused as refused:
            found = str(refused)
        assert found == case["expect"], f"{case['id']} ({case['note']}): {found}, expected {case['expect']}"
    return len(cases)
