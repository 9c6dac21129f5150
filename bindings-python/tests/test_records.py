"""Key records in the place of the store, and partitions."""

import pickle
import time

import pytest

import keyfold


@pytest.fixture
def copied(own_config: keyfold.Config) -> keyfold.Config:
    """`own_config` with a copy of its records; the store itself is gone."""
    with own_config.open() as ring:
        ring.field("any", scope="ward-7").encrypt(1)
        ring.field("any").encrypt(1)
        ring.rotate()
        records = ring.records()
    (own_config.path.parent / "keys.db").unlink()
    return own_config.with_records(records)


def test_a_copy_opens_and_seals_what_the_store_does(own_config: keyfold.Config) -> None:
    with own_config.open() as ring:
        ring.field("any", scope="ward-7").encrypt(1)
        copied = own_config.with_records(ring.records())
    with own_config.open() as ring, copied.open() as copy:
        for scope in (None, "ward-7"):
            sealed = ring.field("any", scope=scope).encrypt("value")
            assert copy.field("any", scope=scope).decrypt(sealed) == "value"
            assert ring.field("any", scope=scope).decrypt(copy.field("any", scope=scope).encrypt("back")) == "back"
        assert [repr(key) for key in copy.keys()] == [repr(key) for key in ring.keys()]
        assert copy.records() == ring.records()


def test_no_key_is_made_in_a_copy(copied: keyfold.Config) -> None:
    with copied.open() as ring:
        before = [repr(key) for key in ring.keys()]
        for change in (ring.rotate, lambda: ring.field("any", scope="ward-8").encrypt(1), lambda: ring.new_partition("study")):
            with pytest.raises(keyfold.StoreError, match="the key records are a copy"):
                change()
        assert [repr(key) for key in ring.keys()] == before
        assert ring.field("any", scope="ward-7").decrypt(ring.field("any", scope="ward-7").encrypt(2)) == 2


def test_a_key_that_is_due_still_seals_in_a_copy(
    copied: keyfold.Config, caplog: pytest.LogCaptureFixture
) -> None:
    with copied.open() as ring:
        created = max(key.created_at for key in ring.keys())
    while time.time() < created + 1:
        time.sleep(0.01)
    # The configuration lets no key be as old, and no new one can be made.
    text = copied.path.read_text()
    copied.path.write_text(text + '\n[rotation]\ndata_age = "1s"\n')
    with copied.open() as ring:
        field = ring.field("any")
        assert field.decrypt(field.encrypt(1)) == 1
    assert "the key could not be rotated and seals on" in caplog.text


def test_a_damaged_copy_and_one_of_another_keyring_are_refused(
    copied: keyfold.Config, config: keyfold.Config
) -> None:
    with copied.open() as ring:
        records = ring.records()
    for damaged in (b"", b"no records", records[:-1], records[: len(records) // 2], records.replace(b"a", b"b", 1)):
        with pytest.raises(keyfold.FormatError):
            copied.with_records(damaged).open()
    with config.open() as other, pytest.raises(keyfold.KeyRefused):
        copied.with_records(other.records()).open()


def test_a_configuration_with_records_crosses_processes_and_shows_none(copied: keyfold.Config) -> None:
    again = pickle.loads(pickle.dumps(copied))
    assert again == copied != copied.with_records(None) and hash(again) == hash(copied)
    assert len(repr(copied)) < 300
    with again.open() as ring:
        assert ring.config == copied and ring.field("any").decrypt(ring.field("any").encrypt(1)) == 1


def test_partitions_keep_pseudonyms_apart(own_config: keyfold.Config) -> None:
    names = ["asthma", 'with "both\' quotes" and ünicode\\']
    policy = own_config.path.parent / "studies.toml"
    with own_config.open() as ring:
        sections = [ring.new_partition(name) for name in names]
    own_config.path.write_text("\n".join([own_config.path.read_text(), *sections]))
    quoted = [section.partition("]")[0].removeprefix("[lookup.") for section in sections]
    tables = "".join(
        f'[fields."{study}.{table}"]\nmode = "deterministic"\ntype = "text"\npartition = {name}\njoin_group = "patient"\n'
        for study, name in zip("ab", quoted, strict=True) for table in ("visits", "labs")
    )
    policy.write_text("version = 1\n" + tables)
    with keyfold.Config(own_config.path, [policy]).open() as ring:
        pseudonyms = {name: ring.field(name).encrypt("p-17") for name in ("a.visits", "a.labs", "b.visits", "b.labs")}
        assert pseudonyms["a.visits"] == pseudonyms["a.labs"] != pseudonyms["b.visits"] == pseudonyms["b.labs"]
        assert pseudonyms["a.visits"][26:] != pseudonyms["b.visits"][26:], "not by the key ID alone"
        with pytest.raises(keyfold.KeyRefused):
            ring.field("b.labs").decrypt(pseudonyms["a.labs"])
        for name in (*names, "default", "", "x" * 256, "line\nbreak"):
            with pytest.raises(keyfold.InvalidInput):
                ring.new_partition(name)


def test_a_field_says_whether_it_binds_rows(ring: keyfold.Keyring) -> None:
    assert ring.field("patient.ssn").binds_row and not ring.field("any").binds_row
