"""Seals the test vectors again with encoder.py, with the nonces that they name: python3 testvectors/reencode.py. The same bytes must result."""
import hashlib
import json
import pathlib

import decoder
import encoder

FOLDER = pathlib.Path(__file__).parent


def cases(name):
    return [case for case in json.loads((FOLDER / f"{name}.json").read_text())["cases"] if case["expect"] == "ok"]


def keys():
    """By key ID, each with its identity."""
    return {case["key_id"]: (bytes.fromhex(case["key"]), bytes.fromhex(case["identity"])) for case in json.loads((FOLDER / "keyring.json").read_text())["cases"]}


def values(ring):
    """Of suites 01 and 02, in frames as well."""
    for case in [case for name in ("field", "deterministic", "value", "text", "frame") for case in cases(name)]:
        stated, expected = case["open"], decoder.from_text(case["text"]) if "text" in case else bytes.fromhex(case["sealed"])
        if case["key_id"] not in ring:  # three frames, of keys that are in their records alone
            continue
        made = encoder.encode(case["type"], bytes.fromhex(case["value"]), case.get("padding"))
        encoded = bytes.fromhex(case.get("encoded", made.hex()))
        assert made == encoded or encoded[0] & 0x80 and "padding" not in case, f"{case['id']}: encoded as {made.hex()}"
        context, key = stated.get("context", ()), ring[case["key_id"]]
        framed = expected[1] == 3
        if framed:
            length = int.from_bytes(expected[26:30], "big")
            value, records = decoder.unframe(expected, True, 65536)
            assert encoder.frame(value, records) == expected and length <= 65536, case["id"]
            expected = value
        if expected[1] == 1:
            sealed = encoder.seal_field(key, stated["field"], encoded, context, stated.get("row"), expected[26:50])
        else:
            sealed = encoder.seal_deterministic(key, stated["field"], encoded, context, stated.get("join_group"))
        assert sealed == expected, f"{case['id']} ({case['note']}): {sealed.hex()}"
        if not framed:
            assert decoder.from_text(encoder.to_text(sealed)) == sealed, case["id"]
        yield case


def documents(ring):
    for case in cases("document"):
        header, nonces = decoder.from_text("kf1.01" + case["header"][6:]), [decoder.base64.urlsafe_b64decode(body["body"][5:21]) for body in case["bodies"]]
        values = [(body["field"], body["path"], encoder.encode(body["type"], bytes.fromhex(body["value"]))) for body in case["bodies"]]
        if any(bytes.fromhex(body["encoded"])[0] & 0x80 for body in case["bodies"]):
            values = [(*value[:2], bytes.fromhex(body["encoded"])) for value, body in zip(values, case["bodies"])]
        made = encoder.seal_document(ring[header[2:26].hex()], values, case.get("beside", ()), case.get("sequence"), case.get("context", ()), case.get("row"), (header[26:], nonces))
        assert made == (case["header"], [body["body"] for body in case["bodies"]], case.get("manifest")), f"{case['id']} ({case['note']})"
        yield case


def bundles(ring):
    for case in cases("bundle"):
        if "passphrase" in case:
            continue
        found = next(key for key in [*ring.values(), None] if key is None or key[0].hex() == case["key"])
        key = found or (bytes.fromhex(case["key"]), bytes.fromhex(case["lineage"]) + b"\2" + bytes.fromhex(case["slot"]) + bytes.fromhex(case["bundle"])[6:10])
        made = encoder.bundle(key, bytes.fromhex(case["transport_key"]), bytes.fromhex(case["device_id"]), case["issued"])
        assert made.hex() == case["bundle"], case["id"]
        yield case


def accumulated():
    """FORMAT.md §11.3: ten thousand values have the hash that it states."""
    source = hashlib.shake_128(b"keyfold accumulated v1").digest(8 << 20)
    at, total = 0, hashlib.shake_128()

    def read(n):
        nonlocal at
        at += n
        assert at <= len(source)
        return source[at - n : at]

    for i in range(10_000):
        key, lineage, slot, generation, nonce, s = (read(n) for n in (32, 16, 16, 4, 24, 6))
        name = read(1 + s[0] % 16).hex()
        context = [(f"k{number}", read(s[2] % 32).hex()) for number in range(s[1] % 4)]
        row = read(8).hex()
        encoded = encoder.encode("bytes", read((s[4] << 8 | s[5]) % 600), (None, 16, "padme")[i % 3])
        counts, identity = s[3] % 2, lineage + bytes([decoder.DATA if i % 2 == 0 else decoder.LOOKUP]) + slot + generation
        if i % 2 == 0:
            total.update(encoder.seal_field((key, identity), name, encoded, context, row if counts else None, nonce))
        else:
            total.update(encoder.seal_deterministic((key, identity), name, encoded, context, name if counts else None))
    found, stated = total.hexdigest(32), (FOLDER.parent / "docs" / "FORMAT.md").read_text()
    assert f"\n{found}\n" in stated, f"10,000 values have the hash {found}"


def streams(ring):
    for case in cases("stream"):
        if len(case["sealed"]) != 1 or "range" in case or "chunk" in case:
            continue
        sealed, stated = bytes.fromhex(case["sealed"][0]), case["open"]
        plain = bytearray()
        view = decoder.Keyring(json.loads((FOLDER / "keyring.json").read_text()), {}, {})
        view.key = lambda key_id, *_: ring[key_id.hex()]
        view.scope = lambda name: None
        encoder.stream.Stream(view, sealed, **stated).read(plain)
        made = encoder.seal_stream(ring[case["key_id"]], stated["field"], bytes(plain), stated.get("context", ()), stated.get("row"), sealed[27:51])
        assert made == sealed, f"{case['id']} ({case['note']})"
        yield case


def main():
    ring = keys()
    count = sum(1 for kind in (values, documents, bundles, streams) for _ in kind(ring))
    accumulated()
    print(f"{count} vectors, and the 10,000 values of FORMAT.md §11.3, are what encoder.py makes")


if __name__ == "__main__":
    main()
