"""Values go in and come out as they were."""

import pytest

import keyfold


def test_a_value_opens_in_its_row_alone(ring: keyfold.Keyring) -> None:
    ssn = ring.field("patient.ssn")
    sealed = ssn.encrypt("999-81-5679", row="p-17")
    assert ssn.decrypt(sealed, row=b"p-17") == "999-81-5679"
    with pytest.raises(keyfold.DecryptionFailed):
        ssn.decrypt(sealed, row="p-18")
