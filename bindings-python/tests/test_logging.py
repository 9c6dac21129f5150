"""What the library logs arrives in Python's logging."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_kms import CANARY, Service

import keyfold

MISSING = "the high-water file is missing"
LOGGER = logging.getLogger("keyfold")


@pytest.fixture
def warns(own_config: keyfold.Config) -> keyfold.Config:
    """The configuration of a keyring that warns whenever it is opened."""
    (own_config.path.parent / "keys.high-water").unlink()
    text = own_config.path.read_text()
    # A name that no file ever gets.
    own_config.path.write_text(text.replace("keys.high-water", "missing/keys.high-water"))
    return own_config


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What arrives."""
    found: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Keeping()
    LOGGER.addHandler(handler)
    yield found
    LOGGER.removeHandler(handler)


def opens(config: keyfold.Config) -> None:
    try:
        config.open().close()
    except keyfold.StoreError:
        pass


def test_a_warning_arrives_once_with_the_line_that_called(
    warns: keyfold.Config, config: keyfold.Config, records: list[logging.LogRecord]
) -> None:
    try:
        keyfold.Keyring.open(warns.path)
    except keyfold.StoreError:
        pass
    opens(config)
    (record,) = [record for record in records if record.levelno >= logging.WARNING]
    assert (record.name, record.levelno, record.pathname) == ("keyfold", logging.WARNING, __file__)
    assert record.getMessage().startswith(MISSING) and str(warns.path.parent / "missing") in record.getMessage()


def test_without_a_handler_it_is_on_the_standard_error(warns: keyfold.Config) -> None:
    code = "import sys, keyfold\ntry: keyfold.Keyring.open(sys.argv[1])\nexcept keyfold.StoreError: pass"
    ended = subprocess.run([sys.executable, "-c", code, str(warns.path)], capture_output=True, text=True, check=True)
    assert ended.stderr.startswith(MISSING) and ended.stderr.count("\n") == 1


def test_levels(own_config: keyfold.Config, records: list[logging.LogRecord]) -> None:
    with own_config.open() as ring:
        ring.rotate()
    assert records == []  # Not asked for: the level of the root logger is WARNING.
    LOGGER.setLevel(logging.INFO)
    try:
        with own_config.open() as ring:
            key_id = ring.rotate().key_id
    finally:
        LOGGER.setLevel(logging.NOTSET)
    messages = [record.getMessage() for record in records]
    assert any(message.startswith("key made") and key_id in message for message in messages), messages
    assert {record.levelname for record in records} == {"INFO"}


def test_an_outage_in_many_threads(own_config: keyfold.Config, records: list[logging.LogRecord]) -> None:
    with own_config.path.open("a") as file:
        file.write('[keks.ward]\nuri = "host:ward"\n')
    service = Service()

    def away() -> None:
        raise keyfold.KmsFailure("Unavailable", retryable=False)

    service.fail = away
    with own_config.open(host_keks={"ward": service}) as ring:

        def rotate() -> None:
            ring.field("any", scope=threading.current_thread().name).encrypt(CANARY)
            with pytest.raises(keyfold.KmsError):
                ring.repair()

        threads = [threading.Thread(target=rotate) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    messages = [record.getMessage() for record in records]
    assert any("ward" in message for message in messages)
    assert not any(CANARY in message or "Thread-" in message for message in messages)


# Failures B11, F6
def test_a_handler_may_use_keyfold(warns: keyfold.Config, ring: keyfold.Keyring) -> None:
    sealed: list[bytes] = []

    class Sealing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            opens(warns)  # Which warns again, and not from within.
            sealed.append(ring.field("any", scope="log").encrypt(record.getMessage()))

    handler = Sealing()
    LOGGER.addHandler(handler)
    try:
        opens(warns)
        assert len(sealed) == 1
    finally:
        LOGGER.removeHandler(handler)
    opened = ring.field("any", scope="log").decrypt(sealed[0])
    assert isinstance(opened, str) and opened.startswith(MISSING)


def test_a_child_does_not_repeat_what_its_parent_has_to_say(
    warns: keyfold.Config, config: keyfold.Config, records: list[logging.LogRecord]
) -> None:
    class Opening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            LOGGER.removeHandler(self)
            opens(warns)

    LOGGER.addHandler(Opening())
    opens(warns)
    # The warning of the handler's own call waits.
    records.clear()
    child = os.fork()
    if child == 0:
        try:
            opens(config)
            os._exit(len(records))
        finally:
            os._exit(100)
    assert os.waitpid(child, 0)[1] == 0
    opens(config)
    assert [record.getMessage()[: len(MISSING)] for record in records] == [MISSING]


@pytest.mark.parametrize("raised", [LookupError, KeyboardInterrupt])
def test_a_filter_that_fails(
    warns: keyfold.Config, ring: keyfold.Keyring, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda given: reported.append(given.exc_type))

    def fails(record: logging.LogRecord) -> bool:
        raise raised

    LOGGER.addFilter(fails)
    try:
        if raised is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                opens(warns)
        else:
            opens(warns)
    finally:
        LOGGER.removeFilter(fails)
    assert reported == ([LookupError] if raised is LookupError else [])


def test_what_cannot_be_kept_is_counted(warns: keyfold.Config, records: list[logging.LogRecord]) -> None:
    class Opening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            LOGGER.removeHandler(self)
            for _ in range(1002):
                opens(warns)

    LOGGER.addHandler(Opening())
    opens(warns)
    records.clear()
    opens(warns)
    assert len(records) == 1001
    assert records[-1].getMessage() == "3 more events were not kept"


AT_EXIT = """
import atexit, logging, sys, threading, keyfold
logging.basicConfig(filename=sys.argv[3], level=logging.INFO)
ring = keyfold.Keyring.open(sys.argv[1])
def opens():
    try:
        keyfold.Keyring.open(sys.argv[2])
    except keyfold.StoreError:
        pass
def work():
    threading.main_thread().join()
    opens()
threading.Thread(target=work).start()
atexit.register(opens)
# `ring` is closed when nobody can log any more.
"""


def test_the_interpreter_ends_cleanly_while_there_is_something_to_say(
    warns: keyfold.Config, config: keyfold.Config, tmp_path: Path
) -> None:
    for _ in range(10):
        command = [sys.executable, "-X", "dev", "-c", AT_EXIT, str(config.path), str(warns.path), str(tmp_path / "log")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "log").read_text().count(MISSING) == 20
