"""Sealing what is sealed already is refused, as by the command."""

from typing import Any

import pyarrow as pa
import pytest

import keyfold


@pytest.mark.parametrize("form", ["binary", "text"])
def test_sealing_twice_is_refused(ring: keyfold.Keyring, form: Any) -> None:
    field = ring.field("any")
    sealed = field.encrypt_column(pa.array(["a", None]), form=form)
    one = sealed[0].as_py()
    for call in (lambda: field.encrypt(one), lambda: field.encrypt_many([None, one]), lambda: field.encrypt_column(sealed)):
        with pytest.raises(keyfold.PolicyRefused, match="seal_sealed=True"):
            call()
    assert field.decrypt(field.encrypt(one, seal_sealed=True)) == one
    assert field.decrypt_many(field.encrypt_many([one], seal_sealed=True)) == [one]
    assert field.decrypt_column(field.encrypt_column(sealed, seal_sealed=True)).equals(sealed)
    errors: list[keyfold.KeyfoldError] = []
    with pytest.raises(keyfold.PolicyRefused):
        field.encrypt_column(sealed, on_error="null", errors=errors)


def test_bytes_that_are_no_sealed_value_are_taken(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    for value in (b"\xf5", b"\xf5\x01" + b"x" * 20, b"kf1.", "kf2.x", "a kf1."):
        assert field.decrypt(field.encrypt(value)) == value
