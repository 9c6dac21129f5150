"""Values that another library has sealed, read with its own code and sealed by keyfold: `import keyfold.migrate`.

    from keyfold.migrate import Fernet, TableImport, import_column

    ssn = ring.field("patient.ssn")
    sealed = import_column(frame["ssn"], Fernet(key), ssn, rows=frame["patient_id"])

    job = TableImport(connection, "patients", key="id", source="ssn", target="ssn_sealed", reader=Fernet(key), field=ssn)
    job.run()
    assert job.verify().complete

Readers are `AesGcm` for what a program has sealed with AES-GCM itself, `Fernet`, `Tink`, `AwsEncryptionSdk`, and any object that has
their method `open`. Each asks the library that sealed: install it, as `keyfold[fernet]` for example. Plaintext is in the memory of this
process alone, and Python does not erase it.

Nothing is guessed: a value is never tried as one of keyfold, or under one key after another, to find out what it is. Which values are
imported is known by the column that they are in.
"""

from ._columns import import_column, text
from ._readers import AesGcm, AwsEncryptionSdk, Fernet, Reader, Tink
from ._tables import RowError, TableImport, TableReport

__all__ = [
    "AesGcm",
    "AwsEncryptionSdk",
    "Fernet",
    "Reader",
    "RowError",
    "TableImport",
    "TableReport",
    "Tink",
    "import_column",
    "text",
]
