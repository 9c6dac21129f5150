"""Opens key bundles of devices: a second implementation of docs/FORMAT.md §16. Not for production."""
import hashlib, hmac, struct
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
import decoder
from decoder import attempt, check

class Device(decoder.Keyring):  # one data key, and nothing else
    def __init__(self, key_id, opened):
        self.key_id, self.opened, self.lookup = key_id, opened, {}

    def key(self, key_id, *_):
        check(key_id == self.key_id, "NoMatchingKey")
        return self.opened

def open_bundle(data, transport_key=None, passphrase=None):
    check(data[:4] == b"KFDB" and len(data) >= 6, "Malformed")
    check(data[4] == 1, "Unsupported")
    check(len(data) == 178, "Malformed")
    key_id, lineage, slot, device_id, issued, salt, *cost = struct.unpack(">6x24s16s16s8sQ16sIII", data[:106])
    bounds = [range(19456, 1048577), range(2, 17), range(1, 9)]
    check(data[5] in (1, 2), "Unsupported")
    check(not any(data[78:106]) if data[5] == 1 else all(n in bound for n, bound in zip(cost, bounds)), "Malformed")
    if data[5] == 2 and passphrase:
        kdf = Argon2id(salt=salt, length=32, iterations=cost[1], lanes=cost[2], memory_cost=cost[0])
        transport_key = kdf.derive(passphrase.encode())
    payload = attempt("DecryptionFailed", keywrap.InvalidUnwrap, keywrap.aes_key_unwrap_with_padding, transport_key, data[106:])
    binding = hashlib.sha256(b"keyfold/device-bundle/v1" + data[:106]).digest()
    check(len(payload) == 64 and hmac.compare_digest(payload[32:], binding), "DecryptionFailed")
    opened = payload[:32], lineage + bytes([decoder.DATA]) + slot + key_id[:4]  # §2.1
    check(key_id[4:] == decoder.derive(opened, b"keyfold/v1/commitment")[:20], "DecryptionFailed")
    return Device(key_id, opened), {"key_id": key_id, "lineage": lineage, "slot": slot, "device_id": device_id, "issued": issued}

def run(cases):
    for case in cases:
        try:
            transport_key = bytes.fromhex(case["transport_key"])
            device, said = open_bundle(bytes.fromhex(case["bundle"]), transport_key, case.get("passphrase"))
            open_bundle(bytes.fromhex(case["bundle"]), transport_key)  # what the passphrase makes, too
            said = {name: part.hex() if isinstance(part, bytes) else part for name, part in said.items()}
            name, canonical = device.open(bytes.fromhex(case["sealed"]), **case["open"])
            same = said.items() <= case.items() and device.opened[0].hex() == case["key"]
            found = "ok" if same and (name, canonical.hex()) == (case["type"], case["value"]) else "another value"
        except decoder.Refused as refused:
            found = str(refused)
        assert found == case["expect"], f"{case['id']} ({case['note']}): {found}, expected {case['expect']}"
    return len(cases)
