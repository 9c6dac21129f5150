"""Forks, other processes, and the end of the interpreter."""

import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import keyfold
from keyfold import _process

WORKERS = 8
# A process that should take a fraction of a second and hangs fails here.
PATIENCE = 5.0


def nonces_of(field: keyfold.Field, count: int) -> list[bytes]:
    """Nonces of values that were sealed in both ways and opened again."""
    sealed = [field.encrypt(i) for i in range(count)]
    many = [value for value in field.encrypt_many(range(count)) if value is not None]
    assert [field.decrypt(value) for value in sealed] == list(range(count)) == field.decrypt_many(many)
    return [value[26:50] for value in sealed + many]


def in_children(fields: list[keyfold.Field], count: int) -> list[bytes]:
    """The nonces of a child for each of `fields`, all forked first, as a prefork server does."""
    children = []
    for field in fields:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, b"".join(nonces_of(field, count)))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(writer)
        children.append((child, reader))
    nonces, end = [], time.monotonic() + PATIENCE
    for child, reader in children:
        with os.fdopen(reader, "rb") as pipe:
            os.set_blocking(reader, False)
            data = b""
            while time.monotonic() < end:
                part = pipe.read()
                if part == b"":
                    break
                data += part or b""
        pid, status = os.waitpid(child, os.WNOHANG)
        while pid == 0 and time.monotonic() < end:
            pid, status = os.waitpid(child, os.WNOHANG)
        if pid == 0:
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert pid == child and status == 0 and len(data) == 2 * count * 24, "the child hangs or has failed"
        nonces += [data[i : i + 24] for i in range(0, len(data), 24)]
    return nonces


# Failure N2
def test_children_go_on_with_what_the_parent_used(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    nonces = nonces_of(field, 50)
    nonces += in_children([field] * WORKERS, 50)
    nonces += nonces_of(field, 50)
    assert len(set(nonces)) == len(nonces) == (WORKERS + 2) * 100


def test_children_bind_fields_that_the_parent_did_not(ring: keyfold.Keyring) -> None:
    ring.field("any").encrypt(1)
    fields = [ring.field("any", scope=f"ward-{number % 2}") for number in range(WORKERS)]
    nonces = in_children(fields, 10)
    assert len(set(nonces)) == WORKERS * 20


def test_a_child_may_change_keys_and_its_child_too(own_config: keyfold.Config) -> None:
    with own_config.open() as ring, own_config.open() as other:
        field = ring.field("any")
        other.field("any").encrypt(1)
        child = os.fork()
        if child == 0:
            try:
                ring.rotate()
                grandchild = os.fork()
                if grandchild == 0:
                    other.rotate()
                    os._exit(0)
                _, status = os.waitpid(grandchild, 0)
                field.decrypt(field.encrypt(1))
                os._exit(status)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        ring.rotate()
        data = [key for key in ring.keys() if key.kind == "data"]
        assert len(data) == 4 and [key.state for key in data].count("active") == 1


def in_worker(config: keyfold.Config) -> bytes:
    with config.open() as ring:
        return ring.field("any").encrypt("from a worker")


# Failure F11
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(ring: keyfold.Keyring, config: keyfold.Config, method: str) -> None:
    field = ring.field("any")
    field.encrypt(1)
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        sealed = list(pool.map(in_worker, [config] * 4, timeout=60))
    assert field.decrypt_many(sealed) == ["from a worker"] * 4


def test_an_error_crosses_processes(config: keyfold.Config) -> None:
    missing = keyfold.Config(config.path.parent / "missing.toml")
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool, pytest.raises(keyfold.StoreError):
        pool.submit(in_worker, missing).result(timeout=60)


# Failure F11
def test_a_prefork_server(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    field.encrypt(1)
    listener = socket.create_server(("127.0.0.1", 0))
    workers = []
    for _ in range(WORKERS):
        worker = os.fork()
        if worker == 0:
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"".join(nonces_of(field, 100)))
        workers.append(worker)
    answers: list[bytes] = []

    def ask() -> None:
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as connection:
            answers.append(b"".join(iter(lambda: connection.recv(65536), b"")))

    try:
        start = time.monotonic()
        clients = [threading.Thread(target=ask) for _ in range(4 * WORKERS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert time.monotonic() - start < PATIENCE
    finally:
        for worker in workers:
            os.kill(worker, 9)
            os.waitpid(worker, 0)
        listener.close()
    nonces = [answer[i : i + 24] for answer in answers for i in range(0, len(answer), 24)]
    assert len(set(nonces)) == len(nonces) == 4 * WORKERS * 200


AT_EXIT = """
import atexit, sys, threading, time, pyarrow, keyfold
ring = keyfold.Config(sys.argv[1], [sys.argv[2]]).open()
field = ring.field("any")
assert field.decrypt(field.encrypt(1)) == 1
stop = threading.Event()
column = pyarrow.array(map(str, range(50_000)))
works = {
    "many": lambda: field.decrypt_many(field.encrypt_many(range(2000))),
    "column": lambda: field.decrypt_column(field.encrypt_column(column)),
    "keys": ring.keys,
    "keyrings": lambda: keyfold.Config(sys.argv[1], [sys.argv[2]]).open().field("any").encrypt(1),
}
def work():
    while True:
        works[sys.argv[3]]()
class Slow:
    def __del__(self):
        time.sleep(0.05)  # the end takes a while, as with pools and loggers
sys.slow = Slow()
if sys.argv[3] != "idle":
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.05)
atexit.register(lambda: field.encrypt_many([1]))
"""


# Failure F14
def test_the_interpreter_ends_cleanly(config: keyfold.Config, pytestconfig: pytest.Config) -> None:
    times = 1000 if pytestconfig.getoption("--long") else 100
    for number in range(times):
        how = ("idle", "many", "column", "keys", "keyrings")[number % 5]
        command = [sys.executable, "-X", "dev", "-c", AT_EXIT, str(config.path), str(config.policies[0]), how]
        ended = subprocess.run(command, capture_output=True, timeout=30, check=False)
        assert (ended.returncode, ended.stderr) == (0, b""), (number, ended)


WITH_A_CALL = """
import logging, sys, time, keyfold
logging.getLogger("keyfold").setLevel(logging.ERROR)
class Hanging:
    def wrap(self, payload, context):
        while True:
            time.sleep(0.001)
    def unwrap(self, wrapped, context, version):
        return wrapped
ring = keyfold.Config(sys.argv[1], [sys.argv[2]]).open(host_keks={"ward": Hanging()})
try:
    ring.repair()
except keyfold.KmsError as error:
    assert error.kind == "Timeout", error
else:
    raise SystemExit("it does not hang")
"""


# Failure F14
def test_the_interpreter_ends_cleanly_while_a_key_service_of_the_program_hangs(
    own_config: keyfold.Config, pytestconfig: pytest.Config
) -> None:
    with own_config.path.open("a") as file:
        file.write('[keks.ward]\nuri = "host:ward"\ndeadline = "1s"\n')
    for _ in range(100 if pytestconfig.getoption("--long") else 5):
        command = [sys.executable, "-X", "dev", "-c", WITH_A_CALL, str(own_config.path), str(own_config.policies[0])]
        ended = subprocess.run(command, capture_output=True, timeout=30, check=False)
        assert (ended.returncode, ended.stderr) == (0, b""), ended


# Failure F6
def test_a_key_service_of_the_program_may_fork(own_config: keyfold.Config) -> None:
    answers = []

    class Forking:
        def wrap(self, payload: bytes, context: dict[str, str], /) -> bytes:
            answers.append(answer_of_child(lambda: None))
            answers.append(answer_of_child(lambda: own_config.open()))
            return payload

        def unwrap(self, wrapped: bytes, context: dict[str, str], version: str, /) -> bytes:
            return wrapped

    with own_config.path.open("a") as file:
        file.write('[keks.ward]\nuri = "host:ward"\n')
    with own_config.open(host_keks={"ward": Forking()}) as ring:
        start = time.monotonic()
        assert ring.repair() == 1
        assert time.monotonic() - start < PATIENCE, "a fork waited for the caller of who forks"
    assert answers[0] == "" and answers[1].startswith("StoreError: this process was forked while"), answers


SUBINTERPRETER = """
import _xxsubinterpreters as interpreters
import keyfold
one = interpreters.create()
try:
    interpreters.run_string(one, "import keyfold")
except interpreters.RunFailedError as refused:
    # From Python 3.12 on the interpreter says so itself.
    said = ("not in subinterpreters", "does not support loading in subinterpreters")
    assert any(sentence in str(refused) for sentence in said), refused
else:
    raise SystemExit("imported")
"""

# The first to import it ends; later ones lie where it lay.
ONE_AFTER_THE_OTHER = """
import _xxsubinterpreters as interpreters
first = interpreters.create()
interpreters.run_string(first, "import keyfold")
interpreters.destroy(first)
for _ in range(20):
    later = interpreters.create()
    try:
        interpreters.run_string(later, "import keyfold")
    except interpreters.RunFailedError as refused:
        assert "not in subinterpreters" in str(refused), refused
    else:
        raise SystemExit("imported")
    interpreters.destroy(later)
"""


# Failure F10
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the private module has another name")
@pytest.mark.parametrize("program", [SUBINTERPRETER, ONE_AFTER_THE_OTHER])
def test_a_second_interpreter_is_refused_with_a_sentence(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def answer_of_child(work: Callable[[], object]) -> str:
    """What became of `work` in a forked child: empty, or its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = ""
        try:
            signal.alarm(30)  # whose default action ends a child that hangs
            work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return answer if status == 0 else f"ended by {status}"


# Failure F11
@pytest.mark.parametrize("busy", ["keys", "scopes", "rotations", "keyrings", "columns"])
def test_children_work_whatever_other_threads_do_at_the_fork(own_config: keyfold.Config, busy: str) -> None:
    ring = own_config.open()
    field = ring.field("any")
    sealed = field.encrypt(1)
    stop, failed = threading.Event(), []
    works: dict[str, Callable[[], object]] = {
        "keys": ring.keys,
        "scopes": lambda: ring.field("any", scope=f"ward-{time.monotonic_ns()}").encrypt(1),
        "rotations": ring.rotate,
        "keyrings": lambda: own_config.open().field("any").encrypt(1),
        "columns": lambda: field.decrypt_many(field.encrypt_many(range(5000))),
    }

    def work() -> None:
        while not stop.is_set():
            try:
                works[busy]()
            except Exception as error:
                failed.append(error)

    def in_child() -> None:
        assert field.decrypt(sealed) == 1
        new = ring.field("any", scope=f"child-{os.getpid()}")
        assert new.decrypt(new.encrypt(2)) == 2
        assert len(ring.keys()) > 2
        with own_config.open() as another:
            assert another.field("any").decrypt(field.encrypt(3)) == 3

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        answers = [answer_of_child(in_child) for _ in range(15)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert answers == [""] * 15
    assert failed == []


FIRST_USE = """
import builtins, datetime, os, signal, sys, threading, types, keyfold
ring = keyfold.Config(sys.argv[1], [sys.argv[2]]).open()
field = ring.field("any")
def error():
    try:
        keyfold.inspect(b"no")
    except keyfold.FormatError:
        pass
uses = {
    "error": error,
    "date": lambda: field.encrypt(datetime.date(2026, 1, 1)),
    "context": lambda: ring.field("tenant", context=types.MappingProxyType({"tenant": "a"})),
}
use = uses[sys.argv[3]]
begun, may_end, load = threading.Event(), threading.Event(), builtins.__import__
def slow(*arguments, **named):
    begun.set()
    may_end.wait()
    return load(*arguments, **named)
builtins.__import__ = slow
thread = threading.Thread(target=use)
thread.start()
begun.wait(0.5)
child = os.fork()
builtins.__import__ = load
if child == 0:
    signal.alarm(30)
    use()
    os._exit(0)
may_end.set()
thread.join()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


# Failures F11, T7
@pytest.mark.parametrize("use", ["error", "date", "context"])
def test_a_child_need_not_wait_for_what_another_thread_of_its_parent_uses_first(config: keyfold.Config, use: str) -> None:
    command = [sys.executable, "-c", FIRST_USE, str(config.path), str(config.policies[0]), use]
    subprocess.run(command, check=True, timeout=30)


def test_a_child_of_a_fork_that_could_not_wait_says_so(
    own_config: keyfold.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end = threading.Event(), threading.Event()

    class Slow(keyfold.Kek):
        def wrap(self, payload: bytes, context: dict[str, str]) -> bytes:
            began.set()
            may_end.wait(PATIENCE)
            return payload

        def unwrap(self, wrapped: bytes, context: dict[str, str], version: str) -> bytes:
            return wrapped

    monkeypatch.setattr(_process, "PATIENCE", 0.1)
    with own_config.path.open("a") as file:
        file.write('[keks.slow]\nuri = "host:slow"\n')
    with keyfold.Keyring.open(own_config.path, policies=own_config.policies, host_keks={"slow": Slow()}) as ring:
        field = ring.field("any")
        sealed = field.encrypt(1)
        repair = threading.Thread(target=ring.repair)
        repair.start()
        assert began.wait(PATIENCE)
        works: list[Callable[[], object]] = [ring.keys, lambda: field.encrypt_many([1]), ring.close]
        answers = [answer_of_child(work) for work in works]
        may_end.set()
        repair.join()
        assert answers[0] == answers[1] and answers[0].startswith("StoreError: this process was forked while")
        assert answers[2] == ""
        assert answer_of_child(lambda: ring.field("any", scope="new").encrypt(1)) == "", "the next fork waits again"
        assert field.decrypt(sealed) == 1



HELD = """\
version = 1
[fields.any]
row_binding = "none"
[fields.any.index.whole]
kind = "exact"
bits = 256
unique = true
[fields.mrn]
mode = "format-preserving"
format = "digits"
[fields.image]
mode = "stream"
"""


# The object of a keyring is forgotten when the last thing that needs it goes, and another thread may fork at once. A child of a fork at which the
# store is open takes locks for its own that it has not: it was seen to read a log that its parent had removed meanwhile.
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="which files are open is read in /proc")
@pytest.mark.parametrize("kind", ["keyring", "field", "index", "preserver", "documents", "sealing", "opening"])
def test_a_store_is_closed_before_its_keyring_is_forgotten(own_config: keyfold.Config, tmp_path: Path, kind: str) -> None:
    def open_stores() -> list[str]:
        found = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
        return [path for path in found if path.startswith(str(tmp_path)) and "keys.db" in path]

    (tmp_path / "ring" / "policy.toml").write_text(HELD)
    ring = own_config.open()
    image, sealed = ring.field("image"), io.BytesIO()
    with image.open_stream(sealed, "wb") as stream:
        stream.write(b"x")
    made: dict[str, Callable[[], object]] = {
        "keyring": lambda: None,
        "field": lambda: ring.field("any"),
        "index": lambda: ring.field("any").index("whole"),
        "preserver": lambda: ring.field("mrn").format_preserver(),
        "documents": lambda: ring.documents(),
        "sealing": lambda: image._seal_stream(None),
        "opening": lambda: image._open_stream(sealed.getvalue()[:83], None),
    }
    held = [made[kind]()]
    del image, stream, made
    seen: list[list[str]] = []
    watch = weakref.ref(ring, lambda _: seen.append(open_stores()))
    assert open_stores() != []
    del ring
    assert (watch() is None) == (kind == "keyring")
    held.clear()
    assert watch() is None and seen == [[]]
