"""Makes keyrings ready for `os.fork`: a key store must not be open while the process is forked."""

import os
from weakref import WeakSet

from ._native import Keyring

_rings: WeakSet[Keyring] = WeakSet()


def register(ring: Keyring) -> None:
    """Have `ring` let go of its store before each fork; parent and child open it again when they need it."""
    _rings.add(ring)


def _before_fork() -> None:
    for ring in list(_rings):
        ring._before_fork()


os.register_at_fork(before=_before_fork)
