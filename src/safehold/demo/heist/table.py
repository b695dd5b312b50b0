"""What a heist showed: for each step and control, prevented, detected after seconds, or missed."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class HeistOutcome(StrEnum):
    """How a step ended."""

    PREVENTED = "prevented"
    DETECTED = "detected"
    MISSED = "missed"


class HeistTry(msgspec.Struct, frozen=True):
    """One try of a step: under which control alone (empty: under none), and how it ended.

    `seconds` is how long detection took; `out` are payload bytes that left, `bound` the most that
    the rules prove (None: the step carries nothing out).
    """

    step: str
    control: str
    outcome: HeistOutcome
    seconds: float | None = None
    out: int = 0
    bound: int | None = None


class HeistRow(msgspec.Struct, frozen=True):
    """One step: did it succeed with all its controls off, and which of them count for it."""

    step: str
    succeeds_bare: bool
    counted: tuple[HeistTry, ...]
    not_counted: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether the step is real (it succeeds bare) and some control alone stops or shows it."""
        return self.succeeds_bare and bool(self.counted)


def rows(tries: Sequence[HeistTry]) -> tuple[HeistRow, ...]:
    """Return the table: a control counts for a step only if it alone prevents or detects it.

    Bytes out above the proved bound are a miss, whatever the control said.
    """
    found = []
    for step in dict.fromkeys(one.step for one in tries):
        here = [one for one in tries if one.step == step]
        bare = [one for one in here if not one.control]
        alone = [one for one in here if one.control]
        counted = tuple(one for one in alone if _counts(one))
        found.append(
            HeistRow(
                step,
                bool(bare) and all(one.outcome is HeistOutcome.MISSED for one in bare),
                counted,
                tuple(one.control for one in alone if not _counts(one)),
            )
        )
    return tuple(found)


def _counts(one: HeistTry) -> bool:
    return one.outcome is not HeistOutcome.MISSED and (one.bound is None or one.out <= one.bound)


def markdown(table: Sequence[HeistRow]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| Step | With its controls off | Control alone | Ends | Bytes out, and bound |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in table:
        bare = "succeeds" if row.succeeds_bare else "fails by itself"
        for one in row.counted:
            late = "" if one.seconds is None else f" after {one.seconds:.2f} s"
            carried = "" if one.bound is None else f"{one.out:,} of at most {one.bound:,}"
            lines.append(
                f"| {row.step} | {bare} | {one.control} | {one.outcome.value}{late} | {carried} |"
            )
        lines += [
            f"| {row.step} | {bare} | {name} | missed: not counted |  |" for name in row.not_counted
        ]
    return "\n".join(lines) + "\n"
