"""One peer in a process of its own: `run.py` writes a line of work, and gets a line of JSON.

    python worker.py NAME FOLDER          work by lines: `one N`, `column N`, `large N`, `threads N`, `handle`, `calls N`; ends with the input
    python worker.py NAME FOLDER --cold   opens the keys and one value, says what that took, and ends
    python worker.py NAME FOLDER --memory N   the same for the memory of a column of N rows

FOLDER holds the peer's keys; they are made in it where it is empty. Nothing but these lines goes to standard output.
"""

import gc
import importlib
import importlib.metadata
import json
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import work

# Nanoseconds.
Times = dict[str, float]
WORKS = ["one", "column", "large", "threads", "handle", "cold", "memory", "calls"]


class Worker:
    """A peer, and what it is asked to do."""

    def __init__(self, name: str, folder: Path) -> None:
        self.kind: type[work.Peer] = importlib.import_module(f"peers.{name}").Peer
        self.folder, self.kms = folder, work.Kms(folder)
        self.columns: dict[int, Any] = {}
        made = folder / "made"
        if not made.exists():
            self.kind.provision(folder, self.kms)
            made.touch()
        self.peer = self.kind(folder, self.kms)

    def column_of(self, count: int) -> Any:
        if count not in self.columns:
            self.columns[count] = self.peer.column(work.values(count))
        return self.columns[count]

    def timed(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """Nanoseconds of CPU time of a call, and what it returned."""
        gc.collect()
        start = self.peer.cpu()
        result = call()
        return (self.peer.cpu() - start) * 1e9, result

    def about(self) -> dict[str, Any]:
        versions = {package: importlib.metadata.version(package) for package in self.kind.packages}
        said = {name: getattr(self.kind, name) for name in ("setting", "source", "binds", "kms_is", "note")}
        return said | {"versions": versions, "works": [work for work in WORKS if getattr(self.kind, f"has_{work}", True)]}

    def one(self, count: int) -> Times:
        """A value at a time."""
        values, bindings = work.values(count), self.peer.bindings(count)
        seal, open = self.peer.seal, self.peer.open
        sealing, sealed = self.timed(lambda: [seal(value, binding) for value, binding in zip(values, bindings, strict=True)])
        opening, opened = self.timed(lambda: [open(one, binding) for one, binding in zip(sealed, bindings, strict=True)])
        require(opened == values)
        return {"seal": sealing / count, "open": opening / count}

    def column(self, count: int) -> Times:
        """All values of a column."""
        column = self.column_of(count)
        sealing, sealed = self.timed(lambda: self.peer.seal_column(column))
        opening, opened = self.timed(lambda: self.peer.open_column(sealed, column))
        require(self.peer.plain(opened) == work.values(count))
        return {"seal": sealing / count, "open": opening / count, "bytes": self.peer.sealed_len(sealed) / count}

    def large(self, count: int) -> Times:
        """One value of a megabyte, `count` times."""
        sealing = opening = 0.0
        for _ in range(count):
            took, sealed = self.timed(self.peer.seal_large)
            sealing += took
            took, opened = self.timed(lambda sealed=sealed: self.peer.open_large(sealed))
            opening += took
        require(opened == work.LARGE)
        return {"seal": sealing / count, "open": opening / count}

    def threads(self, count: int) -> Times:
        """What a second thread gains: two seal a column each, beside one that does. Wall time, and CPU time per value of two to one."""
        column = self.column_of(count)
        took = {}
        for threads in (1, 2):
            start = threading.Barrier(threads + 1)
            made = [threading.Thread(target=lambda: (start.wait(), self.peer.seal_column(column))) for _ in range(threads)]
            for thread in made:
                thread.start()
            gc.collect()
            cpu, wall = self.peer.cpu(), time.monotonic()
            start.wait()
            for thread in made:
                thread.join()
            took[threads] = time.monotonic() - wall, self.peer.cpu() - cpu
        return {"gain": 2 * took[1][0] / took[2][0], "cpu": took[2][1] / took[1][1] / 2}

    def handle(self, *_: int) -> Times:
        """New handles in this process, that is, with the KMS call, and one value opened by them."""
        sealed = self.seal_first()
        gc.collect()
        start = time.process_time()
        fresh = self.kind(self.folder, self.kms)
        self.open_first(fresh, sealed)
        took = time.process_time() - start
        fresh.close()
        return {"cpu": took * 1e9}

    def calls(self, count: int) -> dict[str, int]:
        """Calls of the KMS that new handles need to seal `count` values, and that other new ones need to open them."""
        column = self.column_of(count)
        made, sealed = {}, None
        for way in ("seal", "open"):
            before, handles = self.kms.calls, self.kind(self.folder, self.kms)
            sealed = handles.seal_column(column) if way == "seal" else handles.open_column(sealed, column)
            made[way] = self.kms.calls - before
            handles.close()
        return made

    def obey(self, line: str) -> dict[str, Any]:
        what, *numbers = line.split()
        return getattr(self, what)(*map(int, numbers))

    def seal_first(self) -> Any:
        """One value; in a column of one where the peer has no others."""
        if self.kind.has_one:
            return self.peer.seal(work.values(1)[0], self.peer.bindings(1)[0])
        return self.peer.seal_column(self.column_of(1))

    def open_first(self, peer: work.Peer, sealed: Any) -> None:
        if self.kind.has_one:
            require(peer.open(sealed, peer.bindings(1)[0]) == work.values(1)[0])
        else:
            require(peer.plain(peer.open_column(sealed, peer.column(work.values(1)))) == work.values(1))

    # In a process for this alone.

    def keep_one(self) -> None:
        """Leaves a sealed value for `cold`."""
        sealed = self.seal_first()
        with (self.folder / "one").open("wb") as file:
            pickle.dump(bytes(sealed) if hasattr(sealed, "to_pybytes") else sealed, file)

    def cold(self) -> dict[str, float]:
        with (self.folder / "one").open("rb") as file:
            sealed = pickle.load(file)
        self.open_first(self.peer, sealed)
        return {"cpu": self.peer.cpu() * 1e9, "calls": self.kms.calls}

    def memory(self, count: int) -> dict[str, int]:
        column = self.peer.column(work.values(count))
        before = self.peer.peak_memory()
        sealed = self.peer.seal_column(column)
        self.peer.open_column(sealed, column)
        return {"before": before, "peak": self.peer.peak_memory()}


def require(same: bool) -> None:
    if not same:
        raise RuntimeError("what was opened is not what was sealed")


def main() -> None:
    # Standard output is ours alone, whatever a peer prints.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, folder, *more = sys.argv[1:]
    say = lambda said: (answers.write(json.dumps(said) + "\n"), answers.flush())  # noqa: E731
    worker = Worker(name, Path(folder))
    if more == ["--cold"]:
        say(worker.cold())
    elif more[:1] == ["--memory"]:
        say(worker.memory(int(more[1])))
    else:
        worker.keep_one()
        say(worker.about())
        for line in sys.stdin:
            say(worker.obey(line))
    worker.peer.close()


if __name__ == "__main__":
    main()
