"""What opens values of other libraries. Each calls the library that has sealed them; no cipher is written here."""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, Protocol

from .._errors import DecryptionFailed, FormatError, NoMatchingKey, invalid


class Reader(Protocol):
    """What opens the values of another library. Any object with this method is one."""

    def open(self, sealed: bytes | str, aad: Any, /) -> bytes:
        """Return the plaintext of `sealed`. `aad` is what the caller has for this value, None if nothing.

        Raises:
            FormatError, NoMatchingKey, DecryptionFailed: this value does not open. Others may.
            Anything else ends the import, such as a key service that does not answer.
        """


def associated_data(aad: Any) -> bytes:
    """Return text in UTF-8, bytes as they are, and for None no bytes: what most programs give as associated data."""
    if aad is None:
        return b""
    if isinstance(aad, str):
        return aad.encode()
    if isinstance(aad, bytes | bytearray | memoryview):
        return bytes(aad)
    # A number has several spellings, and the wrong one would look like tampering.
    raise invalid(f"associated data is text or bytes, not {type(aad).__name__}: give the reader a function that makes bytes of it")


class AesGcm:
    """Values that a program has sealed with AES-GCM itself. Needs `cryptography`.

    `key` has 16, 24 or 32 bytes. Where values begin with the version of their key, it is a mapping from these bytes to keys, none of
    which begins with another: `{b"\\x01": old, b"\\x02": new}`. `layout` is the order of the parts of a value, and `separator` what is
    between them where each is written by itself, as in `"iv:tag:text"` in hexadecimal. `encoding` is that of the whole, or of each part.
    Text is `base64` with or without `=` at its end. `aad` makes the associated data of what the caller has for each value.
    """

    def __init__(
        self,
        key: bytes | Mapping[bytes, bytes],
        *,
        layout: Sequence[Literal["nonce", "ciphertext", "tag"]] = ("nonce", "ciphertext", "tag"),
        nonce_len: int = 12,
        tag_len: int = 16,
        encoding: Literal["bytes", "base64", "base64url", "hex"] = "bytes",
        separator: str | None = None,
        aad: Callable[[Any], bytes] = associated_data,
    ) -> None:
        """Raises:
        ImportError: `cryptography` is not installed.
        InvalidInput: a key has another length, or a layout lacks a part, or one version begins with another.
        """
        self._exceptions = _library("cryptography.exceptions", "aes-gcm")
        self._ciphers = _library("cryptography.hazmat.primitives.ciphers", "aes-gcm")
        keys = dict(key) if isinstance(key, Mapping) else {b"": key}
        if any(len(each) not in (16, 24, 32) for each in keys.values()):
            raise invalid("a key of AES has 16, 24 or 32 bytes")
        if any(a != b and b.startswith(a) for a in keys for b in keys):
            raise invalid("one version of a key begins with another one")
        if sorted(layout) != ["ciphertext", "nonce", "tag"]:
            raise invalid("a layout has nonce, ciphertext and tag, each once")
        if not (8 <= nonce_len <= 128 and 4 <= tag_len <= 16):
            raise invalid("a nonce has 8 to 128 bytes, and a tag 4 to 16")
        if separator is not None and (not separator or encoding == "bytes" or b"" not in keys):
            raise invalid("a separator stands between parts of text, which have no version of the key before them")
        self._layout: tuple[str, ...] = tuple(layout)
        self._keys, self._separator, self._encoding, self._aad = keys, separator, encoding, aad
        self._len: dict[str, int] = {"nonce": nonce_len, "tag": tag_len}

    def open(self, sealed: bytes | str, aad: Any, /) -> bytes:
        """Return the plaintext; see `Reader.open`."""
        key, parts = self._split(sealed)
        if any(len(parts[name]) != length for name, length in self._len.items()):
            raise _malformed("nonce or tag has another length")
        modes = self._ciphers.modes
        mode = modes.GCM(parts["nonce"], parts["tag"], min_tag_length=self._len["tag"])
        decryptor = self._ciphers.Cipher(self._ciphers.algorithms.AES(key), mode).decryptor()
        decryptor.authenticate_additional_data(self._aad(aad))
        try:
            return bytes(decryptor.update(parts["ciphertext"]) + decryptor.finalize())
        except self._exceptions.InvalidTag:
            raise _failed() from None

    def _split(self, sealed: bytes | str) -> tuple[bytes, dict[str, bytes]]:
        if self._separator is not None:
            pieces = _text(sealed).split(self._separator)
            if len(pieces) != 3:
                raise _malformed("not three parts with a separator between them")
            decoded = [_decoded(piece, self._encoding) for piece in pieces]
            return self._keys[b""], dict(zip(self._layout, decoded, strict=True))
        whole = _decoded(sealed, self._encoding)
        version = next((version for version in self._keys if whole.startswith(version)), None)
        if version is None:
            raise NoMatchingKey("the value begins with no version of a key that was given", 300, "NoMatchingKey")
        rest = whole[len(version) :]
        parts: dict[str, bytes] = {}
        if len(rest) < sum(self._len.values()):
            raise _malformed("shorter than nonce and tag")
        left = {**self._len, "ciphertext": len(rest) - sum(self._len.values())}
        for name in self._layout:
            parts[name], rest = rest[: left[name]], rest[left[name] :]
        return self._keys[version], parts


class Fernet:
    """Tokens of Fernet. Needs `cryptography`.

    `key` is a key in its text form, or a list of them, as of `MultiFernet`, which Fernet itself tries one after another. When a token was
    made is not checked and not kept. Fernet has no associated data: a token does not say to which row it belongs.
    """

    def __init__(self, key: bytes | str | Sequence[bytes | str]) -> None:
        """Raises:
        ImportError: `cryptography` is not installed.
        InvalidInput: a key is none of Fernet.
        """
        self._fernet = _library("cryptography.fernet", "fernet")
        keys = [key] if isinstance(key, bytes | str) else key
        try:
            self._multi = self._fernet.MultiFernet([self._fernet.Fernet(each) for each in keys])
        except ValueError:
            raise invalid("a key of Fernet is 32 bytes in URL-safe base64, and there is at least one") from None

    def open(self, sealed: bytes | str, aad: Any, /) -> bytes:
        """Return the plaintext; see `Reader.open`."""
        if aad is not None:
            raise invalid("Fernet has no associated data")
        try:
            return bytes(self._multi.decrypt(_text(sealed)))
        except self._fernet.InvalidToken:
            raise _failed() from None


class Tink:
    """Ciphertexts of Tink's `Aead` or `DeterministicAead`. Needs `tink`.

    `primitive` is one of these, also a `KmsEnvelopeAead`, or a `KeysetHandle` with keys of an `Aead`. `encoding` and `aad` are as in
    `AesGcm`.
    """

    def __init__(
        self,
        primitive: Any,
        *,
        encoding: Literal["bytes", "base64", "base64url", "hex"] = "bytes",
        aad: Callable[[Any], bytes] = associated_data,
    ) -> None:
        """Raises:
        ImportError: `tink` is not installed.
        """
        self._error = _library("tink", "tink").TinkError
        aead, daead = _library("tink.aead", "tink"), _library("tink.daead", "tink")
        if not isinstance(primitive, aead.Aead | daead.DeterministicAead):
            aead.register()
            primitive = primitive.primitive(aead.Aead)
        self._encoding, self._aad = encoding, aad
        self._open = primitive.decrypt if isinstance(primitive, aead.Aead) else primitive.decrypt_deterministically

    def open(self, sealed: bytes | str, aad: Any, /) -> bytes:
        """Return the plaintext; see `Reader.open`. A key service that fails raises what Tink does."""
        encoded, associated = _decoded(sealed, self._encoding), self._aad(aad)
        try:
            return bytes(self._open(encoded, associated))
        except self._error as error:
            if _is_of_service(error):
                raise
            raise _failed() from None


class AwsEncryptionSdk:
    """Messages of the AWS Encryption SDK. Needs `aws-encryption-sdk[MPL]`, version 4 or later.

    `keyring` is one of the material providers library, or with `client` whatever that takes. `context` makes the pairs that the
    encryption context of a message must have, of what the caller has for each value: a mapping as it is, and none for None. `client`
    is the `EncryptionSDKClient`, for a commitment policy other than the strictest.
    """

    def __init__(
        self,
        keyring: Any,
        *,
        encoding: Literal["bytes", "base64", "base64url", "hex"] = "bytes",
        context: Callable[[Any], Mapping[str, str]] = lambda pairs: pairs or {},
        client: Any = None,
    ) -> None:
        """Raises:
        ImportError: `aws-encryption-sdk` is not installed.
        """
        sdk = _library("aws_encryption_sdk", "aws-encryption-sdk")
        crypto = _library("cryptography.exceptions", "aws-encryption-sdk")
        errors = _library("aws_encryption_sdk.exceptions", "aws-encryption-sdk")
        self._errors = (errors.AWSEncryptionSDKClientError, crypto.InvalidSignature, crypto.InvalidTag)
        self._client = client or sdk.EncryptionSDKClient()
        self._keyring, self._encoding, self._context = keyring, encoding, context

    def open(self, sealed: bytes | str, aad: Any, /) -> bytes:
        """Return the plaintext; see `Reader.open`. A key service that fails raises what the SDK does."""
        message, wanted = _decoded(sealed, self._encoding), dict(self._context(aad))
        try:
            # It compares these pairs, and lets others be.
            plaintext, _ = self._client.decrypt(source=message, keyring=self._keyring, encryption_context=wanted)
        except self._errors as error:
            if _is_of_service(error):
                raise
            raise _failed() from None
        return bytes(plaintext)


def _library(module: str, extra: str) -> Any:
    """Return the module `module`, of what is installed with `keyfold[EXTRA]`."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise ImportError(f"this needs the package {package}: pip install 'keyfold[{extra}]'", name=error.name) from error


def _malformed(why: str) -> FormatError:
    return FormatError(f"not a value of this layout: {why}", 200, "Malformed")


def _failed() -> DecryptionFailed:
    return DecryptionFailed("the value does not open with this key and associated data", 301, "DecryptionFailed")


def _text(sealed: bytes | str) -> str:
    try:
        return sealed.encode("ascii").decode() if isinstance(sealed, str) else bytes(sealed).decode("ascii")
    except UnicodeError:
        raise _malformed("not text") from None


def _decoded(sealed: bytes | str, encoding: str) -> bytes:
    if encoding == "bytes":
        if isinstance(sealed, str):
            raise _malformed("text, and no encoding was given")
        return bytes(sealed)
    if encoding not in ("base64", "base64url", "hex"):
        raise invalid("an encoding is bytes, base64, base64url or hex")
    text = _text(sealed)
    try:
        if encoding == "hex":
            return binascii.unhexlify(text)
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        return base64.b64decode(padded, altchars=b"-_" if encoding == "base64url" else None, validate=True)
    except ValueError:
        raise _malformed(f"not {encoding}") from None


# What AWS KMS says of one ciphertext, as against of the caller, the key or itself.
_OF_THE_VALUE = {"InvalidCiphertextException", "IncorrectKeyException"}


def _is_of_service(error: BaseException) -> bool:
    """Whether a key service that was asked has failed, or refused whatever is asked: the next value would fare alike."""
    for each in _led_to(error):
        module = type(each).__module__
        if module.startswith("botocore"):
            response = getattr(each, "response", None)
            if response is None or response.get("Error", {}).get("Code") not in _OF_THE_VALUE:
                return True
        elif type(each).__name__ == "ComAmazonawsKms":
            # The SDK keeps but the text of what boto3 raised, and an invalid ciphertext has none.
            if (text := str(getattr(each, "message", ""))) and not any(code in text for code in _OF_THE_VALUE):
                return True
        elif module.startswith(("google.api_core", "google.auth", "requests", "hvac")) or isinstance(each, OSError):
            return True
    return False


def _led_to(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, what it was raised from, and what it carries in its arguments or in a list."""
    seen: set[int] = set()
    found: list[Any] = [error]
    while found:
        each = found.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        found += [each.__cause__, each.__context__, *each.args, *(getattr(each, "list", None) or [])]
