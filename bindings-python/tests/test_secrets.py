"""Nothing that Python shows of our objects holds a key, a plaintext or a context value."""

import copy
import faulthandler
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import keyfold
import keyfold.duckdb
import keyfold.pandas
import keyfold.polars  # noqa: F401

CANARY = "canary-999-81-5679"


# Failure T2
def test_nothing_shows_a_secret(ring: keyfold.Keyring) -> None:
    field = ring.field("tenant", context={"tenant": CANARY})
    sealed = field.encrypt(CANARY)
    shown = [ring, field, ring.config, keyfold.inspect(sealed), keyfold.census([sealed, CANARY]), *ring.keys()]
    for thing in shown:
        assert CANARY not in repr(thing) + str(thing) + format(thing) + repr(dir(thing))
        assert not hasattr(thing, "__dict__") or CANARY not in repr(vars(thing))


# Failure T2
def test_errors_and_their_tracebacks_show_no_secret(ring: keyfold.Keyring) -> None:
    field = ring.field("tenant", context={"tenant": CANARY})
    ssn = ring.field("patient.ssn")
    sealed = field.encrypt(CANARY)
    calls: list[Callable[[], object]] = [
        lambda: ring.field("number").encrypt(CANARY),
        lambda: ring.field("tenant", context={"tenant": CANARY + "\ud800"}),
        lambda: ring.field("tenant", context={"tenant": CANARY * 1000}),
        lambda: ring.field("tenant", context={"tenant": "another"}).decrypt(sealed),
        lambda: field.decrypt(CANARY),
        lambda: field.decrypt_many([CANARY]),
        lambda: keyfold.inspect(CANARY),
        lambda: keyfold.from_text(CANARY),
        lambda: ssn.encrypt(CANARY, row=CANARY * 1000),
        lambda: ssn.encrypt(CANARY + "\ud800", row="p"),
        lambda: ssn.encrypt_many([CANARY], rows=[CANARY + "\ud800"]),
        lambda: ssn.encrypt_many([[CANARY]], rows=["p"]),  # type: ignore[list-item]
        lambda: ssn.encrypt({CANARY: 1}, row="p"),  # type: ignore[arg-type]
    ]
    for call in calls:
        error = raised_by(call)
        shown, frames = shown_of(error)
        assert CANARY not in shown and not frames, call


def raised_by(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


def shown_of(error: BaseException) -> tuple[str, list[str]]:
    """What a reporter shows of `error` with the locals of our frames and those that they called, and the functions that these are of.

    The frames above ours are this test's, and those of libraries that it gave its data to itself: they hold the canary.
    """
    ours = str(Path(keyfold.__file__).parent)
    first = error.__traceback__
    while first is not None and not first.tb_frame.f_code.co_filename.startswith(ours):
        first = first.tb_next
    shown = traceback.TracebackException(type(error), error, first, capture_locals=True)
    return "".join(shown.format()) + repr(error.args) + repr(vars(error)), [frame.name for frame in shown.stack]


def spelled(thing: object) -> Any:
    """The accessor, or namespace, of a thing of pandas or Polars: mypy does not know of it."""
    return thing.keyfold  # type: ignore[attr-defined]


def test_tracebacks_through_adapters_show_no_secret(ring: keyfold.Keyring) -> None:
    number, ssn, unbound = ring.field("number"), ring.field("patient.ssn"), ring.field("any")
    frame = pl.DataFrame({"a": [CANARY]})
    rows = pd.Series([CANARY, CANARY])
    con = duckdb.connect()
    keyfold.duckdb.register(con, "number", number)
    keyfold.duckdb.register(con, "ssn", ssn, row="VARCHAR")
    calls: list[Callable[[], object]] = [
        lambda: spelled(frame["a"]).encrypt(number),
        lambda: spelled(frame["a"]).decrypt(number),
        lambda: spelled(frame["a"]).encrypt(unbound, row=frame["a"]),
        lambda: frame.select(spelled(pl.col("a")).encrypt(number)),
        lambda: frame.lazy().select(spelled(pl.col("a")).decrypt(unbound)).collect(engine="streaming"),
        lambda: spelled(pl.lit(CANARY)).decrypt(unbound, row=pl.lit(CANARY)),
        lambda: frame.select(spelled(pl.lit(1)).encrypt(unbound, row=pl.col("a"))),
        lambda: spelled(pd.Series([CANARY])).encrypt(number),
        lambda: spelled(pd.Series([CANARY])).decrypt(unbound),
        lambda: spelled(pd.Series(["x"])).encrypt(ssn, row=rows),
        lambda: spelled(pd.DataFrame({"a": [CANARY]})).encrypt({"a": number}),
        lambda: spelled(pd.DataFrame({"a": [CANARY], "r": [CANARY]})).decrypt({"a": ssn}, row="r"),
        lambda: con.execute("select encrypt_number($1)", [CANARY]).fetchall(),
        lambda: con.execute("select decrypt_ssn($1::blob, $1)", [CANARY]).fetchall(),
    ]
    for number_of_call, call in enumerate(calls):
        shown, _ = shown_of(raised_by(call))
        assert CANARY not in shown, (number_of_call, shown)


def test_tracebacks_of_workers_show_no_secret(ring: keyfold.Keyring) -> None:
    spark = pytest.importorskip("keyfold.spark")
    context = (("tenant", CANARY),)
    batch = pa.record_batch({"a": [CANARY], "r": [CANARY]})
    opener = spark._pickled(ring.config)
    number = spark._Work(opener, (("a", "number"),), None, None, ())
    tenant = spark._Work(opener, (("a", "tenant"),), None, None, (("tenent", CANARY),))
    ssn = spark._Work(opener, (("a", "patient.ssn"),), "r", None, ())
    frame = SimpleNamespace(columns=["a"], schema=None)
    calls: list[Callable[[], object]] = [
        lambda: list(spark._encrypted(number, [batch])),
        lambda: list(spark._encrypted(tenant, [batch])),
        lambda: list(spark._decrypted(ssn, pa.schema({"a": pa.string()}), None, [batch])),
        lambda: list(spark._reencrypted(ssn, [batch.set_column(0, "a", pa.array([1]))])),
        lambda: list(spark._counted(("a",), [batch.set_column(0, "a", pa.array([1]))])),
        lambda: spark.encrypt(frame, {"b": "any"}, ring.config, context=dict(context)),
        lambda: spark.decrypt(frame, {"b": "any"}, ring.config, context={1: CANARY, CANARY: 1}),
    ]
    for number_of_call, call in enumerate(calls):
        shown, _ = shown_of(raised_by(call))
        assert CANARY not in shown, (number_of_call, shown)


def test_an_error_that_is_being_handled_keeps_its_traceback(ring: keyfold.Keyring) -> None:
    try:
        raise LookupError("the caller's")
    except LookupError as handled:
        error = raised_by(lambda: spelled(pd.Series([CANARY])).encrypt(ring.field("any"), row=pd.Series([1], index=[7])))
        assert isinstance(error, keyfold.InvalidInput) and error.__context__ is handled and handled.__traceback__ is not None


# Failure T2
def test_faulthandler_shows_no_secret(ring: keyfold.Keyring) -> None:
    ring.field("tenant", context={"tenant": CANARY}).encrypt(CANARY)
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read()
    assert b"test_faulthandler" in text and CANARY.encode() not in text


# Failure T2
def test_only_a_configuration_can_be_copied(ring: keyfold.Keyring) -> None:
    for thing in (ring, ring.field("any")):
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                take(thing)
    again = pickle.loads(pickle.dumps(ring.config))
    assert again == ring.config == copy.deepcopy(again) and hash(again) == hash(ring.config)
    assert again != keyfold.Config(again.path) and CANARY.encode() not in pickle.dumps(ring.config)
    with again.open() as other:
        assert other.field("any").decrypt(ring.field("any").encrypt(1)) == 1


def test_classes_cannot_be_made_or_extended() -> None:
    for made in (keyfold.Keyring, keyfold.Field, keyfold.Census, keyfold.Inspection, keyfold.KeyInfo):
        with pytest.raises(TypeError):
            made()
        with pytest.raises(TypeError):
            type("Mine", (made,), {})
