"""How a keyring is opened, without the keyring: what may be sent to other processes."""

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path

from ._kms import Kek
from ._native import Keyring


class Config:
    """The files that a keyring is opened with. Immutable, holds no secret, and can be pickled, compared and hashed."""

    __slots__ = ("_path", "_policies")

    def __init__(self, path: str | PathLike[str], policies: Iterable[str | PathLike[str]] = ()) -> None:
        """Name the files; none is read. Relative paths are of the present working directory, and stay so elsewhere."""
        self._path = Path(path).absolute()
        self._policies = tuple(Path(policy).absolute() for policy in policies)

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
        keks: Mapping[str, Kek] | None = None,
    ) -> Keyring:
        """Open the keyring: see `Keyring.open`."""
        return Keyring.open(self._path, policies=self._policies, recovery=recovery, passphrase=passphrase, keks=keks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and (self._path, self._policies) == (other._path, other._policies)

    def __hash__(self) -> int:
        return hash((self._path, self._policies))

    def __reduce__(self) -> tuple[type["Config"], tuple[Path, tuple[Path, ...]]]:
        return Config, (self._path, self._policies)

    def __repr__(self) -> str:
        return f"Config({str(self._path)!r}, {[str(policy) for policy in self._policies]!r})"
