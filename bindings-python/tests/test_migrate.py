"""Values that the real libraries have sealed, imported column by column; what is bad, and what fails."""

import os
import secrets
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from cryptography import fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from test_secrets import raised_by, shown_of

import keyfold
from keyfold import migrate

ROWS = [f"p-{row}" for row in range(5000)]
SSNS = [None if row % 7 == 3 else f"999-81-{row:04}" for row in range(5000)]
CANARY = "canary-999-81-5679"


def gcm(key: bytes, plaintext: bytes, aad: bytes = b"", order: str = "nct", nonce_len: int = 12) -> bytes:
    """What a program that seals with AES-GCM itself writes: nonce, ciphertext and tag in some order."""
    nonce = secrets.token_bytes(nonce_len)
    sealed = AESGCM(key).encrypt(nonce, plaintext, aad)
    return b"".join({"n": nonce, "c": sealed[:-16], "t": sealed[-16:]}[part] for part in order)


KEY = bytes(range(32))


def a_column() -> list[bytes | None]:
    return [None if ssn is None else gcm(KEY, ssn.encode(), row.encode()) for ssn, row in zip(SSNS, ROWS, strict=True)]


def as_list(column: Any) -> list[Any]:
    return list(column.to_pylist() if isinstance(column, pa.Array | pa.ChunkedArray) else column)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (list, list),
        (pa.array, pa.BinaryArray),
        (lambda values: pa.chunked_array([values[:4097], values[4097:]]), pa.ChunkedArray),
        (lambda values: pl.Series("ssn", values), pl.Series),
        (lambda values: pd.Series(values, name="ssn", index=range(7, 5007)), pd.Series),
    ],
    ids=["list", "pyarrow", "chunked", "polars", "pandas"],
)
def test_a_column_is_imported(ring: keyfold.Keyring, make: Callable[[Any], Any], kind: type) -> None:
    field, rows = ring.field("patient.ssn"), make(ROWS) if make is not list else ROWS
    old = make(a_column())
    sealed: Any = migrate.import_column(old, migrate.AesGcm(KEY), field, rows=rows, aad=rows)
    assert len(sealed) == 5000
    assert type(sealed).__name__ == kind.__name__
    assert field.decrypt_many([None if pd.isna(each) else each for each in as_list(sealed)], rows=ROWS) == SSNS
    texts = migrate.import_column(old[:2], migrate.AesGcm(KEY), field, rows=rows[:2], aad=rows[:2], form="text")
    assert [each[:4] for each in as_list(texts)] == ["kf1."] * 2
    errors: list[keyfold.KeyfoldError] = []
    moved = migrate.import_column(old, migrate.AesGcm(KEY), field, rows=rows, aad=make(["p-0"] * 5000), on_error="null", errors=errors)
    assert [error.row for error in errors] == [row for row, ssn in enumerate(SSNS) if row and ssn]
    assert sum(not pd.isna(each) for each in as_list(moved)) == 1
    if kind is pd.Series:
        assert list(sealed.index) == list(range(7, 5007)) and sealed.name == "ssn"


LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("nct", {}),
    ("ntc", {"layout": ("nonce", "tag", "ciphertext")}),
    ("ctn", {"layout": ("ciphertext", "tag", "nonce")}),
    ("tnc", {"layout": ("tag", "nonce", "ciphertext"), "nonce_len": 16}),
]


@pytest.mark.parametrize(("order", "options"), LAYOUTS)
@pytest.mark.parametrize("key_len", [16, 24, 32])
def test_layouts_of_aes_gcm(order: str, options: dict[str, Any], key_len: int) -> None:
    key, nonce_len = KEY[:key_len], options.get("nonce_len", 12)
    reader = migrate.AesGcm(key, **options)
    for plaintext in (b"", b"x", b"999-81-5679" * 100):
        sealed = gcm(key, plaintext, b"p-17", order, nonce_len)
        assert reader.open(sealed, "p-17") == plaintext
        for bad in (sealed[:-1], sealed[1:], sealed + b"\0", b"", sealed[: nonce_len + 15]):
            with pytest.raises((keyfold.DecryptionFailed, keyfold.FormatError)):
                reader.open(bad, "p-17")
        with pytest.raises(keyfold.DecryptionFailed):
            reader.open(sealed, "p-18")


def test_encodings_versions_and_separators() -> None:
    import base64

    sealed = gcm(KEY, b"999", b"")
    texts: list[tuple[Any, str | bytes]] = [
        ("base64", base64.b64encode(sealed).decode()), ("base64", base64.b64encode(sealed).rstrip(b"=")), ("hex", sealed.hex()),
        ("base64url", base64.urlsafe_b64encode(sealed).decode()),
    ]  # fmt: skip
    for encoding, text in texts:
        reader = migrate.AesGcm(KEY, encoding=encoding)
        assert reader.open(text, None) == b"999"
        for bad in ("é" * 60, "%" * 60, b"\xff" * 60, "abc"):
            with pytest.raises(keyfold.FormatError):
                reader.open(bad, None)
    with pytest.raises(keyfold.FormatError, match="no encoding was given"):
        migrate.AesGcm(KEY).open("text", None)

    versions = migrate.AesGcm({b"\x01": KEY, b"\x02": KEY[::-1]})
    assert versions.open(b"\x01" + gcm(KEY, b"old"), None) == b"old"
    assert versions.open(b"\x02" + gcm(KEY[::-1], b"new"), None) == b"new"
    with pytest.raises(keyfold.NoMatchingKey):
        versions.open(b"\x03" + gcm(KEY, b"old"), None)
    # The version decides, and no other key is tried.
    with pytest.raises(keyfold.DecryptionFailed):
        versions.open(b"\x02" + gcm(KEY, b"old"), None)

    # As Node writes it in many a program: "iv:tag:text".
    parts = gcm(KEY, b"999", b"", "ntc", 16)
    node = ":".join(part.hex() for part in (parts[:16], parts[16:32], parts[32:]))
    reader = migrate.AesGcm(KEY, layout=("nonce", "tag", "ciphertext"), nonce_len=16, encoding="hex", separator=":")
    assert reader.open(node, None) == b"999"
    for bad in (node + ":", node[2:], node.replace(":", "")):
        with pytest.raises(keyfold.FormatError):
            reader.open(bad, None)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        (KEY[:31], {}),
        ({b"a": KEY, b"ab": KEY}, {}),
        (KEY, {"layout": ("nonce", "ciphertext")}),
        (KEY, {"nonce_len": 7}),
        (KEY, {"tag_len": 3}),
        (KEY, {"separator": ":"}),
        ({b"a": KEY}, {"separator": ":", "encoding": "hex"}),
    ],
)
def test_readers_that_make_no_sense(key: Any, options: dict[str, Any]) -> None:
    with pytest.raises(keyfold.InvalidInput):
        migrate.AesGcm(key, **options)


def test_fernet(ring: keyfold.Keyring) -> None:
    field, keys = ring.field("patient.ssn"), [fernet.Fernet.generate_key() for _ in range(2)]
    old = [fernet.Fernet(keys[row % 2]).encrypt(f"999-{row}".encode()) for row in range(6)]
    sealed = migrate.import_column(old, migrate.Fernet([key.decode() for key in keys]), field, rows=ROWS[:6])
    assert field.decrypt_many(sealed, rows=ROWS[:6]) == [f"999-{row}" for row in range(6)]
    with pytest.raises(keyfold.DecryptionFailed) as raised:
        migrate.import_column(old, migrate.Fernet(keys[0]), field, rows=ROWS[:6])
    assert raised.value.row == 1
    for bad in ("", "gAAAA", b"\xff", "é"):
        with pytest.raises((keyfold.DecryptionFailed, keyfold.FormatError)):
            migrate.Fernet(keys).open(bad, None)
    with pytest.raises(keyfold.InvalidInput, match="no associated data"):
        migrate.import_column(old, migrate.Fernet(keys), field, rows=ROWS[:6], aad=ROWS[:6], on_error="null", errors=[])
    wrong: list[Any] = [[], "x", b"x" * 44]
    for key in wrong:
        with pytest.raises(keyfold.InvalidInput):
            migrate.Fernet(key)


def test_tink(ring: keyfold.Keyring) -> None:
    tink = pytest.importorskip("tink", reason="tink is not installed")
    from tink import aead, daead

    aead.register()
    daead.register()
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    primitive = handle.primitive(aead.Aead)
    same = tink.new_keyset_handle(daead.deterministic_aead_key_templates.AES256_SIV).primitive(daead.DeterministicAead)
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, primitive)
    field = ring.field("patient.ssn")
    for given, seal in (
        (handle, primitive.encrypt), (primitive, primitive.encrypt), (same, same.encrypt_deterministically), (envelope, envelope.encrypt),
    ):  # fmt: skip
        reader = migrate.Tink(given)
        old = [seal(b"999", row.encode()) for row in ROWS[:3]]
        sealed = migrate.import_column(old, reader, field, rows=ROWS[:3], aad=ROWS[:3])
        assert field.decrypt_many(sealed, rows=ROWS[:3]) == ["999"] * 3
        errors: list[keyfold.KeyfoldError] = []
        sealed = migrate.import_column(
            [old[0], old[0], b"", b"garbage" * 20], reader, field, rows=ROWS[:4], aad=ROWS[:4], on_error="null", errors=errors
        )
        assert [each is None for each in sealed] == [False, True, True, True]
        assert [(error.row, error.kind) for error in errors] == [(row, "DecryptionFailed") for row in (1, 2, 3)]


def test_tink_over_a_key_service_that_fails() -> None:
    pytest.importorskip("tink", reason="tink is not installed")
    botocore = pytest.importorskip("botocore.exceptions", reason="botocore is not installed")
    import tink
    from tink import aead

    aead.register()

    class Remote(aead.Aead):  # type: ignore[misc]
        error: Exception | None = None

        def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
            return plaintext[::-1]

        def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
            if self.error:
                # As tink.integration.awskms does.
                raise tink.TinkError(self.error)
            return ciphertext[::-1]

    remote = Remote()
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, remote)
    reader, sealed = migrate.Tink(envelope), envelope.encrypt(b"999", b"")
    assert reader.open(sealed, None) == b"999"

    def client_error(code: str) -> Exception:
        error: Exception = botocore.ClientError({"Error": {"Code": code}}, "Decrypt")
        return error

    for error in (client_error("AccessDeniedException"), client_error("ThrottlingException"), ConnectionError()):
        remote.error = error
        with pytest.raises(tink.TinkError):
            reader.open(sealed, None)
    remote.error = client_error("InvalidCiphertextException")
    with pytest.raises(keyfold.DecryptionFailed):
        reader.open(sealed, None)


def raw_keyring(key: bytes) -> Any:
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    from aws_cryptographic_material_providers.mpl.models import AesWrappingAlg, CreateRawAesKeyringInput

    wanted = CreateRawAesKeyringInput(
        key_namespace="clinic", key_name="2024", wrapping_key=key, wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16
    )
    return AwsCryptographicMaterialProviders(config=MaterialProvidersConfig()).create_raw_aes_keyring(input=wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_aws_encryption_sdk(ring: keyfold.Keyring) -> None:
    sdk = pytest.importorskip("aws_encryption_sdk", reason="aws-encryption-sdk is not installed")
    pytest.importorskip("aws_cryptographic_material_providers", reason="aws-encryption-sdk[MPL] is not installed")
    keyring, client, field = raw_keyring(KEY), sdk.EncryptionSDKClient(), ring.field("patient.ssn")
    old = [client.encrypt(source=b"999", keyring=keyring, encryption_context={"patient": row})[0] for row in ROWS[:3]]
    reader = migrate.AwsEncryptionSdk(keyring, context=lambda row: {"patient": row})
    sealed = migrate.import_column(old, reader, field, rows=ROWS[:3], aad=ROWS[:3])
    assert field.decrypt_many(sealed, rows=ROWS[:3]) == ["999"] * 3

    # Moved to another row, with a pair too many, cut off, damaged in header and signature, of another key.
    flipped = [old[0][:at] + bytes([old[0][at] ^ 1]) + old[0][at + 1 :] for at in (40, 200, len(old[0]) - 1)]
    bad = [old[0], old[0][:30], b"", b"garbage", *flipped]
    errors: list[keyfold.KeyfoldError] = []
    migrate.import_column(bad, reader, field, rows=ROWS[1:8], aad=["p-1"] + ["p-0"] * 6, on_error="null", errors=errors)
    assert [(error.row, error.kind) for error in errors] == [(row, "DecryptionFailed") for row in range(7)]
    for wrong in (
        migrate.AwsEncryptionSdk(keyring, context=lambda _: {"patient": "p-0", "more": "x"}),
        migrate.AwsEncryptionSdk(raw_keyring(KEY[::-1])),
    ):
        with pytest.raises(keyfold.DecryptionFailed):
            wrong.open(old[0], None)
    assert migrate.AwsEncryptionSdk(keyring).open(old[0], None) == b"999"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif("KEYFOLD_TEST_AWS" not in os.environ, reason="no AWS KMS: KEYFOLD_TEST_AWS is not set")
def test_aws_encryption_sdk_under_aws_kms(ring: keyfold.Keyring) -> None:
    sdk = pytest.importorskip("aws_encryption_sdk", reason="aws-encryption-sdk is not installed")
    pytest.importorskip("aws_cryptographic_material_providers", reason="aws-encryption-sdk[MPL] is not installed")
    import json
    import urllib.request

    import boto3
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    from aws_cryptographic_material_providers.mpl.models import CreateAwsKmsKeyringInput
    from botocore.config import Config

    layer, region = os.environ["KEYFOLD_TEST_AWS"], "eu-central-1"
    headers = {"x-amz-target": "TrentService.CreateKey", "x-test-admin": region, "content-type": "application/x-amz-json-1.1"}
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        urllib.request.Request(layer, b"{}", headers), timeout=10
    ) as answer:
        arn = json.load(answer)["KeyMetadata"]["Arn"]

    def kms(profile: str, url: str = layer) -> Any:
        once = Config(retries={"total_max_attempts": 1})
        return boto3.Session(profile_name=profile, region_name=region).client("kms", endpoint_url=url, config=once)

    def keyring(client: Any) -> Any:
        wanted = CreateAwsKmsKeyringInput(kms_key_id=arn, kms_client=client)
        return AwsCryptographicMaterialProviders(config=MaterialProvidersConfig()).create_aws_kms_keyring(input=wanted)

    def generate_data_key(**asked: Any) -> dict[str, Any]:
        """What the emulator does not know: random bytes, and the same encrypted."""
        data_key = secrets.token_bytes(asked.pop("NumberOfBytes"))
        return {"Plaintext": data_key, **service.encrypt(Plaintext=data_key, **asked)}

    service, client, field = kms("service"), sdk.EncryptionSDKClient(), ring.field("patient.ssn")
    service.generate_data_key = generate_data_key
    old = client.encrypt(source=b"999", keyring=keyring(service), encryption_context={"patient": "p-0"})[0]
    reader = migrate.AwsEncryptionSdk(keyring(kms("reader")), context=lambda row: {"patient": row})
    sealed = migrate.import_column([old], reader, field, rows=["p-0"], aad=["p-0"])
    assert field.decrypt(sealed[0], row="p-0") == "999"
    # A damaged value, and one of which the service says that it did not wrap the data key.
    for at in (len(old) - 1, old.index(b"KMSx") + 60):
        with pytest.raises(keyfold.DecryptionFailed):
            reader.open(old[:at] + bytes([old[at] ^ 1]) + old[at + 1 :], "p-0")
    # A service that refuses or is away is no fault of a value: it ends the import, whatever is done with errors.
    for failing in (kms("nobody"), kms("service", "http://127.0.0.1:9")):
        with pytest.raises(Exception) as raised:  # noqa: PT011
            migrate.import_column(
                [old], migrate.AwsEncryptionSdk(keyring(failing)), field, rows=["p-0"], on_error="null", errors=[]
            )
        assert not isinstance(raised.value, keyfold.KeyfoldError), raised.value


def test_what_a_column_refuses(ring: keyfold.Keyring) -> None:
    field, number, reader = ring.field("patient.ssn"), ring.field("number"), migrate.AesGcm(KEY)
    old = [gcm(KEY, b"17"), gcm(KEY, b"\xff"), gcm(KEY[::-1], b"18"), None, gcm(KEY, b"seventeen")]
    with pytest.raises(keyfold.InvalidInput, match="list for the errors"):
        migrate.import_column(old, reader, number, on_error="null")
    with pytest.raises(keyfold.InvalidInput, match="5 values, and 4"):
        migrate.import_column(old, reader, field, rows=ROWS[:4])
    with pytest.raises(keyfold.InvalidInput):
        migrate.import_column(old[:1], reader, field)
    errors: list[keyfold.KeyfoldError] = []
    sealed = migrate.import_column(old, reader, number, decode=int, on_error="null", errors=errors)
    assert number.decrypt_many(sealed) == [17, None, None, None, None]
    assert [(error.row, error.kind) for error in errors] == [(1, "Malformed"), (2, "DecryptionFailed"), (4, "Malformed")]
    # What the policy does not take is an error of its value as well.
    errors.clear()
    sealed = migrate.import_column(old, reader, number, decode=bytes, on_error="null", errors=errors)
    assert sealed == [None] * 5 and [error.row for error in errors] == [0, 1, 2, 4]
    # A value of keyfold is none of the other library, and one in its plaintext is not sealed twice unnoticed.
    own = number.encrypt(17)
    with pytest.raises(keyfold.KeyfoldError):
        migrate.import_column([own], reader, number)
    with pytest.raises(keyfold.PolicyRefused, match="sealed already"):
        migrate.import_column([gcm(KEY, own)], reader, ring.field("any"), decode=bytes)


def test_errors_show_no_plaintext(ring: keyfold.Keyring) -> None:
    old, number = [gcm(KEY, CANARY.encode())], ring.field("number")

    def decode(plaintext: bytes) -> int:
        return int(plaintext)

    for call in (
        lambda: migrate.import_column(old, migrate.AesGcm(KEY), number, decode=decode),
        lambda: migrate.import_column(old, migrate.AesGcm(KEY), number),
        lambda: migrate.import_column(old, migrate.AesGcm(KEY), number, decode=lambda _: bytes(object())),  # type: ignore[call-overload]
    ):
        shown, frames = shown_of(raised_by(call))
        assert CANARY not in shown and not frames
    assert CANARY not in repr(migrate.TableReport(errors=[migrate.RowError(1, None)]))
    assert KEY.hex() not in repr(migrate.AesGcm(KEY)) and repr(KEY) not in repr(migrate.AesGcm(KEY))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in ("cryptography.fernet", "cryptography.exceptions", "tink", "aws_encryption_sdk"):
        monkeypatch.setitem(sys.modules, module, None)
    makers: list[tuple[Callable[[], object], str]] = [
        (lambda: migrate.AesGcm(KEY), r"package cryptography: pip install 'keyfold\[aes-gcm\]'"),
        (lambda: migrate.Fernet(b""), r"package cryptography: pip install 'keyfold\[fernet\]'"),
        (lambda: migrate.Tink(None), r"package tink: pip install 'keyfold\[tink\]'"),
        (lambda: migrate.AwsEncryptionSdk(None), r"package aws-encryption-sdk: pip install 'keyfold\[aws-encryption-sdk\]'"),
    ]
    for make, text in makers:
        with pytest.raises(ImportError, match=text):
            make()
