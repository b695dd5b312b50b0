"""Byte sizes and bit rates as people write them."""

import re

from safehold.secure.egress.interface import RegisterError

_ROUNDS_UP = 999.5
"""From here on a number rounds to one of the next unit."""

_FACTORS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_RATES = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9, "Tbit/s": 10**12}
_FORM = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z/]+)", re.ASCII)
MAX_BYTES = 2**62


def parse_bytes(value: object, where: str) -> int:
    """Return a size in bytes from `1500`, `"40 GB"` or `"2 GiB"`.

    Raises:
        RegisterError: The value is not such a size, is negative or exceeds 2**62.
    """
    return _parse(value, _FACTORS, where, "a size such as 1500, '40 GB' or '2 GiB'")


def parse_rate(value: object, where: str) -> int:
    """Return bits per second from `"1 Gbit/s"`; raises RegisterError otherwise."""
    return _parse(value, _RATES, where, "a rate such as '100 Mbit/s'")


def _parse(value: object, factors: dict[str, int], where: str, expected: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (found := _FORM.fullmatch(value)) and found[2] in factors:
        number = round(float(found[1]) * factors[found[2]])
    else:
        raise RegisterError(f"{where}: expected {expected}")
    if not 0 <= number <= MAX_BYTES:
        raise RegisterError(f"{where}: expected a size between 0 and 2**62")
    return number


def human_bytes(count: float) -> str:
    """Say a number of bytes in the decimal unit a person would choose."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < _ROUNDS_UP:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"


def human_time(seconds: float) -> str:
    """Say a duration in the unit a person would choose."""
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {name}"
    return f"{seconds:.3g} s"
