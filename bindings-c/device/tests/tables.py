"""Makes C tables of the test vectors that concern a device, every case of suite 01 and of values, and bundles: tables.py tables.h."""

import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

VECTORS = Path(__file__).resolve().parents[3] / "testvectors"
TYPES = ["bytes", "text", "integer", "decimal", "float", "boolean", "date", "timestamp", "json", "null"]
CODES = {
    "ok": "KF_OK", "DecryptionFailed": "KF_ERR_DECRYPTION_FAILED", "Malformed": "KF_ERR_MALFORMED", "Unsupported": "KF_ERR_UNSUPPORTED",
    "NoMatchingKey": "KF_ERR_NO_MATCHING_KEY", "InvalidInput": "KF_ERR_INVALID_INPUT", "RecordRejected": "KF_ERR_RECORD_REJECTED",
    "LimitExceeded": "KF_ERR_LIMIT_EXCEEDED",
}
# What only a keyring can say, and what a device says instead: it has one key, and neither policy nor scopes.
ON_A_DEVICE = {
    "suite 03": "Unsupported", "suite byte of the other live suite": "Unsupported", "no row given": "DecryptionFailed",
    "empty row given": "InvalidInput", "another scope": "NoMatchingKey",
    "no scope stated": "NoMatchingKey", "keyring's value, scope stated": "NoMatchingKey",
}
# About policies and names of scopes alone.
NOT_ON_A_DEVICE = {"row given where none is bound", "unknown scope", "empty scope name", "scope in upper case", "required context key not given"}
TRANSPORT_KEY = bytes(range(32))


def load(name):
    return json.loads((VECTORS / f"{name}.json").read_text())


PASSPHRASE = b"correct horse battery staple"


def bundle(key, lineage, number, passphrase=None):
    """A bundle of a key of the vectors, whose device ID is `number`."""
    header = b"KFDB\x01" + (b"\x02" if passphrase else b"\x01") + bytes.fromhex(key["key_id"]) + lineage + bytes.fromhex(key["slot"])
    header += number.to_bytes(8) + (1_700_000_000_000_000 + number).to_bytes(8)
    transport_key = TRANSPORT_KEY
    if passphrase:
        salt, memory, passes, lanes = bytes(range(16)), 19_456, 2, 2
        header += salt + memory.to_bytes(4) + passes.to_bytes(4) + lanes.to_bytes(4)
        transport_key = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(passphrase)
    else:
        header += bytes(28)
    binding = Hash(SHA256())
    binding.update(b"keyfold/device-bundle/v1" + header)
    return header + aes_key_wrap_with_padding(transport_key, bytes.fromhex(key["key"]) + binding.finalize())


class Tables:
    def __init__(self):
        self.lines, self.names = ["#include <keyfold_device.h>", ""], {}

    def bytes(self, data):
        """The name of an array with these bytes, and how many they are."""
        if data is None:
            return "NULL, 0"
        if data not in self.names:
            self.names[data] = f"b{len(self.names)}"
            digits = ",".join(str(byte) for byte in data) or "0"
            self.lines.append(f"static const uint8_t {self.names[data]}[] = {{{digits}}};")
        return f"{self.names[data]}, {len(data)}"

    def pairs(self, pairs):
        if not pairs:
            return "NULL, 0"
        parts = []
        for key, value in pairs:
            key, value = self.bytes(key.encode()), self.bytes(bytes.fromhex(value))
            parts.append(f"{{(const char *){key}, {value}}}")
        name = f"p{len(self.lines)}"
        self.lines.append(f"static const kfd_pair {name}[] = {{{', '.join(parts)}}};")
        return f"{name}, {len(parts)}"


def expected(case, pairs, row):
    """What a device says, or None where there is nothing to ask it."""
    if case["note"] in NOT_ON_A_DEVICE:
        return None
    context = sum(len(key.encode()) + len(value) // 2 + 4 for key, value in pairs) + (len(row) + 10 if row else 0) + 1
    if len(pairs) > 8 or context > 512 and case["expect"] in ("ok", "DecryptionFailed"):
        return "LimitExceeded"
    if case["note"] in ON_A_DEVICE:
        return ON_A_DEVICE[case["note"]]
    return "NoMatchingKey" if case["note"].startswith("key ID of ") else case["expect"]


def bundle_vectors(tables):
    """The cases of bundle.json. Those under a passphrase are for kfd_key_open_passphrase, which needs more memory than a microcontroller has."""
    cases = []
    for case in load("bundle")["cases"]:
        data = bytes.fromhex(case["bundle"])
        is_ok = case["expect"] == "ok"
        under_passphrase = data[5:6] == b"\x02" and case["expect"] in ("ok", "DecryptionFailed")
        binding = "{NULL, 0, NULL, 0, NULL, 0}"
        if is_ok:
            with_ = case["open"]
            binding = ("{(const char *)" + tables.bytes(with_["field"].encode()) + ", " + tables.bytes(bytes.fromhex(with_["row"])) + ", "
                       + tables.pairs(with_.get("context", [])) + "}")
        given = lambda name: tables.bytes(bytes.fromhex(case[name]) if is_ok else None)
        cases.append("    {" + ", ".join([
            json.dumps(f"{case['id']} {case['note']}"), tables.bytes(data), tables.bytes(bytes.fromhex(case["transport_key"])),
            tables.bytes(case["passphrase"].encode() if "passphrase" in case else None),
            "KF_ERR_INVALID_INPUT" if under_passphrase else CODES[case["expect"]], CODES[case["expect"]],
            given("key_id").split(",")[0], given("device_id").split(",")[0], str(case.get("issued", 0)) + "u", binding,
            str(TYPES.index(case["type"]) + 1 if is_ok else 0), given("value"), given("nonce").split(",")[0], given("sealed"),
        ]) + "},")
    return [
        "", "typedef struct {", "    const char *name;", "    const uint8_t *bundle;", "    size_t bundle_len;",
        "    const uint8_t *transport_key;", "    size_t transport_key_len;", "    const uint8_t *passphrase;", "    size_t passphrase_len;",
        "    kf_result expect, expect_passphrase;", "    const uint8_t *key_id, *device_id;", "    uint64_t issued;", "    kfd_binding binding;",
        "    uint8_t type;", "    const uint8_t *value;", "    size_t value_len;", "    const uint8_t *nonce;", "    const uint8_t *sealed;",
        "    size_t sealed_len;", "} bundle_vector;", "", "static const bundle_vector BUNDLE_VECTORS[] = {", *cases, "};",
        f"enum {{ BUNDLE_VECTORS_LEN = {len(cases)} }};",
    ]


def main(out):
    keyring = load("keyring")
    lineage = bytes.fromhex(keyring["lineage"])
    keys = [key for key in keyring["cases"] if key["class"] == "data"]
    by_id = {key["key_id"]: at for at, key in enumerate(keys)}
    by_scope = {key.get("scope"): at for at, key in enumerate(keys) if key["state"] == "active"}
    tables, cases, skipped = Tables(), [], 0
    for file in ("field", "value"):
        for case in load(file)["cases"]:
            open_with, sealed = case["open"], bytes.fromhex(case["sealed"])
            pairs = open_with.get("context", [])
            row = bytes.fromhex(open_with["row"]) if "row" in open_with else None
            expect = expected(case, pairs, row)
            if expect is None:
                skipped += 1
                continue
            key = by_scope[open_with.get("scope")]
            if expect in ("ok", "DecryptionFailed"):
                key = by_id.get(case.get("key_id", sealed[2:26].hex()), key)
            is_sealed_here = case["expect"] == "ok" and case.get("padding", "none") == "none"
            cases.append("    {" + ", ".join([
                json.dumps(f"{case['id']} {case['note']}"), str(key),
                "{(const char *)" + tables.bytes(open_with["field"].encode()) + ", " + tables.bytes(row) + ", " + tables.pairs(pairs) + "}",
                str(TYPES.index(case["type"]) + 1 if "type" in case else 0),
                tables.bytes(bytes.fromhex(case["value"]) if "value" in case else None),
                tables.bytes(bytes.fromhex(case["nonce"]) if is_sealed_here else None).split(",")[0],
                tables.bytes(sealed), CODES[expect],
            ]) + "},")
    of_bundles = bundle_vectors(tables)
    bundles = [bundle(key, lineage, number + 1) for number, key in enumerate(keys)]
    lines = tables.lines + [
        "", "typedef struct {", "    const char *name;", "    size_t key;", "    kfd_binding binding;", "    uint8_t type;",
        "    const uint8_t *value;", "    size_t value_len;", "    const uint8_t *nonce; /* where a device can seal it */",
        "    const uint8_t *sealed;", "    size_t sealed_len;", "    kf_result expect;", "} vector;", "",
        "static const vector VECTORS[] = {", *cases, "};",
        f"enum {{ VECTORS_LEN = {len(cases)}, KEYS_LEN = {len(keys)}, DEFAULT_KEY = {by_scope[None]}, OTHER_KEY = {by_scope['clinic-17']} }};",
        f"static const uint8_t TRANSPORT_KEY[] = {{{','.join(map(str, TRANSPORT_KEY))}}};",
        f"static const uint8_t BUNDLES[][KFD_BUNDLE_LEN] = {{{', '.join('{' + ','.join(map(str, one)) + '}' for one in bundles)}}};",
        f"static const char PASSPHRASE[] = \"{PASSPHRASE.decode()}\";",
        "static const uint8_t PASSPHRASE_BUNDLE[] = {"
        + ",".join(map(str, bundle(keys[by_scope[None]], lineage, 1000, PASSPHRASE))) + "};",
        "static const uint8_t KEY_IDS[][KFD_KEY_ID_LEN] = {"
        + ", ".join("{" + ",".join(map(str, bytes.fromhex(key["key_id"]))) + "}" for key in keys) + "};",
    ]
    out.write_text("\n".join(lines + of_bundles) + "\n")
    return len(cases), skipped


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    main(out)
