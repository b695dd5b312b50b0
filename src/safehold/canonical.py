"""Canonical JSON (RFC 8785): the one byte form that is hashed and signed."""

import hashlib
import re
from typing import Any, TypeVar

import msgspec
import rfc8785

from safehold.errors import TrustError

T = TypeVar("T")

# RFC 8785 §3.2.2.3: a JSON number is an IEEE double, so larger integers have no exact form.
MAX_INTEGER = 2**53 - 1


# A fraction, an exponent, sixteen digits, a minus, a null (which a NaN becomes): not for the fast
# path. Each stands where a value of compact JSON can begin. A string that looks like one only makes
# the slow path run for nothing.
_NUMBERS = re.compile(rb"(?:^|[:,\[])(?:-|null|[0-9]+[.eE]|[0-9]{16})")


class CanonicalError(TrustError):
    """Correct the document: it is not canonical JSON of the expected shape."""


def canonical(value: object) -> bytes:
    """Return the RFC 8785 bytes of a JSON value or of a msgspec value.

    Raises:
        CanonicalError: the value has no exact JSON form (NaN, an integer beyond 2^53 - 1).
    """
    # A fast path for what nearly every document is: ASCII, and integers well inside a double. There
    # msgspec's sorted output and RFC 8785 agree byte for byte (a property test compares them).
    quick = msgspec.json.encode(value, order="sorted")
    if quick.isascii() and not _NUMBERS.search(quick):
        return quick
    builtins: Any = msgspec.to_builtins(value, str_keys=True, order="sorted")
    try:
        return rfc8785.dumps(builtins)
    except rfc8785.CanonicalizationError as error:
        raise CanonicalError("expected a value with an exact JSON form") from error


def parse_canonical(data: bytes, kind: type[T], *, what: str) -> T:
    """Return the typed value of canonical JSON bytes; any other spelling of it is refused.

    Refusing other spellings (duplicate members, other order, white space) means that two readers
    of one hash never see two different values.

    Raises:
        CanonicalError: not JSON, not of the type, or not in canonical form.
    """
    try:
        value = msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise CanonicalError(f"expected {what}: {error}") from error
    if canonical(value) != data:
        raise CanonicalError(f"expected {what} in canonical form, got another spelling of it")
    return value


def sha256_hex(data: bytes) -> str:
    """Return the lower-case hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()
