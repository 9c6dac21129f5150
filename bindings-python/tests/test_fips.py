"""Which FIPS 140 module a build has: an ordinary one has none, and says so."""

import keyfold


def test_the_status_says_what_is_built_in() -> None:
    status = keyfold.fips_status()
    assert (status.module is None) == (status.version is None) == (not status.in_fips_mode)
    assert {service.approved for service in status.services} == ({False} if status.module is None else {False, True})
    for service in status.services:
        assert service.name and service.algorithm and service.computed_by
        assert not service.approved or service.computed_by == status.module
    assert any(service.algorithm == "AES-256-SIV" and not service.approved for service in status.services)
    assert repr(status).startswith("<keyfold.FipsStatus ")
    assert "AES-256-SIV by RustCrypto, not approved" in repr(status.services)
