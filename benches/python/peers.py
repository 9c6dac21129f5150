"""A column of record numbers of 10 bytes, sealed and opened by keyfold and by its peers in Python, all in one process.

    python benches/python/peers.py [--rows N] [--rounds N] [--assert]

Needs the wheel, pyarrow, and of requirements.txt what there is; a peer that is missing is said aloud. The contenders take turns in each
round; CPU time of the process; medians. Slow peers get fewer rows, and their time is scaled to a row: the table says how many they had.
All keep their keys in memory, and no key service is asked while the clock runs. What each binds a value to is its own affair: tenant
and field where it has associated data or a context.
"""

import argparse
import asyncio
import gc
import importlib.metadata
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

import keyfold

TENANT, FIELD = "clinic-17", "patient.mrn"
BOUND = b'{"tenant":"clinic-17","field":"patient.mrn"}'
POLICY = f'version = 1\n[fields."{FIELD}"]\nrow_binding = "none"\ncolumns = ["mrn"]\n'


@dataclass
class Contender:
    """Something that seals and opens a list of values, or what it made of the list beforehand."""

    name: str
    seal: Callable[[Any], Any]
    open: Callable[[Any], Any]
    # Values that it gets in one turn, as a part of --rows.
    part: float = 1.0
    # How many times as fast a column of keyfold is to seal; None: no goal.
    goal: float | None = None
    prepare: Callable[[list[bytes]], Any] = lambda values: values
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"seal": [], "open": []})
    rows: int = 0


def each(call: Callable[[Any], Any]) -> Callable[[Sequence[Any]], list[Any]]:
    return lambda values: [call(value) for value in values]


def ours(folder: Path) -> list[Contender]:
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    ring = keyfold.Keyring.open(keyfold.init(folder / "ring"), policies=[policy])
    mrn = ring.field(FIELD, context={"tenant": TENANT})
    column = Contender("keyfold, a column", mrn.encrypt_column, mrn.decrypt_column, prepare=lambda values: pa.array(values, pa.binary()))
    one = Contender("keyfold, value by value", each(mrn.encrypt), each(mrn.decrypt), 0.2)
    return [column, one]


def aesgcm(folder: Path) -> Contender:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(AESGCM.generate_key(256))

    def seal(value: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + cipher.encrypt(nonce, value, BOUND)

    return Contender("cryptography AESGCM", each(seal), each(lambda sealed: cipher.decrypt(sealed[:12], sealed[12:], BOUND)), 0.2, 6)


def asherah(folder: Path) -> Contender:
    import asherah

    config = {
        "ServiceName": "bench", "ProductID": "keyfold", "Metastore": "memory", "EnableSessionCaching": True,
        "KMS": "static", "StaticMasterKeyHex": os.urandom(32).hex(),
    }
    session = asherah.SessionFactory.from_config(config).get_session(TENANT)
    return Contender("asherah", each(session.encrypt_bytes), each(session.decrypt_bytes), 0.1, 6)


def tink(folder: Path) -> Contender:
    from tink import aead, new_keyset_handle

    aead.register()
    kek = new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, kek)
    return Contender(
        "tink KmsEnvelopeAead", each(lambda value: envelope.encrypt(value, BOUND)), each(lambda sealed: envelope.decrypt(sealed, BOUND)), 0.02, 40
    )


def mongocrypt(folder: Path) -> Contender:
    import bson
    from bson.binary import Binary, UuidRepresentation
    from pymongocrypt.options import MongoCryptOptions
    from pymongocrypt.synchronous.explicit_encrypter import ExplicitEncrypter
    from pymongocrypt.synchronous.state_machine import MongoCryptCallback

    class Vault(MongoCryptCallback):  # type: ignore[misc]
        """A key vault of one key, in memory."""

        key = b""

        def insert_data_key(self, data_key: bytes) -> Any:
            document = bson.decode(data_key)
            self.key = data_key
            return document["_id"]

        def fetch_keys(self, filter: bytes) -> list[bytes]:
            return [self.key]

        def bson_encode(self, document: Any) -> bytes:
            return bson.encode(document)

        def kms_request(self, kms_context: Any) -> None: ...
        def collection_info(self, database: str, filter: bytes) -> None: ...
        def mark_command(self, database: str, command: bytes) -> None: ...
        def close(self) -> None: ...

    encrypter = ExplicitEncrypter(Vault(), MongoCryptOptions({"local": {"key": os.urandom(96)}}))
    key_id = bytes(Binary.from_uuid(uuid.UUID(bytes=bytes(encrypter.create_data_key("local"))), UuidRepresentation.STANDARD))
    algorithm = "AEAD_AES_256_CBC_HMAC_SHA_512-Random"

    def seal(value: bytes) -> bytes:
        return encrypter.encrypt(bson.encode({"v": value}), algorithm, key_id=key_id)

    return Contender("pymongocrypt", each(seal), each(lambda sealed: bson.decode(encrypter.decrypt(sealed))["v"]), 0.01, 100)


def alloy(folder: Path) -> Contender:
    import ironcore_alloy as alloy

    secrets = alloy.StandardSecrets(1, [alloy.StandaloneSecret(1, alloy.Secret(os.urandom(32)))])
    standard = alloy.Standalone(alloy.StandaloneConfiguration(secrets, {}, {})).standard()
    metadata = alloy.AlloyMetadata.new_simple(TENANT)
    loop = asyncio.new_event_loop()

    async def seal_all(values: list[bytes]) -> list[Any]:
        return [await standard.encrypt({"mrn": value}, metadata) for value in values]

    async def open_all(sealed: list[Any]) -> list[bytes]:
        return [(await standard.decrypt(document, metadata))["mrn"] for document in sealed]

    run = loop.run_until_complete
    return Contender("ironcore-alloy standard", lambda values: run(seal_all(values)), lambda sealed: run(open_all(sealed)), 0.005, 100)


def esdk(folder: Path) -> Contender:
    import aws_encryption_sdk as sdk
    from aws_encryption_sdk.identifiers import CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
    from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

    class Raw(RawMasterKeyProvider):  # type: ignore[misc]
        provider_id = "bench"
        key = os.urandom(32)

        def _get_raw_key(self, key_id: bytes) -> Any:
            return WrappingKey(WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, self.key, EncryptionKeyType.SYMMETRIC)

    provider = Raw()
    provider.add_master_key("one")
    client = sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    manager = sdk.CachingCryptoMaterialsManager(
        master_key_provider=provider, cache=sdk.LocalCryptoMaterialsCache(100), max_age=3600.0, max_messages_encrypted=1 << 32
    )
    context = {"tenant": TENANT, "field": FIELD}
    # Without signatures, which others do not make either.
    algorithm = sdk.identifiers.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def seal(value: bytes) -> bytes:
        return client.encrypt(source=value, encryption_context=context, materials_manager=manager, algorithm=algorithm)[0]

    return Contender(
        "aws-encryption-sdk, cached", each(seal), each(lambda sealed: client.decrypt(source=sealed, materials_manager=manager)[0]), 0.002, 400
    )


PEERS = [aesgcm, asherah, tink, mongocrypt, alloy, esdk]


def contenders(folder: Path) -> list[Contender]:
    made = ours(folder)
    for peer in PEERS:
        try:
            made.append(peer(folder))
        except ImportError as error:
            print(f"SKIPPED: {peer.__name__}: {error}", flush=True)
    return made


def timed(call: Callable[[Any], Any], values: Any) -> tuple[float, Any]:
    gc.collect()
    start = time.process_time()
    result = call(values)
    return time.process_time() - start, result


def turn(contender: Contender, values: list[bytes]) -> None:
    given = contender.prepare(values)
    seconds, sealed = timed(contender.seal, given)
    contender.seconds["seal"].append(seconds)
    seconds, opened = timed(contender.open, sealed)
    contender.seconds["open"].append(seconds)
    if contender.prepare(list(opened) if not isinstance(opened, pa.Array) else opened.to_pylist()) != given:
        raise SystemExit(f"{contender.name} does not open what it sealed")
    contender.rows = len(values)


def version(module: str) -> str:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--assert", dest="asserts", action="store_true", help="fail where a goal for sealing is missed")
    options = parser.parse_args()
    values = [b"MRN%07d" % number for number in range(options.rows)]
    with tempfile.TemporaryDirectory() as folder:
        field_of = contenders(Path(folder))
        for contender in field_of:  # once before the clock runs
            contender.open(contender.seal(contender.prepare(values[:100])))
        for round_number in range(options.rounds):
            # Whoever is first in one round is last in the next.
            for contender in field_of if round_number % 2 == 0 else reversed(field_of):
                turn(contender, values[: max(100, int(options.rows * contender.part))])
        missed = show(field_of, options)
    return 1 if missed and options.asserts else 0


def show(field_of: list[Contender], options: argparse.Namespace) -> int:
    def per_row(contender: Contender, way: str) -> float:
        return statistics.median(contender.seconds[way]) / contender.rows

    names = ["cryptography", "asherah", "tink", "pymongocrypt", "ironcore-alloy", "aws-encryption-sdk", "pyarrow"]
    print(f"load average {os.getloadavg()[0]:.1f}; Python {sys.version.split()[0]}; {', '.join(f'{name} {version(name)}' for name in names)}")
    print(f"{options.rounds} rounds; CPU time per value, scaled from the values that each had in a round\n")
    print("| | values | seal, ns | open, ns | times slower than a column to seal (goal) | to open |")
    print("|---|---|---|---|---|---|")
    column, missed = field_of[0], 0
    for contender in field_of:
        seal, opened = per_row(contender, "seal"), per_row(contender, "open")
        ratio, back = seal / per_row(column, "seal"), opened / per_row(column, "open")
        goal = "" if contender.goal is None else f" ({contender.goal:g}{'' if ratio >= contender.goal else ', missed'})"
        missed += contender.goal is not None and ratio < contender.goal
        print(f"| {contender.name} | {contender.rows:,} | {seal * 1e9:,.0f} | {opened * 1e9:,.0f} | {ratio:,.1f}{goal} | {back:,.1f} |")
    return missed


if __name__ == "__main__":
    sys.exit(main())
