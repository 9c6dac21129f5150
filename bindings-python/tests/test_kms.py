"""Objects of Python as key services."""

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import keyfold

CANARY = "canary-of-the-service"


class Service:
    """A key in memory; `fail`, if set, is called before each attempt."""

    def __init__(self) -> None:
        self.key = AESGCM(AESGCM.generate_key(256))
        self.fail: Callable[[], object] | None = None
        self.calls: list[tuple[str, dict[str, str]]] = []

    def _begin(self, name: str, context: dict[str, str]) -> bytes:
        self.calls.append((name, context))
        if self.fail:
            self.fail()
        return repr(sorted(context.items())).encode()

    def wrap(self, payload: bytes, context: dict[str, str], /) -> bytes | tuple[str, bytes]:
        nonce = os.urandom(12)
        return "v1", nonce + self.key.encrypt(nonce, payload, self._begin("wrap", context))

    def unwrap(self, wrapped: bytes, context: dict[str, str], version: str, /) -> bytes:
        assert version == "v1"
        try:
            return self.key.decrypt(wrapped[:12], wrapped[12:], self._begin("unwrap", context))
        except InvalidTag:
            raise keyfold.KmsFailure("InvalidCiphertext") from None


@pytest.fixture
def service(own_config: keyfold.Config) -> Service:
    """A service that wraps the root of `own_config`, which has no other KEK any more."""
    service = Service()
    with own_config.path.open("a") as file:
        file.write('[keks.ward]\nuri = "host:ward"\n')
    with own_config.open(host_keks={"ward": service}) as ring:
        assert ring.repair() == 1 and ring.repair() == 0
        assert [key.keks for key in ring.keys() if key.kind == "root"] == [["local", "ward"]]
    text = own_config.path.read_text().replace('[keks.local]\nuri = "local:local.kek"', "")
    own_config.path.write_text(text)
    service.calls.clear()
    return service


def test_one_call_opens_a_keyring(own_config: keyfold.Config, service: Service) -> None:
    with own_config.open(host_keks={"ward": service}) as ring:
        field = ring.field("any")
        assert service.calls == []
        sealed = field.encrypt_many(range(1000))
        assert field.decrypt_many(sealed) == list(range(1000))
    assert [name for name, _ in service.calls] == ["unwrap"]
    assert sorted(service.calls[0][1]) == ["kf:env", "kf:key", "kf:keyring"]


def test_a_kek_that_is_missing_or_misspelt_is_named(own_config: keyfold.Config, service: Service) -> None:
    with pytest.raises(keyfold.ConfigurationError, match="ward"):
        own_config.open()
    with pytest.raises(keyfold.ConfigurationError, match="host:word"):
        own_config.open(host_keks={"ward": service, "word": service})


def fails(own_config: keyfold.Config, service: Service) -> keyfold.KeyfoldError:
    with own_config.open(host_keks={"ward": service}) as ring, pytest.raises(keyfold.KeyfoldError) as failed:
        ring.field("any").encrypt(1)
    assert CANARY not in f"{failed.value!r}{failed.value}{failed.value.__notes__ if failed.value.__cause__ else ''}"
    return failed.value


def test_failures_are_sorted_and_repeated_where_that_helps(own_config: keyfold.Config, service: Service) -> None:
    def refuse() -> None:
        raise keyfold.KmsFailure("AccessDenied")

    service.fail = refuse
    error = fails(own_config, service)
    assert isinstance(error, keyfold.KmsError) and (error.kind, error.code, error.retryable) == ("AccessDenied", 401, False)
    assert len(service.calls) == 1

    def away() -> None:
        raise keyfold.KmsFailure("Unavailable")

    service.calls.clear()
    service.fail = away
    error = fails(own_config, service)
    assert (error.kind, error.retryable) == ("Unavailable", True) and len(service.calls) > 1

    service.calls.clear()

    def away_once() -> None:
        if len(service.calls) == 1:
            raise keyfold.KmsFailure("Throttled")

    service.fail = away_once
    with own_config.open(host_keks={"ward": service}) as ring:
        ring.field("any").encrypt(1)
    assert len(service.calls) == 2


def test_any_other_exception_is_a_refusal_without_its_text(own_config: keyfold.Config, service: Service) -> None:
    def broken() -> None:
        raise LookupError(CANARY)

    service.fail = broken
    error = fails(own_config, service)
    assert (error.kind, len(service.calls)) == ("Rejected", 1) and "LookupError" in str(error)


# Failure A11
@pytest.mark.parametrize("answer", [None, CANARY, b"short", CANARY.encode() * 100, ("v", "x")], ids=type)
def test_a_wrong_answer_is_an_error(own_config: keyfold.Config, service: Service, answer: object) -> None:
    service.unwrap = lambda wrapped, context, version: answer  # type: ignore[method-assign, assignment, return-value]
    assert fails(own_config, service).kind in ("MalformedResponse", "InvalidCiphertext")


def test_a_service_that_is_away_makes_no_nulls(own_config: keyfold.Config, service: Service) -> None:
    with own_config.open(host_keks={"ward": service}) as ring:
        sealed = ring.field("any").encrypt_many(range(3))

    def away() -> None:
        raise keyfold.KmsFailure("Unavailable", retryable=False)

    service.fail = away
    for is_column in (False, True):
        service.calls.clear()
        with own_config.open(host_keks={"ward": service}) as ring, pytest.raises(keyfold.KmsError):
            if is_column:
                ring.field("any").decrypt_column(pa.array(sealed), on_error="null")
            else:
                ring.field("any").decrypt_many(sealed, on_error="null")
        # Once, and not for each value.
        assert len(service.calls) == 1


# Failures F8, F12
def test_other_threads_go_on_and_ctrl_c_works_while_a_service_is_asked(own_config: keyfold.Config, service: Service) -> None:
    released = threading.Event()
    service.fail = lambda: released.wait(30)
    try:
        with own_config.open(host_keks={"ward": service}) as ring:
            field = ring.field("any")
            timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
            timer.start()
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                field.encrypt(1)
            assert 0.2 < time.monotonic() - start < 1.5
            released.set()
            service.fail = None
            assert field.decrypt(field.encrypt(1)) == 1
    finally:
        released.set()


def test_a_passphrase_is_asked_for(own_config: keyfold.Config) -> None:
    asked: list[str] = []

    def ask(alias: str) -> str:
        asked.append(alias)
        raise LookupError(CANARY)

    kek = own_config.path.parent / "passphrase.kek"
    kek.touch(mode=0o600)
    kek.write_bytes((Path(__file__).parent / "data" / "passphrase.kek").read_bytes())
    with own_config.path.open("a") as file:
        file.write(f'[keks.offline]\nuri = "passphrase:{kek}"\n')
    with own_config.open(passphrase=ask) as ring, pytest.raises(keyfold.KmsError) as failed:
        ring.repair()
    assert asked == ["offline"] and CANARY not in str(failed.value)
    with own_config.open(passphrase=lambda alias: "correct horse battery") as ring:
        assert ring.repair() == 1


def test_the_deadline_of_the_configuration_ends_an_operation(own_config: keyfold.Config, service: Service) -> None:
    text = own_config.path.read_text()
    own_config.path.write_text(text.replace('uri = "host:ward"', 'uri = "host:ward"\ndeadline = "1s"'))
    released = threading.Event()
    service.fail = lambda: released.wait(30)
    start = time.monotonic()
    try:
        assert fails(own_config, service).kind == "Timeout"
    finally:
        released.set()
    # Without it, one attempt alone takes 3 seconds.
    assert 0.9 < time.monotonic() - start < 2.5


def with_a_passphrase_alone(config: keyfold.Config) -> None:
    """Let a KEK with a passphrase be the only one that opens the keyring."""
    kek = config.path.parent / "passphrase.kek"
    kek.touch(mode=0o600)
    kek.write_bytes((Path(__file__).parent / "data" / "passphrase.kek").read_bytes())
    with config.path.open("a") as file:
        file.write(f'[keks.offline]\nuri = "passphrase:{kek}"\n')
    with config.open(passphrase=lambda alias: "correct horse battery") as ring:
        ring.repair()
    config.path.write_text(config.path.read_text().replace('[keks.local]\nuri = "local:local.kek"', ""))


def test_what_the_function_for_a_passphrase_raises_is_the_cause(own_config: keyfold.Config) -> None:
    with_a_passphrase_alone(own_config)
    raised = LookupError("no terminal")

    def ask(alias: str) -> str:
        raise raised

    with own_config.open(passphrase=ask) as ring, pytest.raises(keyfold.KmsError) as failed:
        ring.field("any").encrypt(1)
    assert failed.value.kind == "Credentials" and failed.value.__cause__ is raised
    none: Any = lambda alias: None  # noqa: E731
    with own_config.open(passphrase=none) as ring, pytest.raises(keyfold.KmsError) as failed:
        ring.field("any").encrypt(1)
    assert isinstance(failed.value.__cause__, TypeError)


@pytest.mark.parametrize("ending", [KeyboardInterrupt("at the prompt"), SystemExit(3)])
def test_what_ends_programs_is_raised_as_it_is(own_config: keyfold.Config, service: Service, ending: BaseException) -> None:
    def end() -> NoReturn:
        raise ending

    service.fail = end
    with own_config.open(host_keks={"ward": service}) as ring:
        with pytest.raises(type(ending)) as raised:
            ring.field("any").encrypt(1)
        assert raised.value is ending
        # It ends one call. That the service refused is remembered for a while, as ever.
        with pytest.raises(keyfold.KmsError):
            ring.field("any").encrypt(1)


def test_a_prompt_that_is_interrupted_interrupts_the_call(own_config: keyfold.Config) -> None:
    with_a_passphrase_alone(own_config)
    ending = KeyboardInterrupt()

    def ask(alias: str) -> str:
        raise ending

    with own_config.open(passphrase=ask) as ring, pytest.raises(KeyboardInterrupt) as raised:
        ring.field("any").encrypt(1)
    assert raised.value is ending


class Asks:
    def __call__(self, alias: str) -> str:
        return alias


@pytest.mark.parametrize("through", ["ring", "field", "passphrase"])
def test_what_refers_to_its_own_keyring_is_collected_with_it(own_config: keyfold.Config, service: Service, through: str) -> None:
    # The fixture keeps its own.
    again, asks = Service(), Asks()
    again.key = service.key
    ring = own_config.open(host_keks={"ward": again}, passphrase=asks)
    field = ring.field("any")
    setattr(asks if through == "passphrase" else again, "back", field if through == "field" else ring)
    gone: list[weakref.ref[Any]] = [weakref.ref(ring), weakref.ref(again), weakref.ref(asks)]
    del again, asks
    gc.collect()
    assert field.decrypt(field.encrypt(1)) == 1 and ring.rotate(), "what is in use stays"
    del ring, field
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]
