"""Forks and the end of the interpreter.

No other thread is inside keyfold, and no key store open, while the process is forked; and none takes the interpreter's lock while that ends.
"""

import atexit
import os
from weakref import WeakSet

from . import _native

# How long a fork waits for threads that are inside, in seconds. A child that was forked all the same cannot use keyfold.
PATIENCE = 5.0

_rings: WeakSet[_native.Keyring] = WeakSet()
_was_quiet = True


def register(ring: _native.Keyring) -> None:
    """Have `ring` let go of its store before each fork; parent and child open it again when they need it."""
    _rings.add(ring)


def _before_fork() -> None:
    global _was_quiet
    _was_quiet = _native._begin_fork(PATIENCE)
    if _was_quiet:
        for ring in list(_rings):
            ring._before_fork()


def _in_child() -> None:
    _native._begin_child(_was_quiet)


os.register_at_fork(before=_before_fork, after_in_parent=_native._end_fork, after_in_child=_in_child)
atexit.register(_native._begin_end)
