"""Objects of the program as key services."""

from typing import Protocol

from ._native import error_kinds

_RETRYABLE = {kind: retryable for kind, _, retryable, class_name in error_kinds() if class_name == "KmsError"}


class Kek(Protocol):
    """A key-encryption key that the program reaches itself; `Keyring.open` and `init` take such objects as `host_keks`.

    Both methods make one attempt, and are called from several threads at once. keyfold limits, paces and repeats attempts:
    one may take 3 seconds, and one operation 10, or the `deadline` of its section in the configuration. They raise `KmsFailure` to say what went wrong; any other exception counts
    as a refusal, of which only the class is shown.

    What is wrapped are keys. Python cannot erase `bytes`: copies of a key stay in memory until that is used for
    something else. An adapter in Rust or a service that keyfold knows leaves none.
    """

    def wrap(self, payload: bytes, context: dict[str, str], /) -> bytes | tuple[str, bytes]:
        """Encrypt `payload`, 64 bytes, bound to `context`; return at most 4,096 bytes, or the version of the key and these.

        `context` holds `kf:env`, `kf:key` and `kf:keyring`, which are no secrets and may be logged.
        """
        ...

    def unwrap(self, wrapped: bytes, context: dict[str, str], version: str, /) -> bytes:
        """Return what was wrapped. `version` is what `wrap` returned with it, or empty.

        Raises:
            KmsFailure: "InvalidCiphertext" where `wrapped` or `context` is not what it was.
        """
        ...


class KmsFailure(Exception):
    """What a `Kek` raises.

    `kind` is one of AccessDenied, KeyNotFound, KeyDisabled, Throttled, Unavailable, Timeout, TlsError, Credentials,
    ClockSkew, WrongKey, InvalidCiphertext, MalformedResponse and Rejected. AccessDenied, KeyNotFound and KeyDisabled may be a
    revocation: no other KEK is asked then. `retryable` says whether the attempt may be repeated.
    """

    kind: str
    retryable: bool

    def __init__(self, kind: str, *, retryable: bool | None = None) -> None:
        if kind not in _RETRYABLE:
            raise ValueError(f"a kind is one of {', '.join(_RETRYABLE)}")
        super().__init__(kind)
        self.kind = kind
        self.retryable = _RETRYABLE[kind] if retryable is None else retryable
