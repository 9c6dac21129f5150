"""How a keyring is opened, without the keyring: what may be sent to other processes."""

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path

from ._kms import Kek
from ._native import Keyring


class Config:
    """What a keyring is opened with: files, and key records if need be. Immutable, holds no secret, and can be pickled, compared and
    hashed."""

    __slots__ = ("_path", "_policies", "_records")

    def __init__(self, path: str | PathLike[str], policies: Iterable[str | PathLike[str]] = ()) -> None:
        """Name the files; none is read. Relative paths are of the present working directory, and stay so elsewhere."""
        if isinstance(policies, str | bytes | PathLike):
            raise TypeError("policies is a list of paths, not one path: [path]")
        self._path = Path(path).absolute()
        self._policies = tuple(Path(policy).absolute() for policy in policies)
        self._records: bytes | None = None

    def with_records(self, records: bytes | None) -> "Config":
        """Return this configuration with `records`, of `Keyring.records`, in the place of the store.

        For machines that have the files, and reach the key service, and not the store. Keys that are made later are unknown there.
        """
        config = Config(self._path, self._policies)
        config._records = records
        return config

    @property
    def path(self) -> Path:
        """The configuration file."""
        return self._path

    @property
    def policies(self) -> tuple[Path, ...]:
        """The files whose fields are added."""
        return self._policies

    def open(
        self,
        *,
        recovery: str | None = None,
        passphrase: Callable[[str], str] | None = None,
        host_keks: Mapping[str, Kek] | None = None,
    ) -> Keyring:
        """Open the keyring: see `Keyring.open`."""
        return Keyring.open(
            self._path,
            policies=self._policies,
            recovery=recovery,
            passphrase=passphrase,
            host_keks=host_keks,
            records=self._records,
        )

    def _key(self) -> tuple[Path, tuple[Path, ...], bytes | None]:
        return self._path, self._policies, self._records

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[Callable[..., "Config"], tuple[Path, tuple[Path, ...], bytes | None]]:
        return _unpickle, self._key()

    def __repr__(self) -> str:
        records = "" if self._records is None else f".with_records({len(self._records)} bytes)"
        return f"Config({str(self._path)!r}, {[str(policy) for policy in self._policies]!r}){records}"


def _unpickle(path: Path, policies: tuple[Path, ...], records: bytes | None) -> Config:
    return Config(path, policies).with_records(records)
