"""Rust and Python agree about every kind of error, and errors carry what programs need."""

import pickle
from collections.abc import Callable

import pytest

import keyfold
from keyfold import _native


def test_every_kind_has_a_class_that_is_exported() -> None:
    kinds = _native.error_kinds()
    assert len({name for name, *_ in kinds}) == len(kinds) == len({code for _, code, *_ in kinds})
    for name, code, _, class_name in kinds:
        made = getattr(keyfold, class_name)
        assert issubclass(made, keyfold.KeyfoldError), name
        assert (class_name == "KmsError") == (400 <= code < 450), name
        # What the manual promises of each kind that has no class of its own.
        if made is keyfold.KeyfoldError:
            assert f"`{name}`" in (made.__doc__ or ""), name


def test_every_kind_of_a_class_is_in_its_manual() -> None:
    for name, _, _, class_name in _native.error_kinds():
        siblings = [other for other, _, _, other_class in _native.error_kinds() if other_class == class_name]
        if class_name not in ("KmsError", "KeyfoldError") and len(siblings) > 1:
            assert f"`{name}`" in (getattr(keyfold, class_name).__doc__ or ""), name


def test_every_kind_of_a_key_service_can_be_raised_by_the_program() -> None:
    for name, _, retryable, class_name in _native.error_kinds():
        if class_name == "KmsError":
            assert keyfold.KmsFailure(name).retryable == retryable and name in (keyfold.KmsFailure.__doc__ or "")
        else:
            with pytest.raises(ValueError):
                keyfold.KmsFailure(name)


def test_an_error_has_code_kind_and_row(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    with pytest.raises(keyfold.FormatError) as one:
        field.decrypt(b"")
    error = one.value
    assert (error.code, error.kind, error.retryable, error.row) == (200, "Malformed", False, None)
    with pytest.raises(keyfold.FormatError) as many:
        field.decrypt_many([field.encrypt(1), None, b""])
    assert many.value.row == 2 and many.value.__notes__ == ["in row 2"]
    again = pickle.loads(pickle.dumps(many.value))
    assert (type(again), str(again), again.code, again.row) == (type(many.value), str(many.value), 200, 2)


def test_a_closed_keyring_says_so(config: keyfold.Config) -> None:
    with config.open() as ring:
        field = ring.field("any")
        sealed = field.encrypt(1)
    calls: list[Callable[[], object]] = [
        lambda: field.encrypt(1),
        lambda: field.decrypt(sealed),
        lambda: field.encrypt_many([1]),
        lambda: field.decrypt_many([sealed], on_error="null"),
        lambda: ring.field("any"),
    ]
    for call in calls:
        with pytest.raises(keyfold.KeyfoldError) as closed:
            call()
        assert (closed.value.kind, closed.value.code) == ("Closed", 502)


def test_a_wrong_configuration_says_where(config: keyfold.Config) -> None:
    with pytest.raises(keyfold.StoreError):
        keyfold.Keyring.open(config.path.parent / "missing.toml")
    with pytest.raises(keyfold.ConfigurationError, match="policy.toml"):
        keyfold.Keyring.open(config.path, policies=[*config.policies, *config.policies])
    with pytest.raises(keyfold.StoreError):
        keyfold.init(config.path.parent)
