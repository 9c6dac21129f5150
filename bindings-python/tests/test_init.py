"""Keyrings that are made with KEKs and stores of the caller's choice."""

import os
from pathlib import Path

import pytest
from test_kms import CANARY, Service

import keyfold

PASSPHRASE_KEK = Path(__file__).parent / "data" / "passphrase.kek"
PASSPHRASE = "correct horse battery"


def policy(folder: Path) -> Path:
    path = folder / "policy.toml"
    path.write_text('version = 1\n[fields.any]\nrow_binding = "none"\n')
    return path


def passphrase_kek(folder: Path) -> Path:
    path = folder / "passphrase.kek"
    path.touch(mode=0o600)
    path.write_bytes(PASSPHRASE_KEK.read_bytes())
    return path


def roots(ring: keyfold.Keyring) -> list[list[str]]:
    return [key.keks for key in ring.keys() if key.kind == "root"]


def test_an_object_of_the_program_as_the_only_kek(tmp_path: Path) -> None:
    service = Service()
    host_keks = {"ward": service}
    path = keyfold.init(tmp_path / "ring", name="icu", environment="test", keks={"hsm": "host:ward"}, host_keks=host_keks)
    assert [name for name, _ in service.calls] == ["wrap", "unwrap"]
    assert service.calls[0][1]["kf:env"] == "test" and not list(path.parent.glob("*.kek"))
    with keyfold.Keyring.open(path, policies=[policy(tmp_path)], host_keks=host_keks) as ring:
        assert roots(ring) == [["hsm"]]
        field = ring.field("any")
        assert field.decrypt(field.encrypt("value")) == "value"


def test_several_keks_each_of_which_opens_the_keyring(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(alias: str) -> str:
        asked.append(alias)
        return PASSPHRASE

    service = Service()
    keks = {"ward": "host:ward", "offline": f"passphrase:{passphrase_kek(tmp_path)}"}
    path = keyfold.init(tmp_path / "ring", keks=keks, passphrase=ask, host_keks={"ward": service})
    assert asked == ["offline"]
    config = keyfold.Config(path, [policy(tmp_path)])
    with config.open(host_keks={"ward": service}) as ring:
        assert roots(ring) == [["offline", "ward"]]
        sealed = ring.field("any").encrypt(1)
    with config.open(passphrase=ask) as ring:
        assert ring.field("any").decrypt(sealed) == 1


@pytest.mark.parametrize(
    ("keks", "brought", "store", "error", "said"),
    [
        ({"hsm": "nowhere://x"}, [], None, keyfold.ConfigurationError, "nowhere"),
        ({"hsm": "host:ward"}, [], None, keyfold.ConfigurationError, "ward"),
        ({"hsm": "local:missing.kek"}, [], None, keyfold.StoreError, "missing.kek"),
        ({"hsm": "host:ward"}, ["ward", "unused"], None, keyfold.ConfigurationError, "host:unused"),
        ({}, ["unused"], None, keyfold.ConfigurationError, "host:unused"),
        ({"a": "host:ward", "b": "host:ward"}, ["ward"], None, keyfold.ConfigurationError, "a, b"),
        ({"no alias": "host:ward"}, ["ward"], None, keyfold.InvalidInput, "alias"),
        ({}, [], f"mysql://user:{CANARY}@db/keys", keyfold.ConfigurationError, "mysql"),
        ({}, [], "sqlite:keys.db", keyfold.ConfigurationError, "SQLite"),
    ],
)
def test_of_what_cannot_be_made_nothing_is_left(
    tmp_path: Path,
    keks: dict[str, str],
    brought: list[str],
    store: str | None,
    error: type[keyfold.KeyfoldError],
    said: str,
) -> None:
    services = {name: Service() for name in brought}
    with pytest.raises(error, match=said) as failed:
        keyfold.init(tmp_path / "a" / "ring", keks=keks, store=store, host_keks=services)
    assert CANARY not in str(failed.value)
    assert os.listdir(tmp_path) == [] and all(service.calls == [] for service in services.values())


def test_a_service_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    service = Service()
    for method in ("wrap", "unwrap"):

        def refuse(method: str = method) -> None:
            if service.calls[-1][0] == method:
                raise keyfold.KmsFailure("AccessDenied")

        service.fail = refuse
        with pytest.raises(keyfold.KmsError) as failed:
            keyfold.init(tmp_path / "ring", keks={"hsm": "host:ward"}, host_keks={"ward": service})
        assert failed.value.kind == "AccessDenied" and os.listdir(tmp_path) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = keyfold.init(tmp_path / "ring")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(keyfold.StoreError):
        keyfold.init(tmp_path / "ring", keks={"hsm": "host:ward"}, host_keks={"ward": Service()})
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


@pytest.mark.skipif("KEYFOLD_TEST_POSTGRES" not in os.environ, reason="no server of PostgreSQL: KEYFOLD_TEST_POSTGRES")
def test_the_key_records_in_postgresql(tmp_path: Path) -> None:
    ca = os.environ["KEYFOLD_TEST_POSTGRES_CA"]
    store = f"{os.environ['KEYFOLD_TEST_POSTGRES']}?sslrootcert={ca}&schema=python_{os.getpid()}"
    path = keyfold.init(tmp_path / "ring", store=store)
    assert store in path.read_text() and not (path.parent / "keys.db").exists()
    with keyfold.Keyring.open(path, policies=[policy(tmp_path)]) as ring:
        assert ring.field("any").decrypt(ring.field("any").encrypt(1)) == 1
