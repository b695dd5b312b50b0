"""What a public key is: its raw material and its id, always computed from the key itself."""

import base64
import hashlib
from typing import Any

from safehold.errors import DependencyError

_ED25519_BYTES = 32
"""RFC 8032, section 5.1.5."""

ED25519 = b"ssh-ed25519"
SK_ED25519 = b"sk-ssh-ed25519@openssh.com"
_P = 2**255 - 19
_SIGN = 1 << 255
# The y coordinates of the eight points of small order (RFC 7748 section 7 and its torsion): under
# such a "key" one signature verifies for many messages, so it is nobody's.
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _P - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
    }
)
_OKP, _EC2, _RSA = 1, 2, 3
_MEMBERS = {_OKP: (-1, -2), _EC2: (-1, -2, -3), _RSA: (-1, -2)}


def thumbprint(data: bytes) -> str:
    """Return `SHA256:` and the unpadded base64 digest, as OpenSSH prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def ssh_blob(line: str) -> bytes:
    """Return the key blob of `TYPE BASE64`.

    Raises:
        ValueError: not base64, or another spelling of the same bytes.
    """
    _, _, text = line.partition(" ")
    blob = base64.b64decode(text, validate=True)
    if base64.b64encode(blob).decode() != text:
        raise ValueError("expected the one canonical base64 spelling")
    return blob


def ssh_material(line: str) -> str:
    """Return `ed25519:` and the 32 bytes of an SSH public key line.

    Raises:
        ValueError: another type, a type that is not the key's own, bytes too many or few, or a
            point that is no key.
    """
    blob, fields = ssh_blob(line), []
    at = 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        if end > len(blob) or at + 4 > len(blob):
            raise ValueError("a truncated SSH key")
        fields.append(blob[at + 4 : end])
        at = end
    expected = {ED25519: 2, SK_ED25519: 3}
    if not fields or len(fields) != expected.get(fields[0]):
        raise ValueError("not an Ed25519 key")
    if fields[0] != line.partition(" ")[0].encode():
        raise ValueError("the type of the line is not the type inside the key")
    return _ed25519(fields[1])


def cose_material(data: bytes) -> str:
    """Return the type, curve and numbers of a COSE key (RFC 9053 section 7) as text.

    Raises:
        ValueError: not a COSE key of type OKP, EC2 or RSA.
        DependencyError: the `trust` extra is not installed.
    """
    try:
        import cbor2
    except ImportError as error:
        raise DependencyError("passkeys need the extra: pip install 'safehold[trust]'") from error
    try:
        key: Any = cbor2.loads(data)
    except (cbor2.CBORDecodeError, RecursionError) as error:
        raise ValueError("not CBOR") from error
    # 1.0 and true are 1 to Python: an id of them would be a second one of the same key.
    if not isinstance(key, dict) or type(key.get(1)) is not int or key[1] not in _MEMBERS:
        raise ValueError("not a COSE key of a known type")
    values = [key.get(member) for member in _MEMBERS[key[1]]]
    numbers = [value for value in values if isinstance(value, bytes)]
    if len(numbers) + (key[1] != _RSA) != len(values):
        raise ValueError("a COSE key that lacks a number")
    if key[1] != _RSA and type(values[0]) is not int:
        raise ValueError("a COSE key whose curve is no number")
    if key[1] == _OKP:
        return _ed25519(numbers[0])
    # Leading zeros do not make another number.
    spelt = ":".join(number.lstrip(b"\0").hex() for number in numbers)
    return f"cose:{key[1]}:{values[0] if key[1] == _EC2 else ''}:{spelt}"


def _ed25519(raw: bytes) -> str:
    if len(raw) != _ED25519_BYTES:
        raise ValueError("expected an Ed25519 key of 32 bytes")
    y = int.from_bytes(raw, "little") % _SIGN
    if y >= _P or y in _SMALL_ORDER:
        raise ValueError("a point that is no key")
    return f"ed25519:{raw.hex()}"
