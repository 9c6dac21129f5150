"""Values go in and come out as they were, or a typed error says why not."""

import math
import threading
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

import keyfold
from keyfold import Value

CANARY = "canary-999-81-5679"

VALUES: list[Value] = [
    "", "x", "Zoë\0 \U0001f9ec", b"", b"\0\xff", 0, -1, 2**63 - 1, -(2**63), 2**127 - 1, True, False, 0.0, -0.0, 1.5, math.inf,
    date.min, date(1969, 12, 31), date.max, datetime(1970, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), Decimal("1.50"), Decimal("-0.0"),
    Decimal("1E+3"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(ring: keyfold.Keyring, value: Value) -> None:
    field = ring.field("any")
    opened = field.decrypt(field.encrypt(value))
    assert (type(opened), repr(opened)) == (type(value), repr(value))
    assert field.decrypt_many(field.encrypt_many([value])) == [value]


def test_a_nan_comes_back(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    opened = field.decrypt(field.encrypt(math.nan))
    assert isinstance(opened, float) and math.isnan(opened)


def test_a_datetime_comes_back_in_utc(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    there = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    opened = field.decrypt(field.encrypt(there))
    assert isinstance(opened, datetime) and opened == there and opened.tzinfo is UTC


def test_a_value_opens_in_its_row_and_context_alone(ring: keyfold.Keyring) -> None:
    ssn = ring.field("patient.ssn")
    sealed = ssn.encrypt(CANARY, row="p-17")
    assert ssn.decrypt(sealed, row=b"p-17") == CANARY
    with pytest.raises(keyfold.DecryptionFailed):
        ssn.decrypt(sealed, row="p-18")
    bound = ring.field("tenant", context={"tenant": "a", "table": b"t"})
    sealed = bound.encrypt(1)
    assert ring.field("tenant", context={"table": "t", "tenant": b"a"}).decrypt(sealed) == 1
    with pytest.raises(keyfold.DecryptionFailed):
        ring.field("tenant", context={"tenant": "b", "table": "t"}).decrypt(sealed)
    with pytest.raises(keyfold.PolicyRefused):
        ring.field("tenant").encrypt(1)


def test_scopes_have_keys_of_their_own(ring: keyfold.Keyring) -> None:
    sealed = ring.field("any", scope="clinic-1").encrypt(1)
    assert ring.field("any", scope="clinic-1").decrypt(sealed) == 1
    with pytest.raises(keyfold.KeyRefused) as refused:
        ring.field("any").decrypt(sealed)
    assert refused.value.kind == "WrongScope"
    with pytest.raises(keyfold.NoMatchingKey):
        ring.field("any", scope="never made").decrypt(sealed)


def test_the_policy_gives_the_type(ring: keyfold.Keyring) -> None:
    assert ring.field("document").decrypt(ring.field("document").encrypt('{"a": 1}')) == '{"a": 1}'
    wrong: list[Value] = ["1", 1.0, True]
    for value in wrong:
        with pytest.raises(keyfold.InvalidInput):
            ring.field("number").encrypt(value)


def test_text_form(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    sealed = field.encrypt("x")
    text = keyfold.to_text(sealed)
    assert text.startswith("kf1.") and keyfold.from_text(text) == sealed and field.decrypt(text) == "x"
    assert field.decrypt_many([text, sealed]) == ["x", "x"]
    for wrong in ["", "kf1.", text + "=", text.upper(), "x", "\ud800"]:
        with pytest.raises(keyfold.FormatError):
            field.decrypt(wrong)


def test_inspect_and_census_need_no_key(ring: keyfold.Keyring) -> None:
    field, mrn = ring.field("any"), ring.field("mrn")
    sealed = field.encrypt("abc")
    seen = keyfold.inspect(sealed)
    assert (seen.mode, seen.encoded_len, seen.framed) == ("randomized", 4, False)
    assert seen == keyfold.inspect(keyfold.to_text(sealed)) and keyfold.inspect(mrn.encrypt("1")).mode == "deterministic"
    counted = keyfold.census([sealed, keyfold.to_text(sealed), None, "plain", b""])
    assert (counted.keys, counted.nulls, counted.not_sealed) == ({seen.key_id: 2}, 1, 2)
    with pytest.raises(TypeError):
        keyfold.census([1])  # type: ignore[list-item]


def test_search_finds_deterministic_values(ring: keyfold.Keyring) -> None:
    mrn = ring.field("mrn")
    sealed = mrn.encrypt("M-1")
    assert mrn.encrypt("M-1") == sealed != mrn.encrypt("M-2")
    assert mrn.search("M-1") == [sealed] == mrn.search("M-1")
    with pytest.raises(keyfold.PolicyRefused):
        ring.field("any").search("x")


def test_a_rotation_makes_old_values_not_current(own_config: keyfold.Config) -> None:
    with own_config.open() as ring:
        field = ring.field("any")
        old = field.encrypt("x")
        assert field.is_current(old)
        made = ring.rotate()
        again = own_config.open().field("any")
        new = again.encrypt("x")
        assert (made.kind, made.state, made.key_id) == ("data", "active", keyfold.inspect(new).key_id)
        assert again.is_current(new) and not again.is_current(old) and again.decrypt(old) == "x"
        states = {key.key_id: key.state for key in ring.keys()}
        assert states[keyfold.inspect(old).key_id] == "deactivated" and all(key.trusted for key in ring.keys())
        assert [key.keks for key in ring.keys() if key.kind == "root"] == [["local"]]


WRONG_TYPES = [None, [], {}, object(), 1j, bytes, timedelta(1), {CANARY}]


@pytest.mark.parametrize("value", WRONG_TYPES, ids=lambda value: type(value).__name__)
def test_another_type_is_a_type_error(ring: keyfold.Keyring, value: Value) -> None:
    with pytest.raises(TypeError) as refused:
        ring.field("any").encrypt(value)
    assert type(value).__name__ in str(refused.value) and CANARY not in str(refused.value)


INVALID: list[Value] = [2**127, -(2**128), datetime(2026, 1, 1), Decimal("NaN"), CANARY + "\ud800", "x" * (2**20 + 1)]


# Failure F15
@pytest.mark.parametrize("value", INVALID, ids=lambda value: type(value).__name__)
def test_what_cannot_be_a_value_is_invalid(ring: keyfold.Keyring, value: Value) -> None:
    with pytest.raises(keyfold.InvalidInput) as refused:
        ring.field("any").encrypt(value)
    error = refused.value
    assert isinstance(error, ValueError) and error.__cause__ is None and error.__context__ is None
    assert CANARY not in f"{error!r} {error}"


def test_a_very_long_value_is_refused(ring: keyfold.Keyring) -> None:
    long: list[Value] = [b"x" * 100_000_000, bytearray(100_000_000), "x" * 100_000_000]
    for value in long:
        with pytest.raises(keyfold.InvalidInput) as refused:
            ring.field("any").encrypt(value)
        assert refused.value.kind == "LimitExceeded"
    with pytest.raises(keyfold.FormatError):
        ring.field("any").decrypt(bytes(100_000_000))


def test_the_longest_value_comes_back(ring: keyfold.Keyring) -> None:
    field, value = ring.field("any"), b"x" * (2**20)
    assert field.decrypt(field.encrypt(value)) == value


# Failure F15
@pytest.mark.parametrize("row", ["", b"", "x" * 5000, "\ud800"], ids=["empty", "empty bytes", "long", "surrogate"])
def test_what_cannot_be_a_row_is_invalid(ring: keyfold.Keyring, row: str | bytes) -> None:
    ssn = ring.field("patient.ssn")
    with pytest.raises(keyfold.InvalidInput):
        ssn.encrypt("x", row=row)
    with pytest.raises(keyfold.InvalidInput) as refused:
        ssn.encrypt_many(["x", "x"], rows=["p", row])
    assert refused.value.row == 1


def test_rows_are_given_where_the_policy_binds_them(ring: keyfold.Keyring) -> None:
    with pytest.raises(keyfold.InvalidInput):
        ring.field("patient.ssn").encrypt("x")
    with pytest.raises(keyfold.InvalidInput):
        ring.field("any").encrypt("x", row="p")
    with pytest.raises(TypeError):
        ring.field("patient.ssn").encrypt("x", row=["17"])  # type: ignore[arg-type]


# Failure F13
def test_buffers_are_copied_before_they_are_sealed(ring: keyfold.Keyring) -> None:
    field, stop = ring.field("any"), threading.Event()
    buffer = bytearray(b"a" * 200_000)

    def scribble() -> None:
        while not stop.is_set():
            buffer[:] = b"b" * len(buffer)
            buffer[:] = b"a" * len(buffer)

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        for _ in range(50):
            opened = field.decrypt(field.encrypt(memoryview(buffer)))
            assert isinstance(opened, bytes) and set(opened) <= set(b"ab") and len(opened) == len(buffer)
    finally:
        stop.set()
        writer.join()
    assert field.decrypt(field.encrypt(memoryview(b"0123456789")[::3])) == b"0369"
    with pytest.raises(keyfold.InvalidInput):
        field.encrypt(memoryview(b"01234567").cast("I"))


# Failure K14
def test_datetimes_that_no_datetime_in_utc_could_hold_are_refused(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    west, east = (timezone(timedelta(hours=hours)) for hours in (-14, 14))
    for edge in (datetime.max.replace(tzinfo=west), datetime.min.replace(tzinfo=east)):
        for call in (lambda: field.encrypt(edge), lambda: field.encrypt_many([edge])):
            with pytest.raises(keyfold.InvalidInput, match="years 1 to 9999"):
                call()
    for edge in (datetime.max.replace(tzinfo=east), datetime.min.replace(tzinfo=west)):
        assert field.decrypt(field.encrypt(edge)) == edge
    for edge in (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)):
        assert field.decrypt(field.encrypt(edge)) == edge


def test_a_census_is_of_several_values(ring: keyfold.Keyring) -> None:
    sealed = ring.field("any").encrypt("x")
    for one in (sealed, keyfold.to_text(sealed), b"", ""):
        with pytest.raises(TypeError, match="not of one (str|bytes)"):
            keyfold.census(one)  # type: ignore[arg-type]
    assert sum(keyfold.census([sealed, keyfold.to_text(sealed)]).keys.values()) == 2
