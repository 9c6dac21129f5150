"""What tools/interop.py and tools/languages/matrix.py share: random cases, and a keyring as the decoder sees it."""

import dataclasses
import datetime
import decimal
import functools
import random
import sqlite3
import sys
import tomllib
from pathlib import Path

import keyfold

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testvectors"))
import decoder  # noqa: E402
import encoder  # noqa: E402

# Where blocks, chunks of the cipher, padding and lengths of two bytes begin and end.
LENGTHS = [0, 1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 4093, 4094, 4095, 4096, 65535, 65536]
LONGEST, MOST_CONTEXT = 1 << 20, 4096


class Values:
    """What one case is about, from its own seed."""

    def __init__(self, *seed):
        self.random = random.Random("/".join(map(str, seed)))

    def length(self, most, edges=LENGTHS):
        edge = self.random.choice(edges) if self.random.random() < 0.3 else int(self.random.expovariate(0.02))
        return min(edge, most)

    def bytes(self, most, least=0):
        return self.random.randbytes(max(self.length(most), least))

    def characters(self, most, least=0, controls=True):
        """A text of at most so many bytes."""
        planes = [(32, 127), (32, 127), (0xA0, 0x600), (0x4E00, 0x9FFF), (0x1F300, 0x1F900), (0, 32) if controls else (32, 127)]
        plane = self.random.choices(planes, k=self.length(most))
        text = "".join(chr(self.random.randrange(*ends)) for ends in plane).encode()[:most].decode(errors="ignore")
        return text if len(text) >= least else "x" * least

    def plain(self):
        kind = self.random.randrange(9)
        if kind == 0:
            edges = [0, 1, -1, 127, 128, -128, -129, 255, 256, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**127 - 1, -(2**127)]
            return self.random.choice(edges) if self.random.random() < 0.5 else self.random.getrandbits(self.random.randrange(1, 128)) * self.random.choice([1, -1])
        if kind == 1:
            return self.random.choice([0.0, -0.0, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"), self.random.uniform(-1e6, 1e6)])
        if kind == 2:
            return self.random.random() < 0.5
        if kind == 3:
            return datetime.date.fromordinal(self.random.choice([1, 3652059, 719163, 719162, self.random.randint(1, 3652059)]))
        if kind == 4:
            edges = [0, -1, 1, 999_999, -62135596800 * 10**6, 253402300799 * 10**6 + 999_999]
            number = self.random.choice(edges) if self.random.random() < 0.4 else self.random.randint(edges[4], edges[5])
            return encoder.EPOCH + datetime.timedelta(microseconds=number)
        if kind == 5:
            return decimal.Decimal((self.random.randrange(2), tuple(self.random.randrange(10) for _ in range(self.random.randint(1, 40))), self.random.randint(-50, 50)))
        if kind == 6:
            return self.random.randbytes(LONGEST - self.random.randrange(2)) if self.random.random() < 0.02 else self.bytes(LONGEST)
        return self.characters(70_000)

    def context(self, most=3000):
        pairs, room = {}, most
        for _ in range(self.random.choice([0, 0, 1, 2, 3, 32])):
            key = self.characters(min(60, room), least=1)
            if not key.startswith("kf:") and room > 200:
                pairs[key] = self.bytes(min(60, room))
                room -= 4 + len(key.encode()) + len(pairs[key])
        return pairs

    def case(self, suite, fill=False):
        """Field, context, row and scope; with `fill` some contexts are as long as they may be with this row."""
        field = self.random.choice(suite.fields)
        context = self.context()
        row = self.characters(200, least=1).encode() if field.row else None
        if fill and self.random.random() < 0.1 and len(context) < 32:
            room = MOST_CONTEXT - len(encoder.encoded_context(pairs(context), row and row.hex(), field.row))
            context["\U0010ffff"] = self.random.randbytes(room - 4 - 4)
        return field, context, row, self.random.choice(suite.scopes)


@dataclasses.dataclass(frozen=True)
class Field:
    name: str
    row: bool = False
    padding: object = None
    join_group: str | None = None


class Cached(decoder.Keyring):
    """The keyring of a configuration as the decoder sees it, with the records that are in its store now. Each key is unwrapped once."""

    def __init__(self, config):
        toml = tomllib.loads(config.read_text())
        keks = {alias: decoder.local_kek(config.parent / kek["uri"].removeprefix("local:")) for alias, kek in toml["keks"].items()}
        self.seals = {name: bytes.fromhex(keys["seals"]) for name, keys in toml["lookup"].items()}
        store = dict(sqlite3.connect(config.parent / "keys.db").execute("SELECT key_id, record FROM records"))
        super().__init__(toml["keyring"] | {"lookup": toml["lookup"]}, keks, store)
        unwrapped, self.scope = functools.cache(super().key), functools.cache(super().scope)
        # The records of a frame do not matter here: the store has every key, and wins.
        self.key = lambda key_id, cls, slot, frame=None: unwrapped(key_id, cls, slot)

    def of_scope(self, scope):
        """Every key of a scope, of whatever generation."""
        slot = bytes(16) if scope is None else self.scope(scope)
        return [self.key(key_id, decoder.DATA, slot) for key_id, record in self.records.items() if record[4:5] + record[102:118] == b"\2" + slot]

    def of_partition(self, name="default"):
        return self.key(self.seals[name], decoder.LOOKUP, self.lookup[name])


def pairs(context):
    return [(key, value.hex()) for key, value in context.items()]


def same(one, other):
    """Equal values of one type, in one spelling."""
    return type(one) is type(other) and (repr(one) == repr(other) if isinstance(one, float | decimal.Decimal) else one == other)


def outcome(opens, *arguments, **how):
    """What is opened, or the class of the error."""
    try:
        return opens(*arguments, **how)
    except keyfold.KeyfoldError as error:
        return error.kind
    except decoder.Refused as error:
        return str(error)


def damaged(values, sealed):
    """With a bit flipped (in every second case in front), cut off, or lengthened."""
    choice = values.random.randrange(6)
    if choice == 0:
        return sealed[: values.random.randrange(len(sealed))]
    if choice == 1:
        return sealed + values.bytes(40, least=1)
    bit = values.random.randrange(8 * min(len(sealed), values.random.choice([30, len(sealed)])))
    return sealed[: bit // 8] + bytes([sealed[bit // 8] ^ 1 << bit % 8]) + sealed[bit // 8 + 1 :]
