"""Opening keyrings and finding fields: what is misspelt or forgotten is said at once, in Python's words."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import keyfold


def test_a_field_that_is_not_there_is_told_apart_from_its_like(ring: keyfold.Keyring) -> None:
    assert ring.fields() == sorted(ring.fields()) and {"patient.ssn", "any", "mrn"} <= set(ring.fields())
    with pytest.raises(keyfold.PolicyRefused, match=r"patient\.snn \(perhaps patient\.ssn\)"):
        ring.field("patient.snn")
    with pytest.raises(keyfold.PolicyRefused, match=r"zzz \(it has any, .*patient\.ssn"):
        ring.field("zzz")


def test_a_deterministic_field_has_no_scope(ring: keyfold.Keyring) -> None:
    with pytest.raises(keyfold.PolicyRefused, match="partition in the place of a scope.*mrn is in default"):
        ring.field("mrn", scope="asthma")
    assert repr(ring.field("mrn")) == "<keyfold.Field 'mrn'>"
    assert repr(ring.field("any", scope="ward-7", context={"a": "b"})) == "<keyfold.Field 'any' in a scope>"


def test_policies(own_config: keyfold.Config) -> None:
    for wrong in ("policy.toml", Path("policy.toml"), b"policy.toml"):
        with pytest.raises(TypeError, match="a list of paths"):
            keyfold.Keyring.open(own_config.path, policies=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a list of paths"):
            keyfold.Config(own_config.path, wrong)  # type: ignore[arg-type]
    with keyfold.Keyring.open(own_config.path, policies=(path for path in own_config.policies)) as ring:  # type: ignore[arg-type]
        assert ring.config == own_config
    policy = own_config.path.parent / "other.toml"
    for text, why in (
        ('version = 1\n[fields.patient.ssn]\nrow_binding = "id"\n', "in quotes"),
        ('version = 1\n[fields."a"]\nrowbinding = "id"\n', "other.toml:3, rowbinding"),
    ):
        policy.write_text(text)
        with pytest.raises(keyfold.ConfigurationError, match=why):
            keyfold.Keyring.open(own_config.path, policies=[policy])
    policy.write_text('version = 1\n[fields."a"]\nmode = "deterministic"\npartition = "forgotten"\n')
    with keyfold.Keyring.open(own_config.path, policies=[policy]) as ring:
        with pytest.raises(keyfold.ConfigurationError, match="forgotten"):
            ring.field("a")
        # So that the partition can be made by the program that lacks it.
        assert '[lookup."forgotten"]' in ring.new_partition("forgotten")


def test_a_configuration_that_is_missing_is_missed_in_the_words_of_python(tmp_path: Path) -> None:
    with pytest.raises(keyfold.StoreError, match=r"keyfold\.init") as raised:
        keyfold.Keyring.open(tmp_path / "keyfold.toml")
    assert raised.value.kind == "Io" and "--config" not in str(raised.value)
    assert str(raised.value).count("No such file") == 1


@pytest.mark.parametrize("used", [False, True])
def test_after_its_end_a_keyring_does_nothing(config: keyfold.Config, used: bool) -> None:
    ring = config.open()
    field = ring.field("any")
    if used:
        field.encrypt(1)
    ring.close()
    ring.close()
    calls: list[Any] = [
        ring.keys, ring.records, ring.rotate, ring.repair, ring.__enter__, lambda: ring.new_partition("q"), lambda: ring.field("any"),
        lambda: field.encrypt(1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(keyfold.KeyfoldError) as raised:
            call()
        assert raised.value.kind == "Closed"


def test_the_keyring_of_a_program_is_one(ring: keyfold.Keyring) -> None:
    for wrong in (ring.config, "keyfold.toml", ring.field("any")):
        with pytest.raises(TypeError, match="takes a keyring"):
            keyfold.use(wrong)  # type: ignore[arg-type]


def test_the_version_is_that_of_the_package() -> None:
    assert keyfold.__version__ == version("keyfold")
