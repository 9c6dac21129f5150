"""Opens streams: a second implementation of docs/FORMAT.md §19. Not for production."""
import hashlib, hmac, struct
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import aead
import decoder
from context import check_context, encoded_context, field_name
from decoder import attempt, check

SALT, COMMITMENT, CHUNKS, CHUNK, SEALED_CHUNK = 27, 51, 83, 16384, 16384 + 16

def expand(key, info, length):  # RFC 5869 §2.3, which the library refuses for a key of 32 bytes
    out = block = b""
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([len(out) // 64 + 1]), "sha512")
        out += block
    return out[:length]

class Stream:
    def __init__(self, ring, sealed, field, scope=None, context=(), row=None, row_bound=False, required_context=()):
        check_context(context, required_context)
        name = field_name(field)
        slot = bytes(16) if scope is None else ring.scope(scope)
        check(len(sealed) >= 2 and sealed[0] == 0xF5, "Malformed")  # §19.4
        check(sealed[1] == 4, "Unsupported")
        check(len(sealed) >= CHUNKS, "Malformed")
        check(sealed[26] == 1, "Unsupported")
        key = decoder.derive(ring.key(sealed[2:26], decoder.DATA, slot), b"keyfold/v1/data/04-stream")
        binding = sealed[:26] + b"\x11keyfold/stream/v1" + name + sealed[26:27] + encoded_context(context, row, row_bound)  # §19.2
        derived = expand(key, b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + sealed[SALT:COMMITMENT] + binding, 76)
        check(hmac.compare_digest(derived[44:], sealed[COMMITMENT:CHUNKS]), "DecryptionFailed")
        self.cipher, self.base, self.chunks = aead.AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big"), sealed[CHUNKS:]

    def chunk(self, number, chunk=None):  # §19.3; whether it is the last one
        chunk = self.chunks[number * SEALED_CHUNK:][:SEALED_CHUNK] if chunk is None else chunk
        check(len(chunk) >= 16, "Malformed")
        check(number < 1 << 38, "LimitExceeded")
        opened = attempt("DecryptionFailed", InvalidTag, self.cipher.decrypt, (self.base ^ number).to_bytes(12, "big"), chunk, None)
        return opened, len(chunk) < SEALED_CHUNK

    def read(self, released):  # from the front
        number, is_last = 0, False
        while not is_last:
            opened, is_last = self.chunk(number)
            released += opened
            number += 1

    def length(self):  # proven by the last chunk
        number = len(self.chunks) // SEALED_CHUNK
        return number * CHUNK + len(self.chunk(number)[0])

    def range(self, start, length, released):
        start = start + self.length() if start < 0 else start
        while length:
            number, within = divmod(start, CHUNK)
            if len(self.chunks) - number * SEALED_CHUNK < 16 and start >= self.length():
                return
            opened, is_last = self.chunk(number)
            opened = opened[within:][:length]
            released += opened
            start, length = start + len(opened), 0 if is_last else length - len(opened)

def assemble(cases, parts):
    return b"".join(bytes.fromhex(part) if isinstance(part, str) else assemble(cases, cases[part[0]]["sealed"])[part[1]:part[2]] for part in parts)

def read(ring, sealed, case, released):
    if case.get("mode", "stream") != "stream":  # step 1
        raise decoder.Refused("PolicyRefused")
    stream = Stream(ring, sealed, **case["open"])
    if "chunk" in case:  # by itself
        released += stream.chunk(case["chunk"], stream.chunks)[0]
        assert "nonce" not in case or (stream.base ^ case["chunk"]).to_bytes(12, "big").hex() == case["nonce"]
    elif "range" in case:
        stream.range(*case["range"], released)
    else:
        stream.read(released)

def run(ring_of, cases):
    by_id = {case["id"]: case for case in cases}
    for case in cases:
        released = bytearray()
        try:
            read(ring_of(case), assemble(by_id, case["sealed"]), case, released)
            found = "ok"
        except decoder.Refused as refused:
            found = str(refused)
        expected = (case.get("length"), case.get("sha256")) if found == "ok" else tuple(case.get("released", ()))
        if expected and expected != (len(released), hashlib.sha256(released).hexdigest()):
            found = f"{found}, but another plaintext"
        assert found == case["expect"], f"{case['id']} ({case['note']}): {found}, expected {case['expect']}"
    return len(cases)
