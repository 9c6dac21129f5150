"""Streams as file objects: from and to any other one, in both directions with the command."""

import gc
import io
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Any, cast

import pytest

import keyfold
from test_kms import Service, service  # noqa: F401

POLICY = """\
version = 1
[fields.image]
mode = "stream"
[fields.scan]
mode = "stream"
row_binding = "id"
[fields.any]
"""
CHUNK, SEALED, HEADER = 16384, 16400, 83


@pytest.fixture
def ring(tmp_path: Path) -> keyfold.Keyring:
    config = keyfold.init(tmp_path / "ring")
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    return keyfold.Keyring.open(config, policies=[policy])


def plaintext(n: int) -> bytes:
    return bytes(i // CHUNK * 37 + i % 251 & 255 for i in range(n))


def seal(field: keyfold.Field, data: bytes, **row: Any) -> bytes:
    out = io.BytesIO()
    with field.open_stream(out, "wb", **row) as stream:
        assert stream.writable() and not stream.readable()
        for at in range(0, len(data), 10_000):
            assert stream.write(data[at : at + 10_000]) == len(data[at : at + 10_000])
    return out.getvalue()


class Pipe(io.RawIOBase):
    """A file that gives a little at a time, and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self.inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self.inner.readinto(memoryview(buffer)[:1000])


@pytest.mark.parametrize("n", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7])
def test_every_length_comes_back(ring: keyfold.Keyring, n: int) -> None:
    image, data = ring.field("image"), plaintext(n)
    sealed = seal(image, data)
    assert len(sealed) == HEADER + n + 16 * (n // CHUNK + 1)
    assert image.open_stream(io.BytesIO(sealed)).read() == data
    assert image.open_stream(io.BytesIO(sealed), "rb").read() == data
    for file in [Pipe(sealed), io.BufferedReader(Pipe(sealed), 100)]:
        with image.open_stream(cast(IO[bytes], file)) as stream:
            assert not stream.seekable() and stream.readable()
            assert stream.read() == data
            assert stream.read() == b""
    assert image.mode == "stream"


def test_any_part_can_be_read(ring: keyfold.Keyring) -> None:
    image, data = ring.field("image"), plaintext(20 * CHUNK + 9)
    # Behind something else in the file.
    file = io.BytesIO(b"before" + seal(image, data))
    file.seek(6)
    stream = image.open_stream(file)
    for at, n in [(0, 1), (5 * CHUNK - 3, 10), (20 * CHUNK, 100), (3, 40_000), (len(data), 5), (len(data) + 10**9, 5)]:
        assert stream.seek(at) == at
        assert stream.read(n) == data[at : at + n]
    assert stream.seek(-100, os.SEEK_END) == len(data) - 100
    assert stream.read() == data[-100:]
    assert cast(Any, stream).raw.verified_len() == len(data)
    with pytest.raises(keyfold.InvalidInput):
        cast(Any, stream).raw.seek(-1)


def test_a_byte_costs_a_chunk(ring: keyfold.Keyring) -> None:
    class Counting(io.BytesIO):
        count = 0

        def read(self, n: int | None = -1, /) -> bytes:
            part = super().read(n)
            self.count += len(part)
            return part

    image = ring.field("image")
    file = Counting(seal(image, plaintext(50 * CHUNK)))
    stream = image.open_stream(file)
    file.count = 0
    stream.seek(33 * CHUNK + 5)
    stream.read(1)
    assert file.count == SEALED


def test_what_is_not_whole_raises_in_the_place_of_its_end(ring: keyfold.Keyring) -> None:
    image, data = ring.field("image"), plaintext(3 * CHUNK + 100)
    sealed = seal(image, data)
    for n in range(4):
        for file in [io.BytesIO(sealed[: HEADER + n * SEALED]), Pipe(sealed[: HEADER + n * SEALED])]:
            stream = image.open_stream(cast(IO[bytes], file))
            assert b"".join(stream.read(CHUNK) for _ in range(n)) == data[: n * CHUNK]
            for _ in range(2):
                with pytest.raises(keyfold.FormatError, match="cut, or never finished"):
                    stream.read(1)
    cut = image.open_stream(io.BytesIO(sealed[: HEADER + 2 * SEALED]))
    with pytest.raises(keyfold.FormatError):
        cut.seek(0, os.SEEK_END)
    chunks = [sealed[:HEADER], *(sealed[HEADER + i * SEALED : HEADER + (i + 1) * SEALED] for i in range(4))]
    changed = bytearray(sealed)
    changed[HEADER + 20_000] ^= 1
    for wrong in [bytes(changed), sealed + b"x", sealed[:-1], b"".join(chunks[i] for i in [0, 2, 1, 3, 4]), b"".join(chunks[i] for i in [0, 1, 2, 4])]:
        with pytest.raises(keyfold.DecryptionFailed):
            image.open_stream(io.BytesIO(wrong)).read()
    for short in [b"", sealed[:82], b"text" * 100]:
        with pytest.raises(keyfold.FormatError):
            image.open_stream(io.BytesIO(short))


def test_only_an_end_without_an_exception_is_one(ring: keyfold.Keyring) -> None:
    image = ring.field("image")

    def check(out: io.BytesIO) -> None:
        with pytest.raises(keyfold.FormatError, match="never finished"):
            image.open_stream(io.BytesIO(out.getvalue())).read()

    out = io.BytesIO()
    with pytest.raises(KeyError), image.open_stream(out, "wb") as stream:
        stream.write(plaintext(2 * CHUNK))
        raise KeyError
    check(out)
    out = io.BytesIO()
    image.open_stream(out, "wb").write(plaintext(CHUNK))
    gc.collect()
    check(out)

    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            if self.tell() > 30_000:
                raise OSError(28, "no space left")
            return super().write(data)

    full = Full()
    stream = image.open_stream(full, "wb")
    with pytest.raises(OSError, match="no space"):
        for _ in range(10):
            stream.write(plaintext(CHUNK))
    with pytest.raises(keyfold.StoreError, match="not complete"):
        stream.close()
    check(full)
    with pytest.raises(ValueError, match="closed"):
        stream.write(b"x")


def test_rows_and_fields_are_bound(ring: keyfold.Keyring) -> None:
    scan, image = ring.field("scan"), ring.field("image")
    sealed = seal(scan, b"x", row="row-1")
    assert scan.open_stream(io.BytesIO(sealed), row=b"row-1").read() == b"x"
    for field, row in [(scan, "row-2"), (image, None), (ring.field("scan", context={"a": "b"}), "row-1")]:
        with pytest.raises(keyfold.DecryptionFailed):
            field.open_stream(io.BytesIO(sealed), row=row)
    for field, row in [(scan, None), (image, "row-1")]:
        with pytest.raises(keyfold.InvalidInput):
            field.open_stream(io.BytesIO(sealed), row=row)
        with pytest.raises(keyfold.InvalidInput):
            field.open_stream(io.BytesIO(), "wb", row=row)
    with pytest.raises(keyfold.PolicyRefused):
        ring.field("any").open_stream(io.BytesIO(sealed))
    with pytest.raises(keyfold.PolicyRefused):
        image.encrypt("x")
    for mode in ["r", "w", "ab", "rb+"]:
        with pytest.raises(keyfold.InvalidInput):
            image.open_stream(io.BytesIO(sealed), mode)
    with pytest.raises(TypeError):
        image.open_stream(io.BytesIO(), "wb").write("text")


def test_what_is_no_binary_file_is_refused(ring: keyfold.Keyring) -> None:
    open_stream = cast(Any, ring.field("image").open_stream)
    for file, name in [("scan.kfs", "str"), (b"scan.kfs", "bytes"), (Path("scan.kfs"), "PosixPath"), (None, "NoneType"), (io.StringIO(), "StringIO")]:
        for mode in ["rb", "wb"]:
            with pytest.raises(TypeError, match=f"a binary file object that can .*, not {name}$"):
                open_stream(file, mode)


def test_a_socket_and_threads(ring: keyfold.Keyring) -> None:
    image, data = ring.field("image"), plaintext(30 * CHUNK + 1)
    one, other = socket.socketpair()

    def send() -> None:
        with one, one.makefile("wb") as file, image.open_stream(file, "wb") as stream:
            stream.write(data)

    sender = threading.Thread(target=send)
    sender.start()
    with other, other.makefile("rb") as file:
        assert image.open_stream(file).read() == data
    sender.join()


def test_the_command_reads_what_python_wrote_and_back(ring: keyfold.Keyring, tmp_path: Path) -> None:
    command = os.environ.get("KEYFOLD_TEST_COMMAND")
    if not command:
        pytest.skip("KEYFOLD_TEST_COMMAND is not set")
    image, data = ring.field("image"), plaintext(100_000)
    both: list[str | Path] = ["--config", tmp_path / "ring" / "keyfold.toml", "--policy", tmp_path / "policy.toml", "--stream", "image"]
    (tmp_path / "sealed").write_bytes(seal(image, data))
    subprocess.run([command, "reveal", *both, tmp_path / "sealed", "--output", tmp_path / "back"], check=True)
    assert (tmp_path / "back").read_bytes() == data
    subprocess.run([command, "protect", *both, tmp_path / "back", "--output", tmp_path / "again"], check=True)
    with (tmp_path / "again").open("rb") as file:
        assert image.open_stream(file).read() == data


def test_file_objects_of_fsspec(ring: keyfold.Keyring) -> None:
    import fsspec  # type: ignore[import-untyped]
    image, data = ring.field("image"), plaintext(3 * CHUNK + 5)
    with fsspec.open("memory://scan.kfs", "wb") as file, image.open_stream(file, "wb") as stream:
        stream.write(data)
    with fsspec.open("memory://scan.kfs", "rb") as file:
        opened = image.open_stream(file)
        assert opened.seek(2 * CHUNK) == 2 * CHUNK
        assert opened.read() == data[2 * CHUNK :]


@pytest.mark.parametrize("wrapper", [io.TextIOWrapper, io.BufferedWriter])
def test_a_wrapper_that_closes_after_an_exception_completes_nothing(ring: keyfold.Keyring, wrapper: Any) -> None:
    image = ring.field("image")
    stored = io.BytesIO()
    with pytest.raises(keyfold.StoreError, match="not complete") as raised:
        with wrapper(image.open_stream(stored, "wb")) as file:
            file.write("x" * 40_000 if wrapper is io.TextIOWrapper else b"x" * 40_000)
            raise RuntimeError("half way")
    assert isinstance(raised.value.__context__, RuntimeError)
    stored.seek(0)
    with pytest.raises((keyfold.FormatError, keyfold.DecryptionFailed)):
        image.open_stream(stored).read()
    # Whoever means it, says so.
    whole = io.BytesIO()
    try:
        raise RuntimeError("something else")
    except RuntimeError:
        stream = image.open_stream(whole, "wb")
        stream.write(b"all of it")
        stream.finish()
    whole.seek(0)
    assert image.open_stream(whole).read() == b"all of it"


def test_a_write_that_failed_is_not_passed_over(ring: keyfold.Keyring) -> None:
    image = ring.field("image")
    stored = io.BytesIO()
    stream = image.open_stream(stored, "wb")
    stream.write(b"first")
    with pytest.raises(TypeError):
        stream.write("text")
    for call in (lambda: stream.write(b"last"), stream.close):
        with pytest.raises(keyfold.StoreError, match="has failed before"):
            call()
    stored.seek(0)
    with pytest.raises(keyfold.FormatError):
        image.open_stream(stored).read()


@pytest.mark.parametrize("closed", [False, True])
def test_the_end_may_be_repeated_once_the_service_is_back(own_config: keyfold.Config, service: Service, tmp_path: Path, closed: bool) -> None:
    with own_config.path.open("a") as file:
        file.write('[cache]\nmax_age = "1s"\ngrace = "0s"\n')
    policy = tmp_path / "streams.toml"
    policy.write_text(POLICY)

    def away() -> None:
        raise keyfold.KmsFailure("Unavailable", retryable=False)

    with keyfold.Config(own_config.path, [policy]).open(host_keks={"ward": service}) as ring:
        image, stored = ring.field("image"), io.BytesIO()
        stream = image.open_stream(stored, "wb")
        stream.write(b"DICM")
        time.sleep(1.1)
        service.fail = away
        for _ in range(2):
            with pytest.raises(keyfold.KmsError):
                stream.close() if closed else stream.finish()
            if closed:
                break
        assert stream.closed == closed
        service.fail = None
        # A failure is remembered for a second.
        time.sleep(1.1)
        stream.finish()
        stored.seek(0)
        if closed:
            with pytest.raises(keyfold.FormatError):
                image.open_stream(stored).read()
        else:
            assert stream.closed and image.open_stream(stored).read() == b"DICM"


def test_a_closed_keyring_gives_out_nothing_of_a_chunk_in_memory(ring: keyfold.Keyring) -> None:
    image = ring.field("image")
    stream = cast(Any, image.open_stream(io.BytesIO(seal(image, plaintext(100)))))
    part = bytearray(10)
    assert stream.raw.readinto(part) == 10 and part == plaintext(10)
    ring.close()
    for _ in range(2):
        with pytest.raises(keyfold.KeyfoldError, match="closed"):
            stream.raw.readinto(part)
    assert part == plaintext(10)


def test_a_compromised_key_is_told(ring: keyfold.Keyring, tmp_path: Path) -> None:
    command = os.environ.get("KEYFOLD_TEST_COMMAND")
    if not command:
        pytest.skip("KEYFOLD_TEST_COMMAND is not set")
    image = ring.field("image")
    sealed = seal(image, b"DICM")
    assert not cast(Any, image.open_stream(io.BytesIO(sealed))).raw.is_compromised
    config = tmp_path / "ring" / "keyfold.toml"
    subprocess.run([command, "keys", "state", "--config", config, sealed[2:26].hex(), "compromised"], check=True)
    policies = [tmp_path / "policy.toml"]
    with keyfold.Keyring.open(config, policies=policies) as again, pytest.raises(keyfold.KeyfoldError, match="state"):
        again.field("image").open_stream(io.BytesIO(sealed))
    config.write_text(config.read_text().replace("[keyring]\n", "[keyring]\nopen_compromised = true\n"))
    with keyfold.Keyring.open(config, policies=policies) as again:
        stream = cast(Any, again.field("image").open_stream(io.BytesIO(sealed)))
        assert stream.raw.is_compromised and stream.read() == b"DICM"
        fresh = seal(again.field("image"), b"DICM")
        assert not cast(Any, again.field("image").open_stream(io.BytesIO(fresh))).raw.is_compromised
