"""Blind indexes find values without opening them, and values keep their format where nothing else fits."""

import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import keyfold

POLICY = """\
version = 1
rows = 100000000
[fields."patient.ssn"]
row_binding = "id"
[fields."patient.ssn".index.lookup]
kind = "digits"
bits = 63
unique = true
[fields."patient.ssn".index.whole]
kind = "exact"
bits = 256
unique = true
[fields."patient.name"]
row_binding = "none"
type = "text"
[fields."patient.name".index.start]
kind = "prefix"
length = [3, 5]
bits = 8
[fields."patient.birth"]
row_binding = "none"
type = "date"
[fields."patient.birth".index.year]
kind = "date-part"
part = "year"
bits = 4
[fields."patient.mrn"]
mode = "format-preserving"
format = "digits"
[fields.bound]
row_binding = "none"
required_context = ["tenant"]
[fields.bound.index.exact]
kind = "exact"
bits = 256
unique = true
"""
SSN = "999-81-5679"


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[keyfold.Keyring]:
    folder = tmp_path_factory.mktemp("lookup")
    (folder / "policy.toml").write_text(POLICY)
    with keyfold.Keyring.open(keyfold.init(folder / "ring"), policies=[folder / "policy.toml"]) as ring:
        yield ring


def test_a_value_is_found_by_its_token(ring: keyfold.Keyring) -> None:
    index = ring.field("patient.ssn").index("lookup")
    [token] = index.tokens(SSN)
    assert isinstance(token, int) and 0 <= token < 2**63
    assert index.search_tokens("999 815 679") == [token] != index.search_tokens("999815678")
    assert index.tokens("") == [] and index.tokens_many([SSN, None, "", SSN]) == [[token], [], [], [token]]
    # Neither scope nor row play a part.
    assert ring.field("patient.ssn", scope="clinic-1").index("lookup").tokens(SSN) == [token]
    [whole] = ring.field("patient.ssn").index("whole").tokens(SSN)
    assert isinstance(whole, bytes) and len(whole) == 32
    assert repr(index) == "<keyfold.Index 'lookup' of 'patient.ssn'>"


def test_prefixes_have_several_tokens(ring: keyfold.Keyring) -> None:
    index = ring.field("patient.name").index("start")
    tokens = index.tokens("Lovelace")
    assert len(tokens) == 2 and tokens == sorted(tokens)
    for start in ["lov", "LOVE", "Lovel", "Lovelace"]:
        [found] = index.search_tokens(start)
        assert found in tokens
    with pytest.raises(keyfold.InvalidInput):
        index.search_tokens("lo")


def test_the_context_is_part_of_a_token(ring: keyfold.Keyring) -> None:
    one, other = (ring.field("bound", context={"tenant": tenant}).index("exact") for tenant in "ab")
    assert one.tokens(1) == one.search_tokens(1) != other.tokens(1)
    with pytest.raises(keyfold.PolicyRefused):
        ring.field("bound").index("exact").tokens(1)


def test_what_is_wrong_is_said_with_its_row(ring: keyfold.Keyring) -> None:
    with pytest.raises(keyfold.PolicyRefused, match="lookup, whole"):
        ring.field("patient.ssn").index("start")
    year = ring.field("patient.birth").index("year")
    assert year.tokens(date(1815, 12, 10)) == year.search_tokens(date(1815, 1, 1))
    with pytest.raises(keyfold.InvalidInput) as wrong:
        year.tokens_many([date(1815, 12, 10), None, "1815"])
    assert wrong.value.row == 2
    with pytest.raises(keyfold.InvalidInput) as wrong:
        year.search_tokens("")
    assert wrong.value.row is None
    with pytest.raises(TypeError):
        year.tokens_many([[]])  # type: ignore[list-item]
    with pytest.raises(keyfold.InvalidInput) as wrong:
        ring.field("patient.ssn").index("lookup").tokens_column(pa.chunked_array([["1"], ["2", "\u0663"]]))
    assert wrong.value.row == 2 and "\u0663" not in str(wrong.value)


@pytest.mark.parametrize("make", [pa.array, pl.Series, pd.Series], ids=["pyarrow", "polars", "pandas"])
def test_columns_have_the_tokens_of_values(ring: keyfold.Keyring, make: type) -> None:
    given = [SSN, None, "", "1", SSN]
    for name, token_type in [("lookup", pa.int64()), ("whole", pa.binary())]:
        index = ring.field("patient.ssn").index(name)
        made = index.tokens_column(make(given))
        assert type(made).__module__.split(".")[0] == make.__module__.split(".")[0]
        column = pa.chunked_array(made) if hasattr(made, "__arrow_c_stream__") else pa.array(made)
        assert column.cast(token_type).to_pylist() == [tokens[0] if tokens else None for tokens in index.tokens_many(given)]
    start = ring.field("patient.name").index("start").tokens_column(make(given))
    lists = pa.chunked_array(start) if hasattr(start, "__arrow_c_stream__") else pa.array(start)
    expected = ring.field("patient.name").index("start").tokens_many(given)
    assert lists.to_pylist() == [tokens or None for tokens in expected]


def test_columns_of_every_shape(ring: keyfold.Keyring) -> None:
    index = ring.field("patient.ssn").index("lookup")
    encoded = pa.array([SSN, None, "7", SSN]).dictionary_encode()
    assert index.tokens_column(encoded).to_pylist() == index.tokens_column(encoded.dictionary_decode()).to_pylist()
    assert index.tokens_column(pa.array([], pa.string())).to_pylist() == []
    assert index.tokens_column(pa.nulls(3)).to_pylist() == [None] * 3
    chunked = pa.chunked_array([[SSN], [], ["7", None]], pa.large_string())
    assert [len(chunk) for chunk in index.tokens_column(chunked).chunks] == [1, 0, 2]
    # More rows than a batch has.
    many = np.arange(40_000)
    column = index.tokens_column(pa.array(many))
    assert len(set(column.to_pylist())) == len(many) and [column[39_999].as_py()] == index.search_tokens("39999")
    sliced = index.tokens_column(pa.array([None, *map(str, range(20_000))])[10_000:])
    assert [sliced[-1].as_py()] == index.search_tokens("19999")
    with pytest.raises(keyfold.InvalidInput, match="another type"):
        ring.field("patient.name").index("start").tokens_column(pa.array([1]))
    starts = ring.field("patient.name").index("start").tokens_column(pa.array([None, *["Ada Lovelace"] * 40_000, None]))
    assert starts[0].as_py() is None and starts[40_001].as_py() is None and starts.validate(full=True) is None
    assert starts[40_000].as_py() == ring.field("patient.name").index("start").tokens("Ada L")


def test_a_value_keeps_its_format(ring: keyfold.Keyring) -> None:
    mrn = ring.field("patient.mrn").format_preserver()
    replaced = mrn.encrypt("123-4567")
    assert replaced != "123-4567" and replaced[3] == "-" and replaced.replace("-", "").isdigit() and len(replaced) == 8
    assert mrn.decrypt(replaced) == "123-4567"
    # Not authenticated: every text of the format opens.
    assert mrn.decrypt("000-0000") != "000-0000"
    assert mrn.decrypt_many(mrn.encrypt_many(["123-4567", None, "7654321"])) == ["123-4567", None, "7654321"]
    assert "not authenticated" in repr(mrn)
    for wrong in ["12345", "12a-4567", "", "\ud800"]:
        with pytest.raises(keyfold.InvalidInput):
            mrn.encrypt(wrong)
    with pytest.raises(TypeError):
        mrn.encrypt(1234567)  # type: ignore[arg-type]
    for call in [mrn.encrypt_many, mrn.decrypt_many]:
        with pytest.raises(keyfold.InvalidInput) as refused:
            call(["123-4567", None, "x"])
        assert refused.value.row == 2
        with pytest.raises(TypeError):
            call([7])  # type: ignore[list-item]
    assert ring.field("patient.mrn").mode == "format-preserving"
    with pytest.raises(keyfold.PolicyRefused):
        ring.field("patient.mrn").encrypt("123-4567")
    with pytest.raises(keyfold.PolicyRefused):
        ring.field("patient.ssn").format_preserver()


@pytest.mark.parametrize("make", [pa.array, pl.Series, pd.Series], ids=["pyarrow", "polars", "pandas"])
def test_columns_keep_their_format(ring: keyfold.Keyring, make: type) -> None:
    mrn = ring.field("patient.mrn").format_preserver()
    given = ["123-4567", None, "7654321"]
    replaced = mrn.encrypt_column(make(given))
    values = replaced.to_list() if hasattr(replaced, "to_list") else replaced.to_pylist()
    assert values[0] == mrn.encrypt("123-4567") and pd.isna(values[1])
    back = mrn.decrypt_column(replaced)
    assert [value if isinstance(value, str) else None for value in back] == given or back.to_pylist() == given
    with pytest.raises(keyfold.InvalidInput) as refused:
        mrn.encrypt_column(make(["123-4567", None, "x"]))
    assert refused.value.row == 2
    with pytest.raises(keyfold.InvalidInput, match="column of text"):
        mrn.encrypt_column(make([1234567]))


def test_threads_share_an_index(ring: keyfold.Keyring) -> None:
    index, mrn = ring.field("patient.ssn").index("lookup"), ring.field("patient.mrn").format_preserver()
    expected, made = index.tokens(SSN), []

    def work() -> None:
        for _ in range(200):
            made.append(index.search_tokens(SSN) == expected and mrn.decrypt(mrn.encrypt("1234567")) == "1234567")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [True] * 800


def test_a_closed_keyring_ends_its_indexes(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    ring = keyfold.Keyring.open(keyfold.init(tmp_path / "ring"), policies=[tmp_path / "policy.toml"])
    index, mrn = ring.field("patient.ssn").index("lookup"), ring.field("patient.mrn").format_preserver()
    index.tokens(SSN), mrn.encrypt("1234567")
    ring.close()
    calls: list[Callable[[], object]] = [lambda: index.tokens(SSN), lambda: index.search_tokens(SSN), lambda: mrn.encrypt("1234567")]
    for call in calls:
        with pytest.raises(keyfold.KeyfoldError) as closed:
            call()
        assert closed.value.kind == "Closed"
