"""Waiting for what must happen: a test never takes a pause for it."""

import time
from collections.abc import Callable

_LOOK_S = 0.02


def until(holds: Callable[[], object], within_s: float = 60.0) -> None:
    """Return as soon as `holds` is true, asked again and again; a busy machine is waited for.

    Raises:
        AssertionError: It did not become true within `within_s` seconds.
    """
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"what was waited for did not happen within {within_s:g} s")
        time.sleep(_LOOK_S)
