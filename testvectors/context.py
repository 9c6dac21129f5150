"""Contexts and names as documents, streams, indexes and formats have them: docs/FORMAT.md §4.3. Not for production."""
import struct, unicodedata
from decoder import check

def field_name(name):  # with its kind and length
    check(1 <= len(name.encode()) <= 255 and all(unicodedata.category(c) != "Cc" for c in name), "Configuration")
    return bytes([1, len(name.encode())]) + name.encode()

def check_context(context, required=()):  # what the caller states
    keys = [key for key, _ in context]
    check(all(key and not key.startswith("kf:") for key in keys) and len(set(keys)) == len(keys), "InvalidInput")
    check(len(keys) <= 32, "LimitExceeded")
    check(set(required) <= set(keys), "PolicyRefused")

def encoded_context(context, row=None, row_bound=False):
    check((row is not None) == row_bound and row != "", "InvalidInput")
    row = [] if row is None else [("kf:row", row)]
    pairs = sorted((key.encode(), bytes.fromhex(value)) for key, value in [*context, *row])
    encoded = bytes([len(pairs)]) + b"".join(struct.pack(">H", len(part)) + part for pair in pairs for part in pair)
    check(len(encoded) <= 4096, "LimitExceeded")
    return encoded
