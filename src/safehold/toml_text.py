"""TOML as every part reads it: what Python's parser breaks at is a malformed file, no traceback."""

import tomllib
from typing import Any


def parse_toml(text: str) -> dict[str, Any]:
    """Return the members of a TOML document.

    Raises:
        tomllib.TOMLDecodeError: it is malformed, nested too deep, or has an endless number.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("nested too deep to be read") from error
    except ValueError as error:  # Python's limit of digits
        raise tomllib.TOMLDecodeError("expected a number of fewer digits") from error
