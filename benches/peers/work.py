"""The work that every peer does, what a peer is, and the key service that counts.

Run by `worker.py` in the virtual environment of `run.py`. A peer is a class `Peer` in `peers/NAME.py`, and its documentation says which
of its settings is measured, and where its makers document that as the fast one.
"""

import secrets
import time
from pathlib import Path
from typing import Any, ClassVar

FIELD, TENANT = "patient.mrn", "clinic7"
VALUE_LEN, ROW_LEN, AAD_LEN, LARGE_LEN = 16, 16, 100, 1_000_000
# What AWS KMS makes of a key of 32 bytes.
WRAPPED_LEN = 184
# As long as what keyfold authenticates with FIELD and TENANT besides the row, lengths and labels included (benches/src/lib.rs).
SAME_FOR_ALL_ROWS = b'{"field":"patient.mrn","tenant":"clinic7","key":"00000001"}'.ljust(AAD_LEN - ROW_LEN)


def values(count: int) -> list[bytes]:
    return [b"MRN-%012d" % row for row in range(count)]


def rows(count: int) -> list[bytes]:
    return [b"row-%012d" % row for row in range(count)]


def aads(count: int) -> list[bytes]:
    return [SAME_FOR_ALL_ROWS + row for row in rows(count)]


LARGE = bytes(range(250)) * (LARGE_LEN // 250)


class Kms:
    """A key service in this process that counts its calls.

    It keeps what it is given in files and hands out numbers of these: there is no cryptography in it and no network, so it costs
    every peer the same, next to nothing. What a call costs really is the network: see the number of calls.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.counted, self.served = folder / "kms", 0, folder / "served"
        self.folder.mkdir(exist_ok=True)
        self.served.touch()
        self.served_before = self.served.stat().st_size

    @property
    def calls(self) -> int:
        """Calls since this object was made, those of the service in a process of its own (aws.py) included."""
        return self.counted + self.served.stat().st_size - self.served_before

    def wrap(self, payload: bytes) -> bytes:
        self.counted += 1
        name = secrets.token_hex(16)
        (self.folder / name).write_bytes(payload)
        return name.encode().ljust(WRAPPED_LEN, b".")

    def unwrap(self, wrapped: bytes) -> bytes:
        self.counted += 1
        return (self.folder / wrapped.rstrip(b".").decode()).read_bytes()

    def keep_secret(self, payload: bytes) -> None:
        """Wraps the one secret of a peer that leaves this to its caller."""
        (self.folder.parent / "secret").write_bytes(self.wrap(payload))

    def secret(self) -> bytes:
        return self.unwrap((self.folder.parent / "secret").read_bytes())


class Peer:
    """One way to seal values. This class has what peers share that seal value by value; a value is bytes, a binding an AAD.

    `provision` makes keys in a folder, once; an object opens them, which asks the key service. Inputs are made outside of the clock.
    """

    # What pip installs, by the names of constraints.txt. The first is the one whose version is shown.
    packages: ClassVar[list[str]] = []
    # For the table: what is measured, and where it is documented as the fast way.
    setting: ClassVar[str] = ""
    source: ClassVar[str] = ""
    # What a value is authenticated with: "row", "column" (the same for all rows), or "nothing".
    binds: ClassVar[str] = "row"
    # What counted the calls.
    kms_is: ClassVar[str] = "counted in the process"
    # What a reader must know to compare; shown below the table.
    note: ClassVar[str] = ""
    has_one = has_large = has_handle = has_threads = True
    # A program that this peer needs besides its packages.
    program: ClassVar[str | None] = None

    @classmethod
    def provision(cls, folder: Path, kms: Kms) -> None:
        kms.keep_secret(secrets.token_bytes(32))

    def __init__(self, folder: Path, kms: Kms) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def seal(self, value: bytes, binding: Any) -> Any:
        raise NotImplementedError

    def open(self, sealed: Any, binding: Any) -> Any:
        raise NotImplementedError

    def bindings(self, count: int) -> list[Any]:
        return aads(count)

    def column(self, values: list[bytes]) -> Any:
        """The input of `seal_column`, in whatever form is the fastest for the peer."""
        return values, self.bindings(len(values))

    def seal_column(self, column: Any) -> Any:
        seal = self.seal
        return [seal(value, binding) for value, binding in zip(*column, strict=True)]

    def open_column(self, sealed: Any, column: Any) -> Any:
        open = self.open
        return [open(one, binding) for one, binding in zip(sealed, column[1], strict=True)]

    def plain(self, opened: Any) -> list[bytes]:
        """What `open_column` returned, as a list to compare."""
        return list(opened)

    def sealed_len(self, sealed: Any) -> int:
        """Bytes of what `seal_column` returned that an application has to keep."""
        return sum(map(len, sealed))

    def seal_large(self) -> Any:
        return self.seal(LARGE, self.bindings(1)[0])

    def open_large(self, sealed: Any) -> bytes:
        return self.open(sealed, self.bindings(1)[0])

    def cpu(self) -> float:
        """Seconds of CPU time, of all threads, since the process began."""
        return time.process_time()

    def peak_memory(self) -> int:
        """Most bytes of memory that the process had at once."""
        return peak_of("self")


def peak_of(process: str | int) -> int:
    # What ru_maxrss counts, but that also counts, after fork and exec, what the parent had (Linux: fs/exec.c, exec_mmap).
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc")
