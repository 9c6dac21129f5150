"""Tokens of blind indexes, format-preserving encryption, proofs of random tokens: a second implementation of docs/FORMAT.md §17. Not for production."""
import datetime, hmac, math, re, struct, unicodedata
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
import decoder
from context import check_context, encoded_context, field_name
from decoder import check

KINDS = ["exact", "case-folded", "digits", "date", "date-part", "phone", "prefix"]
PARTS = {"year": (1, slice(0, 4)), "year-month": (2, slice(0, 7)), "month-day": (3, slice(5, None))}
FORMATS = {"digits": (1, 10), "alphanumeric": (2, 36), "luhn": (3, 10), "timestamp": (4, 2)}
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
EPOCH = datetime.datetime(1970, 1, 1)
YEARS = -719528 * 86400, 2932897 * 86400  # 0000 to 9999, in seconds

# Unicode 16.0.0, where the tables of Python have another version: category and folding of what the vectors use of 15.0 to 16.0, and what came with 17.0.
ADDED = {"\ua7dc": ("Lu", "\u019b"), "\u1c89": ("Lu", "\u1c8a"), "\u1c8a": ("Ll", "\u1c8a"), "\U00010d40": ("Nd", "\U00010d40")}
LATER = "\ua7ce"

def category(c):
    return "Cn" if c in LATER else ADDED[c][0] if c in ADDED else unicodedata.category(c)

def bound(case):  # name and context, as in §4.3
    check_context(case["context"])
    return field_name(case["field"]) + encoded_context(case["context"])

def fold(text):  # §17.2
    check(all(category(c) not in ("Cn", "Co") for c in text), "InvalidInput")
    for form in ("NFD", "NFKC"):
        text = "".join(ADDED[c][1] if c in ADDED else c.casefold() for c in unicodedata.normalize(form, text))
    return " ".join(word for word in unicodedata.normalize("NFKC", text).split(" ") if word)

def date(name, value):
    check(name in ("text", "date", "timestamp"), "InvalidInput")
    if name == "text":
        match = re.fullmatch(rb"([0-9]{4})-([0-9]{2})-([0-9]{2})", value)
        check(match or not value, "InvalidInput")
        if match:
            year, month, day = map(int, match.groups())
            # A year like it, since Python has no year 0000.
            decoder.attempt("InvalidInput", ValueError, datetime.date, 2000 + year % 400, month, day)
        return value.decode()
    days = struct.unpack(">i", value)[0] if name == "date" else struct.unpack(">qI", value)[0] // 86400
    cycles, rest = divmod(days + 719528, 146097)  # of 400 years, from 0000-01-01
    there = datetime.date(2000, 1, 1) + datetime.timedelta(rest)
    year = 400 * cycles + there.year - 2000
    check(0 <= year <= 9999, "InvalidInput")
    return f"{year:04}-{there.month:02}-{there.day:02}"

def phone(text, country, trunk, international):  # §17.3
    text = text.strip(" ")
    if not text:
        return ""
    has_plus, rest = text[0] == "+", text.removeprefix("+")
    check(re.fullmatch(r"[0-9 ./()\u00a0-]*", rest), "InvalidInput")
    digits = re.sub("[^0-9]", "", rest)
    prefix = "" if has_plus else next((p for p in ("00", international) if p and digits.startswith(p)), None)
    if prefix is None:
        check(country, "InvalidInput")
        digits = country + digits.removeprefix(trunk or "")
    else:
        check(not re.search(r"\([^()0-9]*0[^()0-9]*\)", rest), "InvalidInput")
        digits = digits[len(prefix) :]
    check(digits[:1] != "1" or len(digits) == 11, "InvalidInput")
    check(7 <= len(digits) <= 15 and digits[0] != "0", "InvalidInput")
    return digits

def normal_forms(index, name, value, search):  # pairs of parameter and bytes
    if name == "null":
        return []
    kind = index["kind"]
    if kind == "exact":
        return [(0, bytes([decoder.TYPES.index(name) + 1]) + value)]
    if kind in ("date", "date-part"):
        number, part = PARTS[index["part"]] if kind == "date-part" else (0, slice(None))
        form = date(name, value)
        return [(number, form[part].encode())] if form else []
    check(name == "text" or kind == "digits" and name == "integer", "InvalidInput")
    text = str(int.from_bytes(value, "big", signed=True)) if name == "integer" else value.decode()
    if kind == "digits":
        check(not any(c not in "0123456789" and category(c)[0] == "N" for c in text), "InvalidInput")
    form = {"digits": lambda: re.sub("[^0-9]", "", text), "phone": lambda: phone(text, index["country_code"], index["trunk_prefix"], index["international_prefix"])}.get(kind, lambda: fold(text))()
    lengths = index["length"] if kind == "prefix" else [0]
    if search and form and kind == "prefix":  # the greatest that is not too long
        lengths = [n for n in lengths if n <= len(form)][-1:]
        check(lengths, "InvalidInput")
    return [(n, form[:n or None].encode()) for n in lengths] if form else []

def tokens(key, case):  # §17.1
    index, found, messages = case["index"], [], []
    lengths = index.get("length", [3])
    check(1 <= index["bits"] <= 63 or index["bits"] == 256, "Configuration")
    check(index["kind"] != "prefix" or index["bits"] <= 16 and len(lengths) <= 8 and all(3 <= n <= 32 for n in lengths), "Configuration")
    for parameter, form in normal_forms(index, case["type"], bytes.fromhex(case["value"]), "search" in case):
        rule = struct.pack(">BBBH", KINDS.index(index["kind"]) + 1, parameter, 1, index["bits"])
        messages.append(b"\x10keyfold/index/v1" + bound(case) + rule + form)
        mac = hmac.digest(decoder.derive(key, b"keyfold/v1/lookup/index"), messages[-1], "sha256")
        found.append(mac.hex() if index["bits"] == 256 else int.from_bytes(mac[:8], "big") >> 64 - index["bits"])
    return messages, sorted(found)

def number(numerals, radix):
    value = 0
    for numeral in numerals:
        value = value * radix + numeral
    return value

def ff1(key, radix, tweak, x, sign):  # NIST SP 800-38G, algorithms 7 and 8
    check(radix ** len(x) >= 10**6, "InvalidInput")
    block = lambda data: Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(data)
    n, u = len(x), len(x) // 2
    v, a, b = n - u, x[: n // 2], x[n // 2 :]
    size = ((radix**v - 1).bit_length() + 7) // 8
    d = 4 * math.ceil(size / 4) + 4
    p = bytes([1, 2, 1]) + radix.to_bytes(3, "big") + bytes([10, u % 256]) + struct.pack(">II", n, len(tweak))
    for i in range(10)[::sign]:
        if sign < 0:
            a, b = b, a
        q = tweak + bytes((-len(tweak) - size - 1) % 16) + bytes([i]) + number(b, radix).to_bytes(size, "big")
        r = bytes(16)
        for at in range(0, len(p + q), 16):
            r = block(bytes(one ^ other for one, other in zip(r, (p + q)[at : at + 16])))
        s = r + b"".join(block((int.from_bytes(r, "big") ^ j).to_bytes(16, "big")) for j in range(1, math.ceil(d / 16)))
        m = u if i % 2 == 0 else v
        c = (number(a, radix) + sign * int.from_bytes(s[:d], "big")) % radix**m
        digits = [c // radix**k % radix for k in range(m)][::-1]
        a, b = (b, digits) if sign > 0 else (digits, b)
    return a + b

def luhn(digits):
    return -sum(sum(divmod(digit * (2 - at % 2), 10)) for at, digit in enumerate(digits[::-1])) % 10

def preserve(key, case, text, sign):  # §17.4; sign 1 encrypts, -1 decrypts
    spec = case["format"]
    identity, radix = FORMATS[spec["format"]]
    key, tweak = decoder.derive(key, b"keyfold/v1/lookup/format-preserving"), b"\x0ekeyfold/fpe/v1" + bound(case) + bytes([identity])
    if spec["format"] == "timestamp":
        tweak += struct.pack(">qqB", spec["from"], spec["until"], spec["unit"])
        count = (spec["until"] - spec["from"]) // spec["unit"]
        check(count >= 10**6 and YEARS[0] <= spec["from"] and spec["until"] < YEARS[1], "Configuration")
        check(re.fullmatch(r"[0-9-]{10}T[0-9:]{8}Z", text, re.ASCII), "InvalidInput")
        seconds = (decoder.attempt("InvalidInput", ValueError, datetime.datetime.fromisoformat, text[:-1]) - EPOCH) // datetime.timedelta(seconds=1)
        index, rest = divmod(seconds - spec["from"], spec["unit"])
        check(rest == 0 and 0 <= index < count, "InvalidInput")
        width = (count - 1).bit_length()
        while True:
            index = number(ff1(key, 2, tweak, [index >> bit & 1 for bit in range(width)[::-1]], sign), 2)
            if index < count:
                return (EPOCH + datetime.timedelta(seconds=spec["from"] + index * spec["unit"])).isoformat() + "Z", tweak
    check(all(c in ALPHABET[:radix] or 32 <= ord(c) < 127 and not c.isalnum() for c in text), "InvalidInput")
    numerals = [ALPHABET.index(c) for c in text if c in ALPHABET[:radix]]
    check(len(numerals) <= 256, "LimitExceeded")
    if spec["format"] == "luhn":
        check(numerals and numerals[-1] == luhn(numerals[:-1]), "InvalidInput")
        replaced = ff1(key, radix, tweak, numerals[:-1], sign)
        replaced.append(luhn(replaced))
    else:
        replaced = ff1(key, radix, tweak, numerals, sign)
    replaced = iter(replaced)
    return "".join(ALPHABET[next(replaced)] if c in ALPHABET[:radix] else c for c in text), tweak

def prove(keys, case):  # §17.5
    check(re.fullmatch(r"[0-9A-Za-z]{11,64}", case["token"]), "InvalidInput")
    value = bytes([decoder.TYPES.index(case["type"]) + 1]) + bytes.fromhex(case["value"])
    message = b"\x10keyfold/token/v1" + bound(case) + bytes([len(case["token"])]) + case["token"].encode() + value
    proofs = [hmac.digest(decoder.derive(key, b"keyfold/v1/lookup/token-proof"), message, "sha256") for key in keys]
    check(any(hmac.compare_digest(proof, bytes.fromhex(case["proof"])) for proof in proofs), "DecryptionFailed")
    return message

def run(keyring, partitions, indexes, formats, proofs):
    for case in indexes + formats + proofs:
        slot, stated = keyring.lookup[case["partition"]], partitions[case["partition"]]
        keys = {key_id: keyring.key(bytes.fromhex(key_id), decoder.LOOKUP, slot) for key_id in [stated["seals"], *stated["opens"]]}
        key = keys[case["key_id"]] if case["expect"] == "ok" else keys[stated["seals"]]
        try:
            if "index" in case:
                messages, found = tokens(key, case)
                same = [message.hex() for message in messages] == case["messages"] and found == case["tokens"]
            elif "proof" in case:
                same = prove(keys.values(), case).hex() == case["message"]
            else:
                encrypted, tweak = preserve(key, case, case["text"], 1)
                same = (encrypted, tweak.hex()) == (case["encrypted"], case["tweak"]) and preserve(key, case, encrypted, -1)[0] == case["text"]
            found = "ok" if same else "another value"
        except decoder.Refused as refused:
            found = str(refused)
        assert found == case["expect"], f"{case['id']} ({case['note']}): {found}, expected {case['expect']}"
    return len(indexes + formats + proofs)
