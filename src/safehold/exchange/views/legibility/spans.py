"""Sets of characters as sorted spans that do not touch."""

from collections.abc import Iterable, Sequence

Spans = list[tuple[int, int]]


def merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """Return the union of spans."""
    found: Spans = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def without(spans: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> Spans:
    """Return what of the spans lies in none of the others; both are unions."""
    found: Spans = []
    at = 0
    for start, end in spans:
        here = start
        while at < len(others) and others[at][1] <= here:
            at += 1
        look = at
        while look < len(others) and others[look][0] < end:
            if others[look][0] > here:
                found.append((here, others[look][0]))
            here = max(here, others[look][1])
            look += 1
        if here < end:
            found.append((here, end))
    return found


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """Return how many characters the spans hold."""
    return sum(end - start for start, end in spans)


def shared(spans: Sequence[tuple[int, int]], start: int, end: int) -> int:
    """Return how many characters of the spans lie between two places."""
    return sum(max(0, min(end, last) - max(start, first)) for first, last in spans)
