"""The exceptions, by who has to act."""


class KeyfoldError(Exception):
    """What every function of keyfold raises, but for `TypeError` where an argument has the wrong type.

    The text is safe to log: it names limits, rows, fields and keys, never a value, a key byte or a context value. It may
    change; `code` and `kind` do not. Raised itself, and by no subclass, for `RandomnessUnavailable`, `DeadlineExceeded`,
    `Closed` (the keyring has been closed) and `Internal` (a bug in keyfold).
    """

    code: int
    """The permanent number of the kind of error, the same as in Rust and C."""
    kind: str
    """The permanent name of the kind of error, such as "Throttled"."""
    retryable: bool
    """Whether the same call may succeed later without anybody changing anything."""
    row: int | None
    """Which value of a batch it is about, counted from 0; None outside of batches."""

    def __init__(
        self, message: str, code: int = 900, kind: str = "Internal", retryable: bool = False, row: int | None = None
    ) -> None:
        super().__init__(message, code, kind, retryable, row)
        self.code = code
        self.kind = kind
        self.retryable = retryable
        self.row = row

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidInput(KeyfoldError, ValueError):
    """An argument breaks a rule or exceeds a limit: `InvalidInput`, `LimitExceeded`."""


class PolicyRefused(KeyfoldError):
    """The policy does not allow it; no key was touched."""


class ConfigurationError(KeyfoldError):
    """The configuration or a policy file is wrong; the text names file, line and key."""


class FormatError(KeyfoldError):
    """Not a sealed value: `Malformed`; or one that this version cannot open: `Unsupported`."""


class NoMatchingKey(KeyfoldError):
    """No key of the keyring has that key ID, or there is no such scope."""


class DecryptionFailed(KeyfoldError):
    """Value, row, context, field or key is not the one it was encrypted with; which one is not told.

    Treat it as tampering: do not repeat the call.
    """


class KeyRefused(KeyfoldError):
    """There is a key, and it may not be used for this: `WrongScope`, `KeyState`, `RecordRejected`."""


class StoreError(KeyfoldError):
    """The key store or a file failed: `Store`, `Io`, `Conflict`."""


class KmsError(KeyfoldError):
    """The key service refused or did not answer; `kind` says which, such as `AccessDenied` or `Unavailable`."""


def invalid(message: str) -> InvalidInput:
    """What is wrong with an argument by a rule that only a layer in Python has."""
    return InvalidInput(message, 100, "InvalidInput")
