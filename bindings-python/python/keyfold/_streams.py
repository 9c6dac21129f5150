"""File objects over streams (docs/STREAMS.md). Sealing and opening is the native module's affair."""

import io
import sys
from types import TracebackType
from typing import IO, Any, Self, cast

from ._errors import InvalidInput, StoreError
from ._native import Field, _OpeningStream, _SealingStream

_HEADER_LEN = 83
_CHUNK_LEN = 16 * 1024
_SEALED_LEN = _CHUNK_LEN + 16


def open_stream(field: Field, file: IO[bytes], mode: str, row: Any) -> "StreamWriter | io.BufferedReader":
    """Return what `Field.open_stream` returns."""
    if mode == "wb":
        _check_file(file, "write")
        return StreamWriter(field._seal_stream(row), file)
    if mode != "rb":
        raise InvalidInput('a stream is opened in the mode "rb" or "wb"', 100, "InvalidInput")
    _check_file(file, "read")
    header = _read_full(file, _HEADER_LEN)
    return io.BufferedReader(StreamReader(field._open_stream(header, row), file), _CHUNK_LEN)


def _check_file(file: Any, method: str) -> None:
    """Refuse what is no binary file object, before a key is made or asked for."""
    if isinstance(file, io.TextIOBase) or not callable(getattr(file, method, None)):
        raise TypeError(f"a stream needs a binary file object that can {method}, as open() returns for a path, not {type(file).__name__}")


def _read_full(file: IO[bytes], n: int) -> bytes:
    """Return `n` bytes, or fewer where the file ends."""
    parts = []
    while n > 0:
        part = file.read(n)
        if part is None:
            raise BlockingIOError("a stream needs a file that blocks")
        if not part:
            break
        parts.append(part)
        n -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class StreamWriter(io.BufferedIOBase):
    """Seals what is written to it. Complete once it was closed without an exception, and not before."""

    def __init__(self, stream: _SealingStream, file: IO[bytes]) -> None:
        self._stream, self._file, self._failed = stream, file, False
        self._put(stream.header())

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        """Seal `data`, and write the chunks that it completes."""
        if self.closed:
            raise ValueError("write to a closed stream")
        self._check()
        # Until it is in the file: whoever closes after an exception would complete a stream that lacks it.
        self._failed = True
        self._put(self._stream.update(data))
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Flush the file below. What does not fill a chunk is held back until the end."""
        if not self.closed:
            self._file.flush()

    def finish(self) -> None:
        """Write the last chunk, and close: now the stream is complete. The file below stays open.

        If a key cannot be confirmed just then, nothing was written, and it may be called again. `close` and `with` close whatever happens.
        """
        if self.closed:
            return
        self._check()
        self._put(self._stream.finish())
        super().close()

    def close(self) -> None:
        """As `finish`, unless an exception is being handled: then the stream is closed without its last chunk, and that is an error.

        Whatever is wrapped around a file closes it when a `with` ends, also by an exception, and does not say so.
        """
        if self.closed:
            return
        if sys.exception() is None:
            self._finish_or_abandon()
            return
        self.abandon()
        raise StoreError("closed while an exception is handled: the stream is not complete (`finish` completes it whatever happens)", 601, "Io")

    def abandon(self) -> None:
        """Close without the last chunk, so that nobody takes what was written for a whole stream."""
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish_or_abandon()
        else:
            self.abandon()

    def __del__(self) -> None:
        # A file object of Python is closed when it is forgotten, which would pass half of a stream off as a whole.
        self.abandon()

    def _finish_or_abandon(self) -> None:
        try:
            self.finish()
        finally:
            self.abandon()

    def _check(self) -> None:
        if self._failed:
            raise StoreError("writing the stream has failed before: it is not complete", 601, "Io")

    def _put(self, sealed: bytes) -> None:
        self._failed = True
        view = memoryview(sealed)
        while view:
            # Unbuffered files write what they like; others return nothing.
            written = self._file.write(view)
            view = view[len(view) if written is None else written :]
        self._failed = False


class StreamReader(io.RawIOBase):
    """Reads the plaintext of a stream, each chunk after it was verified."""

    def __init__(self, stream: _OpeningStream, file: IO[bytes]) -> None:
        self._stream, self._file = stream, file
        self._is_seekable = file.seekable()
        self._start = file.tell() if self._is_seekable else 0
        self._position = 0
        # Number and plaintext of the chunk in memory, and where the file stands.
        self._number, self._chunk, self._next = -1, bytearray(), 0
        # Known once the last chunk was opened.
        self._len: int | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._is_seekable

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if self.closed:
            raise ValueError("read of a closed stream")
        if self._len is not None and self._position >= self._len:
            return 0
        number, offset = divmod(self._position, _CHUNK_LEN)
        if not self._load(number):
            if self._is_seekable and self._position >= self.verified_len():
                return 0
            # Says what is wrong.
            self._stream.open_chunk(number, b"")
        rest = memoryview(self._chunk)[offset:]
        n = min(len(rest), len(view))
        view[:n] = rest[:n]
        self._position += n
        return n

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if not self._is_seekable:
            raise io.UnsupportedOperation("the file below cannot seek")
        start = {0: lambda: 0, 1: lambda: self._position, 2: self.verified_len}.get(whence)
        if start is None:
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        position = start() + offset
        if position < 0:
            raise InvalidInput("a seek to before the start", 100, "InvalidInput")
        self._position = position
        return position

    def verified_len(self) -> int:
        """Return the bytes of the whole plaintext, after the last chunk was opened: nobody has cut or lengthened it."""
        if self._len is None:
            if not self._is_seekable:
                raise io.UnsupportedOperation("the file below cannot seek")
            number = (self._file.seek(0, 2) - self._start) // _SEALED_LEN
            self._next = -1
            if not self._load(number) or self._len is None:
                self._stream.open_chunk(number, b"")
        return cast(int, self._len)

    @property
    def is_compromised(self) -> bool:
        """Whether the key is compromised, so that whoever has it can have made the stream. Such a stream opens only where the configuration says so."""
        return self._stream.is_compromised()

    def close(self) -> None:
        self._chunk = bytearray()
        super().close()

    def __enter__(self) -> Self:
        return self

    def _load(self, number: int) -> bool:
        """Have the chunk in memory; whether the file has any of it."""
        if number == self._number:
            # It was opened, but not given out.
            self._stream.check()
            return True
        if number != self._next:
            if not self._is_seekable:
                # Reading has failed before, and the file does not go back.
                self._stream.open_chunk(number, b"")
            self._file.seek(self._start + number * _SEALED_LEN)
        self._number, self._next = -1, -1
        sealed = _read_full(self._file, _SEALED_LEN)
        if len(sealed) < 16:
            return False
        self._chunk = self._stream.open_chunk(number, sealed)
        self._number, self._next = number, number + 1
        if len(self._chunk) < _CHUNK_LEN:
            self._len = number * _CHUNK_LEN + len(self._chunk)
        return True
