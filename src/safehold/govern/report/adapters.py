"""Figures out of what the parts print with `--json`: one adapter a kind, in one table.

An adapter reads what it needs and no more, so that a part may print more tomorrow; what it needs
and does not find is an error, never a nought.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from safehold.govern.capability.interface import CapabilityRun, UpliftTrial
from safehold.govern.capability.score import uplift
from safehold.govern.report.interface import Audience, Figure, Good, ReportError
from safehold.stats import Rate

_CAUGHT = frozenset({"prevented", "detected"})
_REPRODUCED = frozenset({"reproduced", "rated", "fix_linked", "fix_verified", "disclosed"})
_DEFENCES = ("guard", "accounts", "response")
Figures = dict[str, Figure]


class _Slice(msgspec.Struct, frozen=True):
    success: Rate


class _Redteam(msgspec.Struct, frozen=True):
    total: _Slice
    benign_plain: Rate


class _Coverage(msgspec.Struct, frozen=True):
    gaps: tuple[str, ...]
    missing_rows: int


class _RaceSettings(msgspec.Struct, frozen=True):
    defence: str


class _Race(msgspec.Struct, frozen=True):
    settings: _RaceSettings
    universal_at: int | None
    acted_at: int | None
    benign_ended: Rate
    benign_stopped: Rate

    @property
    def lost(self) -> bool:
        """Whether a universal jailbreak was found before the defence acted."""
        found = self.universal_at
        return found is not None and (self.acted_at is None or self.acted_at >= found)


class _Due(msgspec.Struct, frozen=True):
    kept_at: float | None
    overdue: bool


class _Submission(msgspec.Struct, frozen=True):
    state: str
    fix_check: str | None
    due: tuple[_Due, ...]


class _Mark(msgspec.Struct, frozen=True):
    what: str
    seconds: float


class _Response(msgspec.Struct, frozen=True):
    marks: tuple[_Mark, ...]
    verified: bool


class _Try(msgspec.Struct, frozen=True):
    step: str
    control: str
    outcome: str
    out: int = 0
    bound: int | None = None

    @property
    def counts(self) -> bool:
        """Whether this control alone prevented or detected the step, within the proved bound."""
        return self.outcome in _CAUGHT and (self.bound is None or self.out <= self.bound)


def _redteam(data: bytes, audience: Audience) -> Figures:
    red = msgspec.json.decode(data, type=_Redteam)
    return {
        "rate": _rate(red.total.success, audience),
        "false_blocks": _rate(red.benign_plain, audience),
    }


def _coverage(data: bytes, audience: Audience) -> Figures:
    found = msgspec.json.decode(data, type=_Coverage)
    return {
        "gaps": _number(len(found.gaps), audience),
        "missing": _number(found.missing_rows, audience),
    }


def _capability(data: bytes, audience: Audience) -> Figures:
    run = msgspec.json.decode(data, type=CapabilityRun)
    counted = run.successes + run.unscorable + run.errors
    return {
        "solved": _rate(Rate(run.successes, run.items), audience),
        "counted": _rate(Rate(counted, run.items), audience),
        "faulty": _rate(Rate(run.with_critical_faults, run.items), audience),
    }


def _uplift(data: bytes, audience: Audience) -> Figures:
    arms = uplift(msgspec.json.decode(data, type=UpliftTrial))
    return {
        "control_faulty": _rate(arms.control_with_faults, audience),
        "treated_faulty": _rate(arms.treated_with_faults, audience),
        "p_value": Figure(audience=audience, number=arms.p_value),
    }


def _race(data: bytes, audience: Audience) -> Figures:
    """Races lost under each defence that was played, and what the whole one did to the honest."""
    races = msgspec.json.decode(data, type=tuple[_Race, ...])
    found: Figures = {}
    for defence in _DEFENCES:
        here = [one for one in races if one.settings.defence == defence]
        if here:
            lost = Rate(sum(one.lost for one in here), len(here))
            found[f"lost_{defence}"] = _rate(lost, audience)
    whole = [one for one in races if one.settings.defence == _DEFENCES[-1]]
    if not whole:
        raise ReportError("expected races against the whole defence (--defence response)")
    for name in ("benign_ended", "benign_stopped"):
        rates: list[Rate] = [getattr(one, name) for one in whole]
        total = Rate(sum(one.events for one in rates), sum(one.n for one in rates))
        found[name] = _rate(total, audience)
    return found


def _bounty(data: bytes, audience: Audience) -> Figures:
    """What came, what was reproduced, how much of that is mended, and promises not kept in time."""
    entries = msgspec.json.decode(data, type=tuple[_Submission, ...])
    real = [one for one in entries if one.state in _REPRODUCED]
    mended = sum(one.fix_check == "yes" for one in real)
    late = sum(due.overdue and due.kept_at is None for one in entries for due in one.due)
    return {
        "received": _number(len(entries), audience),
        "reproduced": _number(len(real), audience),
        "unmended": _number(len(real) - mended, audience),
        "mended": Figure(audience=audience, events=mended, n=len(real), good=Good.HIGH),
        "overdue": _number(late, audience),
    }


def _response(data: bytes, audience: Audience) -> Figures:
    """Whether the drill ended verified, and each mark of its clock in seconds."""
    drill = msgspec.json.decode(data, type=_Response)
    marks = {
        f"{one.what.replace(' ', '_')}_s": Figure(audience=audience, number=one.seconds, unit="s")
        for one in drill.marks
    }
    return {**marks, "verified": _number(int(drill.verified), audience)}


def _heist(data: bytes, audience: Audience) -> Figures:
    """How many steps are real, and which of them no control alone prevents or detects."""
    tries = msgspec.json.decode(data, type=tuple[_Try, ...])
    steps = list(dict.fromkeys(one.step for one in tries))
    if not steps:
        raise ReportError("expected the tries of a heist, came none")
    real, held = 0, 0
    for step in steps:
        bare = [one for one in tries if one.step == step and not one.control]
        alone = [one for one in tries if one.step == step and one.control]
        succeeds = bool(bare) and all(one.outcome == "missed" for one in bare)
        real += succeeds
        held += succeeds and any(one.counts for one in alone)
    return {
        "held": Figure(audience=audience, events=held, n=len(steps), good=Good.HIGH),
        "unheld": _number(len(steps) - held, audience),
        "unreal": _number(len(steps) - real, audience),
    }


ADAPTERS: Mapping[str, Callable[[bytes, Audience], Figures]] = MappingProxyType(
    {
        "redteam": _redteam,
        "coverage": _coverage,
        "capability": _capability,
        "uplift": _uplift,
        "race": _race,
        "bounty": _bounty,
        "response": _response,
        "heist": _heist,
    }
)
"""Who reads what: `redteam report`, `ledger coverage`, `capability run` (its run.json), a trial's
file, `race`, `bounty list`, `respond drill`, `drill heist`; with `--json` where there is one."""


def figures_of(kind: str, data: bytes, audience: Audience) -> dict[str, Figure]:
    """Return the figures of a part's own JSON: what its command prints with `--json`.

    Raises:
        ReportError: the kind is unknown, or the JSON is of another shape.
    """
    adapter = ADAPTERS.get(kind)
    if adapter is None:
        raise ReportError(f"expected one of {', '.join(ADAPTERS)}; came {kind!r}")
    try:
        return adapter(data, audience)
    except msgspec.DecodeError as error:
        raise ReportError(f"expected the JSON of {kind}: {error}") from error


def _rate(rate: Rate, audience: Audience) -> Figure:
    return Figure(audience=audience, events=rate.events, n=rate.n)


def _number(number: int, audience: Audience) -> Figure:
    return Figure(audience=audience, number=float(number))
