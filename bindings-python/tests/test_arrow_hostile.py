"""Data that breaks the rules of Arrow's C interfaces, by hand: an error of ours, released once, and nothing worse."""

import ctypes as c
import itertools
import threading
import time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import keyfold

P = c.c_void_p


class Schema(c.Structure):
    pass


class Array(c.Structure):
    pass


class Stream(c.Structure):
    pass


RELEASE = c.CFUNCTYPE(None, P)
NEXT = c.CFUNCTYPE(c.c_int, P, P)
TEXT = c.CFUNCTYPE(P, P)
Schema._fields_ = [
    ("format", c.c_char_p), ("name", c.c_char_p), ("metadata", P), ("flags", c.c_int64), ("n_children", c.c_int64),
    ("children", P), ("dictionary", P), ("release", RELEASE), ("private_data", P),
]
Array._fields_ = [
    ("length", c.c_int64), ("null_count", c.c_int64), ("offset", c.c_int64), ("n_buffers", c.c_int64), ("n_children", c.c_int64),
    ("buffers", c.POINTER(P)), ("children", P), ("dictionary", P), ("release", RELEASE), ("private_data", P),
]
Stream._fields_ = [("schema", NEXT), ("next", NEXT), ("error", TEXT), ("release", RELEASE), ("private_data", P)]
new_capsule = c.pythonapi.PyCapsule_New
new_capsule.restype = c.py_object
new_capsule.argtypes = [P, c.c_char_p, P]


class Made:
    """A column that a C program made; counts how often it is released."""

    def __init__(
        self, layout: str, length: int, buffers: list[bytes | None], *, offset: int = 0, null_count: int = 0,
        dictionary: "Made | None" = None, children: "list[Made | None] | None" = None, **others: int,
    ) -> None:
        self.released = 0
        self.keep: list[Any] = [None if data is None else c.create_string_buffer(data, len(data)) for data in buffers]
        self.pointers = (P * len(buffers))(*[None if data is None else c.addressof(data) for data in self.keep])

        def release_array(at: int) -> None:
            self.released += 1
            Array.from_address(at).release = RELEASE()

        def release_schema(at: int) -> None:
            Schema.from_address(at).release = RELEASE()

        self.callbacks = [RELEASE(release_schema), RELEASE(release_array)]
        self.format = layout.encode("latin-1")
        self.schema = Schema(format=self.format, release=self.callbacks[0], flags=2)
        self.array = Array(
            length=length, null_count=null_count, offset=offset, n_buffers=len(buffers), buffers=self.pointers,
            release=self.callbacks[1],
        )
        if dictionary is not None:
            self.keep.append(dictionary)
            self.schema.dictionary = c.addressof(dictionary.schema)
            self.array.dictionary = c.addressof(dictionary.array)
        if children is not None:
            self.keep += [children, self.add_children(self.schema, [child and child.schema for child in children])]
            self.keep.append(self.add_children(self.array, [child and child.array for child in children]))
        for name, value in others.items():
            setattr(self.array, name, value)
        self.capsules = (
            new_capsule(c.addressof(self.schema), b"arrow_schema", None), new_capsule(c.addressof(self.array), b"arrow_array", None)
        )

    @staticmethod
    def add_children(parent: Any, children: list[Any]) -> Any:
        pointers = (P * len(children))(*[None if child is None else c.addressof(child) for child in children])
        parent.n_children, parent.children = len(children), c.addressof(pointers)
        return pointers

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return self.capsules


def ints(*numbers: int, width: int = 4) -> bytes:
    return b"".join(number.to_bytes(width, "little", signed=True) for number in numbers)


def view(length: int, index: int, offset: int) -> bytes:
    return ints(length) + b"abcd" + ints(index, offset)


def test_a_column_that_keeps_the_rules_is_taken_and_released_once(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    for made in (
        Made("u", 2, [None, ints(0, 1, 3), b"abc"]),
        Made("u", 2, [None, ints(9, 0, 1, 3), b"abc"], offset=1),
        Made("vu", 2, [None, ints(1) + b"a" + bytes(11) + view(13, 0, 1), b"?" + b"b" * 13, ints(14, width=8)]),
        Made("c", 2, [None, b"\0\1"], dictionary=Made("u", 2, [None, ints(0, 1, 3), b"abc"])),
        Made("u", 0, [None, None, None]),
    ):
        sealed = field.encrypt_column(made)
        assert len(sealed) == made.array.length or made.array.length == 0
        assert made.released == 1
        assert pa.array(field.decrypt_column(sealed)).null_count == 0
        # The capsules are empty now.
        with pytest.raises(keyfold.InvalidInput, match="released"):
            field.encrypt_column(made)
        assert made.released == 1


HOSTILE = {
    "null offsets": lambda: Made("u", 2, [None, None, b"abc"]),
    "null text": lambda: Made("u", 2, [None, ints(0, 1, 3), None]),
    "null numbers": lambda: Made("l", 2, [None, None]),
    "null validity": lambda: Made("l", 2, [None, ints(1, 2, width=8)], n_buffers=1),
    "no buffers": lambda: Made("u", 2, []),
    "negative buffers": lambda: Made("u", 2, [None, ints(0, 1, 3), b"abc"], n_buffers=-1),
    "descending offsets": lambda: Made("u", 2, [None, ints(0, 3, 2), b"abc"]),
    "negative offset": lambda: Made("u", 2, [None, ints(0, -1, 3), b"abc"]),
    "negative end": lambda: Made("u", 2, [None, ints(0, 1, -3), b"abc"]),
    "large offset": lambda: Made("U", 2, [None, ints(0, 1 << 62, 3, width=8), b"abc"]),
    "negative large end": lambda: Made("U", 2, [None, ints(0, 1, -3, width=8), b"abc"]),
    "negative length": lambda: Made("u", -1, [None, ints(0, 1, 3), b"abc"]),
    "endless length": lambda: Made("n", 1 << 62, []),
    "endless rows of no bytes": lambda: Made("w:0", 1 << 62, [None, b""]),
    "endless length of numbers": lambda: Made("l", (1 << 63) - 1, [None, ints(1, width=8)]),
    "negative start": lambda: Made("u", 2, [None, ints(0, 1, 3), b"abc"], offset=-1),
    "endless start": lambda: Made("l", 1, [None, ints(1, width=8)], offset=(1 << 63) - 1),
    "text that is not UTF-8": lambda: Made("u", 1, [None, ints(0, 1), b"\xff"]),
    "view of no buffer": lambda: Made("vu", 1, [None, view(13, 7, 0), b"b" * 13, ints(13, width=8)]),
    "view beyond its buffer": lambda: Made("vu", 1, [None, view(13, 0, 1), b"b" * 13, ints(13, width=8)]),
    "negative view": lambda: Made("vu", 1, [None, view(-1, 0, 0), b"b" * 13, ints(13, width=8)]),
    "view at a negative place": lambda: Made("vu", 1, [None, view(13, -1, -1), b"b" * 13, ints(13, width=8)]),
    "buffer of negative length": lambda: Made("vu", 1, [None, view(13, 0, 0), b"b" * 13, ints(-13, width=8)]),
    "views without lengths": lambda: Made("vu", 1, [None, view(13, 0, 0)]),
    "key beyond the dictionary": lambda: Made("c", 1, [None, b"\2"], dictionary=Made("u", 2, [None, ints(0, 1, 3), b"abc"])),
    "negative key": lambda: Made("c", 1, [None, b"\xff"], dictionary=Made("C", 300, [None, bytes(300)])),
    "no dictionary": lambda: Made("c", 1, [None, b"\0"], dictionary=Made("u", 1, [None, ints(0, 1), b"a"])),
    "unknown type": lambda: Made("?", 1, [None, b"a"]),
    "type that is no text": lambda: Made("\xff\xff", 1, [None, b"a"]),
    "negative width": lambda: Made("w:-1", 1, [None, b"a"]),
    "structure without its child": lambda: Made("+s", 1, [None]),
    "list without its child": lambda: Made("+l", 1, [None, ints(0, 1)]),
    "runs with one child": lambda: Made("+r", 1, [], children=[one_text()]),
    "child that is nowhere": lambda: Made("+s", 1, [None], children=[None]),
    "children that are nowhere": lambda: changed(Made("+s", 1, [None], children=[one_text()]), "schema", children=None, n_children=3),
    "negative children": lambda: changed(Made("+s", 1, [None], children=[one_text()]), "schema", n_children=-1),
    "array without its child": lambda: Made("+s", 1, [None], children=[one_text()], n_children=0),
    "array whose children are nowhere": lambda: changed(Made("+s", 1, [None], children=[one_text()]), "array", children=None),
    "negative children of an array": lambda: Made("+s", 1, [None], children=[one_text()], n_children=-1),
    "pointers to buffers that are nowhere": lambda: changed(one_text(), "array", buffers=None),
    "no format": lambda: changed(one_text(), "schema", format=None),
    "name that is no text": lambda: changed(one_text(), "schema", name=b"\xff"),
    "too many parts": lambda: Made("+s", 1, [None], children=[one_text()] * 5000),
}


def one_text() -> Made:
    return Made("u", 1, [None, ints(0, 1), b"a"])


def changed(made: Made, part: str, **values: object) -> Made:
    for name, value in values.items():
        setattr(getattr(made, part), name, value)
    return made


@pytest.mark.parametrize("name", HOSTILE)
def test_what_breaks_the_rules_is_refused(ring: keyfold.Keyring, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    for field in (ring.field("any"), ring.field("mrn")):
        made = HOSTILE[name]()
        if name == "no dictionary":
            made.array.dictionary = None
        with pytest.raises(keyfold.InvalidInput):
            field.encrypt_column(made)
        assert made.released == 1 or made.array.release
    bound = ring.field("patient.ssn")
    with pytest.raises(keyfold.InvalidInput):
        bound.encrypt_column(pa.array(["a"] * 2), rows=HOSTILE[name]())
    assert capfd.readouterr().err == "", "a panic, though caught"


def nested(levels: int) -> Made:
    made = one_text()
    for _ in range(levels - 1):
        made = Made("+s", 1, [None], children=[made])
    return made


def test_types_may_be_nested_up_to_a_limit(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    assert len(field.encrypt_column(nested(1))) == 1
    with pytest.raises(keyfold.InvalidInput, match="no column of values"):
        field.encrypt_column(nested(64))
    with pytest.raises(keyfold.InvalidInput, match="64 levels"):
        field.encrypt_column(nested(65))
    # Of any library: as many that a recursion ends the process.
    deep = pa.string()
    for _ in range(10_000):
        deep = pa.list_(deep)
    with pytest.raises(keyfold.InvalidInput, match="64 levels"):
        field.decrypt_column(pa.array([field.encrypt("x")]), type=pa.schema([("x", deep)]))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"0123456789abcdef"], pa.uuid()), pa.array(["{}"], pa.json_()),
        pa.table({"x": pa.array(["{}"], pa.json_())}), pd.Series(pd.period_range("2024-01", "2024-03", freq="M")),
    ],
)  # fmt: skip
def test_types_that_are_not_what_they_are_stored_as_are_refused(ring: keyfold.Keyring, column: Any) -> None:
    field = ring.field("any")
    with pytest.raises(keyfold.InvalidInput, match="extension type of Arrow.*cast"):
        field.encrypt_column(column)
    with pytest.raises(keyfold.InvalidInput, match="extension type"):
        field.decrypt_column(pa.array([field.encrypt("x")]), type=pa.uuid())
    stored = pa.array([b"0123456789abcdef"], pa.uuid()).storage
    assert field.decrypt_column(field.encrypt_column(stored)).to_pylist() == stored.to_pylist()


def test_capsules_of_other_things_are_refused(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    made = Made("u", 1, [None, ints(0, 1), b"a"])
    schema, array = made.capsules
    for given in ((array, schema), (schema, schema), (1, 2), None, (schema,)):
        made.capsules = given  # type: ignore[assignment]
        with pytest.raises((TypeError, ValueError)):
            field.encrypt_column(made)
    made.array.release = RELEASE()
    made.capsules = (Made("u", 0, []).capsules[0], array)
    with pytest.raises(keyfold.InvalidInput, match="released"):
        field.encrypt_column(made)


class Stops:
    """A stream that fails where it is told to."""

    def __init__(self, at: str) -> None:
        def schema(_stream: int, out: int) -> int:
            if at == "schema":
                return 5
            self.column = Made("u", 1, [None, ints(0, 1), b"a"])
            c.memmove(out, c.addressof(self.column.schema), c.sizeof(Schema))
            return 0

        def following(_stream: int, out: int) -> int:
            if at == "next":
                return 5
            c.memset(out, 0, c.sizeof(Array))
            return 0

        def release(at: int) -> None:
            self.released += 1
            Stream.from_address(at).release = RELEASE()

        self.released = 0
        self.text = c.create_string_buffer(b"patient 999-81-5679")
        self.callbacks = [NEXT(schema), NEXT(following), TEXT(lambda _: c.addressof(self.text)), RELEASE(release)]
        self.stream = Stream(*self.callbacks)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return new_capsule(c.addressof(self.stream), b"arrow_array_stream", None)


@pytest.mark.parametrize("at", ["schema", "next"])
def test_a_stream_that_stops_is_an_error_without_its_text(ring: keyfold.Keyring, at: str) -> None:
    stops = Stops(at)
    with pytest.raises(keyfold.StoreError) as raised:
        ring.field("any").encrypt_column(stops)
    assert "999-81" not in str(raised.value)
    assert stops.released == 1
    with pytest.raises(keyfold.InvalidInput, match="released"):
        ring.field("any").encrypt_column(stops)


def test_an_empty_stream(ring: keyfold.Keyring) -> None:
    stops = Stops("nowhere")
    assert len(ring.field("any").encrypt_column(stops)) == 0
    assert stops.released == 1


# Failure F13
@pytest.mark.parametrize(("name", "part"), [("any", "text"), ("any", "offsets"), ("mrn", "text"), ("document", "text"), ("patient.ssn", "text")])
def test_buffers_that_change_meanwhile(ring: keyfold.Keyring, name: str, part: str) -> None:
    field = ring.field(name)
    n = 20_000
    good = b'"ab"'
    offsets = np.arange(0, len(good) * n + 1, len(good), dtype=np.int32)
    text = np.array(np.frombuffer(good * n, dtype=np.uint8))
    column = pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))
    rows = column if field.binds_row else None
    changed, bad = (text[1::997], 0xFF) if part == "text" else (offsets[1:-1:997], -5)
    kept = changed.copy()
    done = threading.Event()

    def change() -> None:
        # For an instant or for longer, so that a machine of any speed and load meets both, and the change between them.
        for pause in itertools.cycle([0.0, 0.0, 0.0, 0.001, 0.03, 0.2]):
            changed[:] = bad
            done.wait(pause)
            changed[:] = kept
            if done.wait(pause):
                return

    thread = threading.Thread(target=change)
    thread.start()
    sealed: list[Any] = []
    refused = 0
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and (len(sealed) < 60 or refused == 0):
            try:
                sealed.append(field.encrypt_column(column, rows=rows))
            except keyfold.InvalidInput:
                refused += 1
    finally:
        done.set()
        thread.join()
    changed[:] = kept
    # Some were looked at while they were not as they should be; whatever was sealed opens as text.
    assert sealed and refused
    if rows is None:
        for each in sealed:
            assert {len(value) for value in field.decrypt_column(each).to_pylist()} == {len(good)}
    else:
        for each in sealed:
            errors: list[keyfold.KeyfoldError] = []
            field.decrypt_column(each, rows=rows, on_error="null", errors=errors)
            assert {error.kind for error in errors} <= {"DecryptionFailed"}, "bound to what a row was meanwhile"
    assert field.decrypt_column(field.encrypt_column(column, rows=rows), rows=rows).to_pylist() == [good.decode()] * n
