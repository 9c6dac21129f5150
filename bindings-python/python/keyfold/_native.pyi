from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BufferedReader
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NoReturn, Self, TypeVar, final, overload

from ._config import Config
from ._errors import KeyfoldError
from ._kms import Kek
from ._streams import StreamWriter
from ._types import ArrowColumn, ArrowRows, Opened, Sealed, Token, Value

__all__ = [
    "ArrowArray",
    "ArrowStream",
    "AuditReport",
    "Census",
    "Documents",
    "Field",
    "FipsService",
    "FipsStatus",
    "FormatPreserver",
    "Index",
    "Inspection",
    "KeyInfo",
    "Keyring",
    "_OpeningStream",
    "_SealingStream",
    "__version__",
    "_begin_call",
    "_begin_child",
    "_begin_end",
    "_begin_fork",
    "_end_fork",
    "_read_policy",
    "_row_bindings",
    "census",
    "error_kinds",
    "fips_status",
    "from_text",
    "init",
    "inspect",
    "to_text",
    "verify_audit",
]

_Text = TypeVar("_Text", bound=str | bytes)

__version__: str

@final
class _SealingStream:
    def header(self) -> bytes:
        """The first 83 bytes of the stream."""
    def update(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return the chunks that `data` completes."""
    def finish(self) -> bytes:
        """Return the last chunk. After an error about keys it may be called again."""

@final
class _OpeningStream:
    def open_chunk(self, number: int, chunk: bytes) -> bytearray:
        """Return the plaintext of the chunk `number`."""
    def check(self) -> None:
        """Raise what opening a chunk would raise of the key and the keyring."""
    def is_compromised(self) -> bool:
        """Return whether the key is compromised, as it was when it was last confirmed."""

@final
class Keyring:
    """An open set of keys. Make one per process and share it between threads. After `os.fork`, and what
    uses it, a child goes on with it and with its fields; a fork that another language makes leaves it without its key store.

    Cannot be pickled or copied: send its `config` to other machines. As a context manager it is closed at the end. Every call
    that may ask a key service or the store lets go of the GIL, and Ctrl-C ends the wait.
    """

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        /,
        *,
        policies: Sequence[str | PathLike[str]] = (),
        recovery: str | None = None,
        passphrase: Callable[[str], str] | None = None,
        host_keks: Mapping[str, Kek] | None = None,
        records: bytes | None = None,
    ) -> Self:
        """Open the keyring of the configuration file `path`, with the fields of the files `policies` added.

        Asks no key service yet, but the audit KEK where there is an `[audit]` section. `recovery`, the reason for it, turns
        recovery mode on. `passphrase` is called with the alias of a KEK whose passphrase is needed. `host_keks` are objects that
        reach KEKs, by the NAME that the configuration gives as `uri = "host:NAME"`. `records`, of `Keyring.records`, take the place of
        the store: keys are read from them, and none is made or changed.

        Raises:
            ConfigurationError: a file is wrong; the text names file, line and key.
            FormatError, KeyRefused: `records` are damaged, or of another keyring.
            StoreError: a file cannot be read, or the store cannot be opened.
            KmsError: no KEK for roots can be reached; see `.retryable`.
            InvalidInput: `recovery` is no reason: one line of 1 to 512 bytes.
        """

    @property
    def config(self) -> Config:
        """The files that the keyring was opened with, to open it elsewhere."""

    def field(
        self, name: str, /, *, scope: str | None = None, context: Mapping[str, str | bytes] | None = None
    ) -> Field:
        """Return the field `name` of the policy, bound to the keys of `scope` and to `context`.

        Asks nobody: the keys are fetched when the field is first used. `context` is authenticated and stored nowhere: whoever
        decrypts gives an equal one. A deterministic field has a partition in the place of a scope: `partition` in its policy.

        Raises:
            PolicyRefused: the policy has no such field, or gives it a partition, and there is a scope.
            ConfigurationError: the configuration does not have the field's partition.
            InvalidInput: a context key is empty or begins with `kf:`, or there are more than 32 pairs or 4,096 bytes.
            KeyfoldError: kind `Closed`, after `close`.
        """

    def documents(
        self,
        *,
        scope: str | None = None,
        context: Mapping[str, str | bytes] | None = None,
        pass_unmatched: bool = False,
        seal_sealed: bool = False,
    ) -> Documents:
        """Return what protects and reveals JSON documents by the policy's paths, bound to the keys of `scope` and to `context`.

        Asks nobody: keys are fetched when it is first used. `pass_unmatched=True` passes documents that no field applies to as they are,
        instead of refusing them; `seal_sealed=True` protects values that look sealed already once more.

        Raises:
            InvalidInput: as `field`.
        """

    def fields(self) -> list[str]:
        """Return the names of the policy's fields."""

    def keys(self) -> list[KeyInfo]:
        """Return every key record, in the order of key IDs. Reads the whole store.

        Raises:
            StoreError: the store failed.
            KeyfoldError: kind `Closed`, after `close`.
        """

    def records(self) -> bytes:
        """Return a copy of all key records, for machines that do not reach the store: see `Config.with_records`.

        Holds no key in clear, and is believed nowhere without a root that a KEK opens: it may be sent in the open. Whoever has the
        KEK as well has every key. The format is that of `keyfold keys backup`.

        Raises:
            StoreError: the store failed.
        """

    def new_partition(self, name: str, /) -> str:
        """Make the keys of a partition for deterministic fields, and return the section `[lookup.NAME]` to add to the configuration.

        Equal values in fields of different partitions cannot be told to be equal: one partition per study keeps studies apart.
        Keyrings that are opened after the section is there know the partition.

        Raises:
            InvalidInput: `name` is empty or too long, or the configuration has it.
            StoreError, KmsError, KeyRefused: repeating the call is safe.
        """

    def rotate(self, scope: str | None = None, /) -> KeyInfo:
        """Make the next key of `scope`, or of the keyring itself, and return it.

        It seals at once; where the configuration has a lead, it is `pre-active` until that has passed. Values under older keys
        still open: `Field.is_current` and `census` find them. However many processes rotate at once, one new key results.

        Raises:
            NoMatchingKey: there is no such scope.
            StoreError, KmsError, KeyRefused: repeating the call is safe.
        """

    def repair(self) -> int:
        """Make the wraps that are missing, by KEKs that were away or were configured later, and return how many were made.

        One request to unwrap each root and isolated key that lacks some, and two to each KEK that wraps it.

        Raises:
            KmsError: a KEK did not wrap; what the others wrapped stays.
            KeyRefused: no trusted root vouches for a record.
            StoreError: the store failed.
        """

    def refresh(self) -> None:
        """Renew the keys that are in use and due, forget what has idled, and record what was counted for the audit trail if its interval is over.

        Call it every few seconds, from a thread or a task of its own, and no call waits for a renewal. Without it counts are recorded
        with the next event of another kind, before a fork, and when the keyring is closed or nobody has it any more.

        Raises:
            KmsError, StoreError, KeyRefused: the last error of a renewal, or of recording; the others were tried all the same.
            KeyfoldError: kind `Closed`, after `close`.
        """

    def _before_fork(self) -> None: ...
    def close(self) -> None:
        """End the keyring: it and its fields raise `KeyfoldError` of kind `Closed` from now on.

        KEKs are dropped, and keys erased but for those that a `Field`, `Documents` or stream has used: they stay in memory, with those of
        the root above them, until nobody has that object any more. The audit KEK stays until the keyring and all of them are gone.
        """

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...

@final
class Field:
    """A field of the policy, bound to scope and context. Make it once and share it between threads.

    Its methods ask the store and the key service when keys are first needed or due to be renewed; the GIL is let go of for
    that, and for values of more than 16 KiB. Between, a call asks nobody.

    A value is a `str`, `bytes`, `bytearray`, `memoryview`, `int` of up to 128 bits, `float`, `bool`, `date`, `datetime` with a
    time zone, or `Decimal`, as the policy says; each opens as it was, buffers as `bytes` and datetimes in UTC. None is no
    value. A buffer is copied before it is sealed.
    """

    @property
    def binds_row(self) -> bool:
        """Whether the policy binds values to their row, so that each needs one."""

    @property
    def mode(self) -> Literal["randomized", "deterministic", "format-preserving", "token", "document", "stream"]:
        """How values are protected: of "randomized" equal values look different, of "deterministic", "format-preserving" and "token" equal.

        Values of "format-preserving" are replaced by `format_preserver`, those of "document" as parts of documents, by
        `Keyring.documents`; those of "stream" by `open_stream`; those of "token" by the command `keyfold`, with its table.
        """

    def encrypt(self, value: Value, /, *, row: Value | None = None, seal_sealed: bool = False) -> bytes:
        """Return `value` sealed, bound to `row` where the policy binds rows.

        Makes the scope if the keyring has none of that name.

        Raises:
            TypeError: `value` or `row` has a type that is not listed above.
            InvalidInput: another type than the policy says, no Unicode (a lone surrogate), a datetime without a time zone, a value
                of more than 1 MiB, `row` missing, or given where the policy does not bind rows.
            PolicyRefused: a context key is missing that the policy requires.
            KeyRefused: no key of the scope seals.
            KmsError, StoreError: no key could be had; nothing was sealed.
        """

    def decrypt(self, sealed: Sealed, /, *, row: Value | None = None) -> Opened:
        """Return the value in `sealed`, in binary or text form, which must be bound to `row`.

        Raises:
            FormatError: not a sealed value, or one that this version, or Python's calendar, cannot hold.
            DecryptionFailed: value, row, context or field is not the right one; which one is not told.
            NoMatchingKey: the keyring has no such key, or no such scope.
            KeyRefused: the key belongs to another scope, or its state does not let it open.
            PolicyRefused: the policy does not accept values of this form.
            KmsError, StoreError: the key could not be had.
        """

    def encrypt_many(
        self, values: Iterable[Value | None], /, *, rows: Iterable[Value] | None = None, seal_sealed: bool = False
    ) -> list[bytes | None]:
        """Return `values` sealed, in their order, each bound to its row of `rows`. None stays None, and is not protected.

        Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.

        Raises:
            As `encrypt`, with the row in `.row`. InvalidInput as well where `rows` and `values` differ in number.
        """

    def decrypt_many(
        self,
        sealed: Iterable[Sealed | None],
        /,
        *,
        rows: Iterable[Value] | None = None,
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
    ) -> list[Opened]:
        """Return the values in `sealed`, in their order. None stays None.

        With `on_error="null"` a value that does not open becomes None, and its error, with the row in `.row`, is added to
        `errors`; it should be looked at, as it may be tampering. A key service or a store that fails raises all the same.

        Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.

        Raises:
            As `decrypt`, with the row in `.row`. InvalidInput as well where `rows` and `sealed` differ in number.
        """

    def encrypt_column(
        self,
        data: ArrowColumn,
        /,
        *,
        rows: ArrowRows | None = None,
        form: Literal["binary", "text"] = "binary",
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
        seal_sealed: bool = False,
    ) -> Any:
        """Return the column `data` sealed, each value bound to its row of `rows` where the policy binds rows. Nulls stay null.

        `data` is a column of pyarrow, Polars or pandas, and the result is one too, with the name and index of `data`; or any other
        object that has Arrow's C interfaces, a relation of DuckDB with one column say, and the result is an `ArrowArray` or
        `ArrowStream`. Values are text, bytes, booleans, dates, numbers (whole ones up to 2^63 - 1), decimals (with as many digits
        after the point as their type has) and timestamps with a time zone (whole microseconds). Rows are any of these: the bytes of
        bytes, otherwise of the value's one spelling as text (17, 2026-11-25, 2026-11-25T22:00:00Z), as in the command.

        Sealed values are Binary, or in text form Utf8; Large or View where `data` is. A column with a dictionary stays one in a
        deterministic field, and each of its values is sealed once; in other fields it is decoded.

        Of `data` no more than a batch is copied at a time, and sealed as it was read, but for decimals, of which a chunk is. Works
        without the GIL; Ctrl-C ends it within 50 ms, and nothing is returned. With `on_error="null"` a value that cannot be sealed
        becomes None, that is, is lost here, and its error, with the row in `.row`, is added to `errors`.

        Raises:
            TypeError: `data` or `rows` has none of Arrow's interfaces.
            InvalidInput: a type of Arrow that is not listed, or not the policy's; data that contradicts itself; with the row in
                `.row`, a value that is not as above, a null row, or (whatever `on_error` is) too long a value or row; rows
                missing, or not wanted, or not as many as values; more than 2 GiB sealed in one array that is not Large or View.
            PolicyRefused, KeyRefused, KmsError, StoreError: as `encrypt`.
        """

    def decrypt_column(
        self,
        data: ArrowColumn,
        /,
        *,
        rows: ArrowRows | None = None,
        type: object | None = None,
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
    ) -> Any:
        """Return the values in the column `data`, of bytes or of text in text form, each of its row of `rows`.

        The kinds of objects are those of `encrypt_column`. The values have the Arrow type `type`, an object with
        `__arrow_c_schema__` such as a `pyarrow.DataType`, or the name of a type of values as policies have it ("integer"); without
        it, that of the policy; without that, that of the first value, and text if there is none. Unless `type` says otherwise,
        whole numbers open as int64, others as float64, timestamps in microseconds of UTC, decimals and JSON as text; as a decimal
        type only what fits it. In pandas text opens as `str`.

        With `on_error="null"` a value that does not open, or whose row is null or too long, becomes null, and its error, with the row
        in `.row`, is added to `errors`; it should be looked at, as it may be tampering. A key service or a store that fails raises all
        the same.

        Works in batches without the GIL; Ctrl-C ends it within one, and nothing is returned. What is returned is the caller's,
        and is not erased.

        Raises:
            TypeError, InvalidInput: as `encrypt_column`.
            FormatError: not a sealed value, or one that the type cannot hold without loss; with the row in `.row`.
            DecryptionFailed, NoMatchingKey, KeyRefused, PolicyRefused, KmsError, StoreError: as `decrypt`.
        """

    def search(self, value: Value, /) -> list[bytes]:
        """Return what `value` looks like in a deterministic field: one ciphertext per live key, that of the present key first.

        A row whose column equals any of them has the value.

        Raises:
            PolicyRefused: the field is not deterministic.
            TypeError, InvalidInput, KmsError, StoreError: as `encrypt`.
        """

    @overload
    def open_stream(
        self, file: IO[bytes], mode: Literal["rb"] = "rb", /, *, row: Value | None = None
    ) -> BufferedReader: ...
    @overload
    def open_stream(self, file: IO[bytes], mode: Literal["wb"], /, *, row: Value | None = None) -> StreamWriter: ...
    @overload
    def open_stream(
        self, file: IO[bytes], mode: str, /, *, row: Value | None = None
    ) -> BufferedReader | StreamWriter:
        """Return a binary file object that seals what is written to it into `file` ("wb"), or reads plaintext from the stream in `file` ("rb"),
        which must be bound to `row`. For fields whose mode is "stream".

        `file` is any binary file object: an open file, a socket's, one of fsspec. It is not closed. "wb" is an `io.BufferedIOBase`: only
        closing it, or leaving its `with` block without an exception, makes the stream complete. "rb" is an `io.BufferedReader`, and seekable if
        `file` is: a byte elsewhere costs one chunk of 16 KiB. It tells an end only where the stream ends; a stream that was cut or never finished
        raises in its place. What was read before says nothing about what follows.

        Raises:
            FormatError: not a stream, or cut.
            DecryptionFailed: stream, row, context or field is not the right one; which one is not told. Also while reading.
            PolicyRefused: the field is none of streams.
            InvalidInput: `row` missing, or given where the policy does not bind rows; another mode than "rb" and "wb".
            TypeError: `file` is no binary file object.
            NoMatchingKey, KeyRefused, KmsError, StoreError: as `decrypt` and `encrypt`.
        """

    def _seal_stream(self, row: Value | None) -> _SealingStream: ...
    def _open_stream(self, header: bytes, row: Value | None) -> _OpeningStream: ...
    def index(self, name: str, /) -> Index:
        """Return the blind index `name` of the field: tokens to store beside its values, by which they are found. Asks nobody yet.

        Raises:
            PolicyRefused: the policy gives the field no such index.
        """

    def format_preserver(self) -> FormatPreserver:
        """Return what replaces values of a field whose mode is "format-preserving", which `encrypt` refuses. NOT AUTHENTICATED.

        Raises:
            PolicyRefused: the values of the field do not keep their format.
        """

    def reencrypt_column(self, sealed: ArrowColumn, /, *, rows: ArrowRows | None = None, force: bool = False) -> Any:
        """Return the column `sealed` with each value that is not under the key that seals now sealed again. All others stay byte for byte.

        `sealed` is a column of bytes or of text in text form, and the result is one of that kind; `rows` are those of the values, which
        stay bound to them. A value under a compromised key is sealed again too, and with `force` every value. Type and value stay as they
        are; nothing is opened for the caller. Write the result in the place of the old column: `rotate` makes the new key, this uses it.

        Works in batches without the GIL; Ctrl-C ends it within one, and nothing is returned.

        Raises:
            TypeError, InvalidInput: as `decrypt_column`.
            FormatError, DecryptionFailed, NoMatchingKey, KeyRefused: a value does not open, or is under a key of another scope or
                keyring; with the row in `.row`.
            PolicyRefused, KmsError, StoreError: as `encrypt` and `decrypt`.
        """

    @overload
    def is_current(self, sealed: Sealed, /) -> bool: ...
    @overload
    def is_current(self, sealed: ArrowColumn, /) -> Any:
        """Return whether `sealed` is under the key that seals now. If not, encrypt the value again when convenient.

        Of a column, whatever `decrypt_column` takes, a column of booleans of its kind is returned, and null stays null;
        `reencrypt_column` is how to seal it again. Reads headers alone, which are not authenticated.

        Raises:
            FormatError: not a sealed value; in a column with the row in `.row`.
            NoMatchingKey: there is no such scope.
        """

@final
class Index:
    """A blind index of a field: what is stored beside its values so that they are found without being opened.

    A token is an `int` of 0 to 2^63 - 1, or 32 `bytes` where the policy says `bits = 256`. Rows with equal tokens may have equal
    values, and whoever searches opens what he finds and compares. Tokens are bound to the field, the context and the partition, to no
    row and no scope. Make it once and share it between threads.
    """

    def tokens(self, value: Value, /) -> list[Token]:
        """Return what to store of `value`: one token; of prefixes one per length, sorted; none of what has nothing to find, an empty text say.

        Raises:
            TypeError: `value` has a type that `Field` does not list.
            InvalidInput: another type than the policy says, or the index has no normal form of it: no telephone number, no date.
            PolicyRefused: a context key is missing that the policy requires.
            KeyRefused, KmsError, StoreError: no key of the partition could be had.
        """

    def tokens_many(self, values: Iterable[Value | None], /) -> list[list[Token]]:
        """Return the tokens of each of `values`, in their order; none of None.

        Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.

        Raises:
            As `tokens`, with the row in `.row`.
        """

    def tokens_column(self, data: ArrowColumn, /) -> Any:
        """Return the column of the tokens of `data`, whatever `Field.encrypt_column` takes: int64, or binary for 256 bits.

        What has no token is null. Of an index of prefixes it is a column of lists of these, since a value has several.

        Works in batches without the GIL; Ctrl-C ends it within one, and nothing is returned.

        Raises:
            As `tokens`, with the row in `.row`; TypeError, InvalidInput: as `Field.encrypt_column`.
        """

    def search_tokens(self, value: Value, /) -> list[Token]:
        """Return what to look for to find `value`: one token per live key of the partition, that of the present key first.

        A row that has any of them may have the value, or start with it.

        Raises:
            As `tokens`. InvalidInput as well where there is nothing to find, or the prefix is shorter than the shortest of the index.
        """

@final
class FormatPreserver:
    """Replaces texts of a field by others of the same format, and back: for systems that take nothing else. NOT AUTHENTICATED.

    Every text of the format opens to some value: what was changed, moved to another row or sealed under another key is not noticed.
    Equal values are replaced by equal ones. Bound to the field, its context, the partition and the format, to no row and no scope.
    Make it once and share it between threads.
    """

    def encrypt(self, value: str, /) -> str:
        """Return the text that stands in the place of `value`: as long, with the same separators.

        Raises:
            InvalidInput: not of the format; or fewer than 1,000,000 texts are, or it has more than 256 characters that vary.
            PolicyRefused: the values of the field do not keep their format, or a context key is missing.
            ConfigurationError: the partition has more than one key, and a value does not say its own.
            KeyRefused, KmsError, StoreError: the key could not be had.
        """

    def decrypt(self, text: str, /) -> str:
        """Return the value that `text` stands for. Nothing shows whether `encrypt` has made it.

        Raises:
            As `encrypt`.
        """

    def encrypt_many(self, values: Iterable[str | None], /) -> list[str | None]:
        """Return what stands in the place of each of `values`, in their order. None stays None, and is not protected.

        Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.

        Raises:
            As `encrypt`, with the row in `.row`.
        """

    def decrypt_many(self, texts: Iterable[str | None], /) -> list[str | None]:
        """Return the value that each of `texts` stands for, in their order. None stays None.

        Raises:
            As `encrypt`, with the row in `.row`.
        """

    def encrypt_column(self, data: ArrowColumn, /) -> Any:
        """Return the column of text `data` with each value replaced, as the kind of object that `data` is. Nulls stay null.

        Works in batches without the GIL; Ctrl-C ends it within one, and nothing is returned.

        Raises:
            As `encrypt`, with the row in `.row`; TypeError: `data` has none of Arrow's interfaces; InvalidInput: it is not of text.
        """

    def decrypt_column(self, data: ArrowColumn, /) -> Any:
        """Return the column of text `data` with the value that each text stands for. Nulls stay null.

        Raises:
            As `encrypt_column`.
        """

@final
class Documents:
    """JSON documents whose values the paths of the policy select: replaced in place, every other byte as it is. Make it once and share it
    between threads.

    Fields may be of any mode but "token". Those of "document" are sealed together, under one header and, as the `[documents]` section
    says, a manifest that shows which protected values there are. What the command `keyfold` protects is revealed here, and the other way
    round.

    Its methods ask the store and the key service when keys are first needed or due to be renewed, and let go of the GIL.
    """

    def protect(self, document: _Text, /) -> _Text:
        """Return the JSON text `document`, `str` or `bytes`, with the values protected that the policy's paths select.

        Raises:
            TypeError: `document` is neither.
            InvalidInput: not one JSON document, two members of one name, more than 16 MiB; a value of another type than the policy says;
                the row binding is not there once.
            PolicyRefused: no field applies; a value looks sealed already; the policy does not say where a field is in JSON; a field has
                random tokens, which the command alone has a table of; a context key is missing.
            ConfigurationError: a path is not one of RFC 9535.
            KeyRefused, KmsError, StoreError: no key could be had; nothing was sealed.
        """

    def reveal(self, document: _Text, /) -> _Text:
        """Return the protected JSON text `document` as it was, byte for byte.

        Raises:
            TypeError, PolicyRefused, ConfigurationError: as `protect`. PolicyRefused as well where a manifest is missing that is required.
            InvalidInput, FormatError: a value is not sealed; plaintext is never passed through.
            DecryptionFailed: values were moved, copied, dropped or changed, or scope, context or row is not the right one.
            NoMatchingKey, KeyRefused, KmsError, StoreError: as `Field.decrypt`.
        """

    def protect_many(self, documents: Iterable[_Text], /) -> list[_Text]:
        """Return all `documents` protected, in their order.

        Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.

        Raises:
            As `protect`, with the number of the document, from 0, in `.row`.
        """

    def reveal_many(self, documents: Iterable[_Text], /) -> list[_Text]:
        """Return all `documents` revealed, in their order.

        Raises:
            As `reveal`, with the number of the document, from 0, in `.row`.
        """

    def refuse_unused(self) -> None:
        """Refuse fields that applied to documents and selected nothing in all that were protected so far: a path with a typo leaves values in
        clear. Call it after the last document, as the command does at the end of a file.

        Raises:
            PolicyRefused: a field selected nothing, and is not `optional` in the policy.
        """

@final
class KeyInfo:
    """A key, as its record says."""

    @property
    def key_id(self) -> str:
        """The key ID in hexadecimal."""

    @property
    def generation(self) -> int:
        """Its number among all keys of the keyring: a later key has a higher one."""

    @property
    def kind(self) -> str:
        """What it is for: "root", "data", "lookup" and others."""

    @property
    def state(self) -> str:
        """`pre-active`, `active`, `deactivated`, `compromised`, `destroy-pending` or `destroyed`."""

    @property
    def created_at(self) -> int:
        """When it was made, in seconds since 1970 by the store's clock."""

    @property
    def keks(self) -> list[str]:
        """The aliases of the KEKs that wrap it, if KEKs do."""

    @property
    def trusted(self) -> bool:
        """Whether a trusted root vouches for the record."""

@final
class ArrowArray:
    """A column of one piece, for whatever reads Arrow: `pyarrow.array(it)`."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...
    def __arrow_c_schema__(self) -> object: ...
    def __len__(self) -> int: ...

@final
class ArrowStream:
    """A column in chunks, for whatever reads Arrow: `pyarrow.chunked_array(it)`. May be read more than once."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...
    def __len__(self) -> int: ...

@final
class Inspection:
    """What a sealed value says of itself, none of it authenticated."""

    @property
    def mode(self) -> Literal["randomized", "deterministic"]:
        """Whether equal values look equal."""

    @property
    def key_id(self) -> str:
        """The ID of the key that it claims, in hexadecimal."""

    @property
    def generation(self) -> int:
        """The number of that key among all keys of the keyring."""

    @property
    def encoded_len(self) -> int:
        """Bytes of the value with its type and padding."""

    @property
    def framed(self) -> bool:
        """Whether it travels with its key records."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Census:
    """How many values are sealed under which key, by what they say of themselves."""

    @property
    def keys(self) -> dict[str, int]:
        """Values by key ID."""

    @property
    def nulls(self) -> int:
        """How many were None."""

    @property
    def not_sealed(self) -> int:
        """How many were no sealed values."""

@final
class FipsStatus:
    """What `fips_status` says."""

    @property
    def module(self) -> str | None:
        """The name of the FIPS 140 module; None: this build has none."""

    @property
    def version(self) -> str | None:
        """The version of the library that the module is a part of."""

    @property
    def in_fips_mode(self) -> bool:
        """Whether the module says that it is in FIPS mode."""

    @property
    def services(self) -> list[FipsService]:
        """Everything cryptographic that the library does, but for KEKs, which docs/FIPS.md speaks of."""

@final
class FipsService:
    """Something cryptographic that the library does."""

    @property
    def name(self) -> str:
        """What for."""

    @property
    def algorithm(self) -> str:
        """By which algorithms."""

    @property
    def computed_by(self) -> str:
        """What computes them."""

    @property
    def approved(self) -> bool:
        """Whether that is the module, in a way that its indicator counts as approved."""

@final
class AuditReport:
    """What `verify_audit` found."""

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong with what was checked."""

    @property
    def authenticated(self) -> bool:
        """Whether everything was checked under the audit KEK. If not, whoever edits the files can make them fit."""

    @property
    def events(self) -> int:
        """How many events were recorded."""

    @property
    def lost(self) -> int:
        """How many events could not be written at the time."""

    @property
    def findings(self) -> list[str]:
        """What is wrong, by file and line."""

    @property
    def notes(self) -> list[str]:
        """What is worth knowing and not wrong."""

def census(values: Iterable[Sealed | None] | ArrowColumn, /) -> Census:
    """Count `values`, sealed in binary or text form, by key. Needs no key and no keyring; holds the GIL.

    A column of pyarrow, Polars or pandas, or anything else with Arrow's C interfaces, will do as well. Nulls, NaN and NA count as null.

    Raises:
        TypeError: one is neither bytes nor str nor None.
        InvalidInput: a column of neither bytes nor text.
    """

def init(
    folder: str | PathLike[str],
    /,
    *,
    name: str = "keyring",
    environment: str = "development",
    store: str | None = None,
    keks: Mapping[str, str] | None = None,
    passphrase: Callable[[str], str] | None = None,
    host_keks: Mapping[str, Kek] | None = None,
) -> Path:
    """Make a keyring in `folder`, and return the path of its configuration.

    `keks` are the URIs of the KEKs that wrap its root, by alias, as in `[keks.ALIAS]` of the configuration; each is asked to wrap and
    to unwrap. Without any, a new file in `folder` is the KEK, for one machine and for tests: whoever has the folder has every key.
    `store` is the URI of a PostgreSQL store; without it the key records are a file in `folder`. Paths in URIs are relative to `folder`,
    and URIs are written into the configuration as they are, passwords too. `passphrase` and `host_keks` are those of `Keyring.open`.

    Raises:
        StoreError: the folder holds a keyring already, or cannot be written; or the store failed. What was there is untouched.
        ConfigurationError: a URI is not that of a store or KEK that this build knows, or names a KEK that `host_keks` lacks, or
            one of `host_keks` is named by no URI.
        KmsError: a KEK does not wrap or unwrap.
        InvalidInput: `environment` is no environment, or an alias no alias.
        Whatever is raised, nothing is left in `folder`.
    """

def _read_policy(
    path: str | PathLike[str], policies: Sequence[str | PathLike[str]], /
) -> dict[str, tuple[bool, str | None]]: ...
def inspect(sealed: Sealed, /) -> Inspection:
    """Return what a sealed value, in binary or text form, says of itself. Needs no key.

    Raises:
        FormatError: not a sealed value.
    """

def to_text(sealed: bytes, /) -> str:
    """Return the text form of a sealed value, `kf1.…`, for CSV, JSON and text columns.

    Raises:
        FormatError: not a sealed value, or a frame, which has no text form.
    """

def from_text(text: str, /) -> bytes:
    """Return the binary form of a sealed value in text form.

    Raises:
        FormatError: not the text form of a sealed value. Exactly one text of each value is accepted.
    """

def fips_status() -> FipsStatus:
    """Return which FIPS 140 module this build has, whether it is in FIPS mode, and what runs in it. Keyfold itself is not validated."""

def error_kinds() -> list[tuple[str, int, bool, str]]:
    """Return the name, number, `retryable` and class of every kind of error."""

def verify_audit(path: str | PathLike[str], /) -> AuditReport:
    """Verify the audit trail of the configuration file `path`: that every line is what was written, and none is missing.

    A trail is to be believed if the report is both `clean` and `authenticated`. Asks the audit KEK, which needs the right to
    decrypt; one that the program brings (`host:NAME`) cannot be asked here, and the trail is not authenticated then.

    Raises:
        ConfigurationError: there is no `[audit]` section.
        StoreError: a file cannot be read.
    """


def _row_bindings(rows: ArrowColumn) -> list[bytes]: ...
def _begin_fork(patience: float) -> bool: ...
def _end_fork() -> None: ...
def _begin_child(was_quiet: bool) -> None: ...
def _begin_end() -> None: ...
def _begin_call() -> None: ...
