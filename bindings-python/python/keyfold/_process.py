"""Forks and the end of the interpreter.

No other thread is inside keyfold, and no key store open, while the process is forked; and none takes the interpreter's lock while that ends.
"""

import atexit
import os
import sys
from weakref import WeakSet

from . import _native

# How long a fork waits for threads that are inside, in seconds. A child that was forked all the same cannot use keyfold.
PATIENCE = 5.0

# Behind all that a program has, which may still use a keyring.
LAST = -(2**31)

_rings: WeakSet[_native.Keyring] = WeakSet()
_was_quiet = True


def register(ring: _native.Keyring) -> None:
    """Have `ring` let go of its store before each fork; parent and child open it again when they need it."""
    _rings.add(ring)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        _close_at_end()


def _close_at_end() -> None:
    """Children of multiprocessing end without the end of an interpreter: what they have counted would be in no audit trail."""
    util = sys.modules["multiprocessing.util"]
    util.Finalize(None, _close_rings, exitpriority=LAST)


def _close_rings() -> None:
    for ring in list(_rings):
        ring.close()


def _before_fork() -> None:
    global _was_quiet
    _was_quiet = _native._begin_fork(PATIENCE)
    if _was_quiet:
        for ring in list(_rings):
            ring._before_fork()


def _in_child() -> None:
    _native._begin_child(_was_quiet)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # It forgets at the start of a child what is to be done at its end.
        util.register_after_fork(_rings, lambda _: _close_at_end())


os.register_at_fork(before=_before_fork, after_in_parent=_native._end_fork, after_in_child=_in_child)
atexit.register(_native._begin_end)
