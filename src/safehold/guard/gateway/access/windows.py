"""Names of counters that start anew with each window of time."""


def windowed(key: str, window_s: int, now: float) -> str:
    """Return the name of a counter in the window that `now` lies in."""
    return f"{key}:{window_s}:{int(now // window_s)}"
