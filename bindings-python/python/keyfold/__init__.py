"""Envelope encryption of fields: patient identifiers, results and telemetry under keys that a key service guards.

    import keyfold

    with keyfold.Keyring.open("keyfold.toml", policies=["policy.toml"]) as ring:
        ssn = ring.field("patient.ssn")
        sealed = ssn.encrypt("999-81-5679", row="p-17")
        assert ssn.decrypt(sealed, row="p-17") == "999-81-5679"

Open one keyring per process, make the fields once, and share them: all of them are safe to use from several threads,
and go on working in a child after a fork.
"""

from ._config import Config
from ._errors import (
    ConfigurationError,
    DecryptionFailed,
    FormatError,
    InvalidInput,
    KeyfoldError,
    KeyRefused,
    KmsError,
    NoMatchingKey,
    PolicyRefused,
    StoreError,
)
from ._fields import use
from ._kms import Kek, KmsFailure
from ._native import (
    ArrowArray,
    ArrowStream,
    AuditReport,
    Census,
    Documents,
    Field,
    FipsService,
    FipsStatus,
    FormatPreserver,
    Index,
    Inspection,
    KeyInfo,
    Keyring,
    __version__,
    census,
    fips_status,
    from_text,
    init,
    inspect,
    to_text,
    verify_audit,
)
from ._streams import StreamReader, StreamWriter
from ._types import Opened, Value

__all__ = [
    "ArrowArray",
    "ArrowStream",
    "AuditReport",
    "Census",
    "Config",
    "ConfigurationError",
    "DecryptionFailed",
    "Documents",
    "Field",
    "FipsService",
    "FipsStatus",
    "FormatError",
    "FormatPreserver",
    "Index",
    "Inspection",
    "InvalidInput",
    "Kek",
    "KeyInfo",
    "KeyRefused",
    "KeyfoldError",
    "Keyring",
    "KmsError",
    "KmsFailure",
    "NoMatchingKey",
    "Opened",
    "PolicyRefused",
    "StoreError",
    "StreamReader",
    "StreamWriter",
    "Value",
    "__version__",
    "census",
    "fips_status",
    "from_text",
    "init",
    "inspect",
    "to_text",
    "use",
    "verify_audit",
]
