"""Nothing that Python shows of our objects holds a key, a plaintext or a context value."""

import copy
import faulthandler
import pickle
import tempfile
import traceback
from collections.abc import Callable

import pytest

import keyfold

CANARY = "canary-999-81-5679"


def test_nothing_shows_a_secret(ring: keyfold.Keyring) -> None:
    field = ring.field("tenant", context={"tenant": CANARY})
    sealed = field.encrypt(CANARY)
    shown = [ring, field, ring.config, keyfold.inspect(sealed), keyfold.census([sealed, CANARY]), *ring.keys()]
    for thing in shown:
        assert CANARY not in repr(thing) + str(thing) + format(thing) + repr(dir(thing))
        assert not hasattr(thing, "__dict__") or CANARY not in repr(vars(thing))


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
        with pytest.raises((keyfold.KeyfoldError, TypeError)) as failed:
            call()
        # From where our frames would be: those of this test hold the canary, and are the caller's own.
        own = failed.value.__traceback__
        while own is not None and own.tb_frame.f_code.co_filename == __file__:
            own = own.tb_next
        text = traceback.TracebackException(type(failed.value), failed.value, own, capture_locals=True)
        assert CANARY not in "".join(text.format()) and own is None, call
        assert CANARY not in repr(failed.value.args) + repr(vars(failed.value))


def test_faulthandler_shows_no_secret(ring: keyfold.Keyring) -> None:
    ring.field("tenant", context={"tenant": CANARY}).encrypt(CANARY)
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read()
    assert b"test_faulthandler" in text and CANARY.encode() not in text


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
