"""Fields by name, of the keyring that a program uses throughout."""

from ._native import Field, Keyring

_ring: Keyring | None = None


def use(ring: Keyring | None, /) -> None:
    """Let `ring` be the keyring of fields that are given by name alone, in this process; None: no keyring.

    For notebooks and jobs that have one keyring. A program with several gives `Field` objects instead.
    """
    if not (ring is None or isinstance(ring, Keyring)):
        raise TypeError(f"use takes a keyring, or None, not {type(ring).__name__}")
    global _ring
    _ring = ring


def field_of(field: Field | str) -> Field:
    """Return `field`, or the field of that name."""
    if isinstance(field, Field):
        return field
    if not isinstance(field, str):
        raise TypeError(f"a field is a keyfold.Field, or its name, not {type(field).__name__}")
    if _ring is None:
        raise TypeError("a field by its name alone needs keyfold.use(ring) first")
    return _ring.field(field)
