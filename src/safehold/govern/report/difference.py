"""What changed between two reports; what makes the later one weaker is said as such."""

import re

import msgspec

from safehold.govern.report.interface import ClaimState, ClaimView, Report, ReportError

_BETTER = (ClaimState.UNSUPPORTED, ClaimState.UNDERMINED, ClaimState.STALE, ClaimState.SUPPORTED)
_NONE = "not shown"
_DEMAND = re.compile(r"(\S+) (upper<=|lower>=|<=|>=|is) (.+)")


class Shift(msgspec.Struct, frozen=True):
    """One difference; `weakening` says that the later report claims or shows less."""

    id: str
    what: str
    weakening: bool


def differences(old: Report, new: Report) -> tuple[Shift, ...]:
    """Return what changed, by claim and by evidence.

    Raises:
        ReportError: the reports are of two levels.
    """
    if old.level is not new.level:
        raise ReportError(f"expected two reports of one level, got {old.level} and {new.level}")
    said: list[Shift] = []
    before, after = ({one.id: one for one in each.claims} for each in (old, new))
    said += [Shift(one, "the claim is gone", True) for one in sorted(set(before) - set(after))]
    said += [Shift(one, "the claim is new", False) for one in sorted(set(after) - set(before))]
    for name in sorted(set(before) & set(after)):
        said += _claim(before[name], after[name])
    shown, shows = ({one.id: one for one in each.evidence} for each in (old, new))
    said += [Shift(one, "the evidence is gone", True) for one in sorted(set(shown) - set(shows))]
    said += [Shift(one, "the evidence is new", False) for one in sorted(set(shows) - set(shown))]
    for name in sorted(set(shown) & set(shows)):
        one, two = shown[name], shows[name]
        if one.made != two.made:
            said.append(Shift(name, "the evidence was made anew", two.made < one.made))
        said += [
            Shift(
                name,
                f"{key}: {one.fields.get(key, _NONE)} became {two.fields.get(key, _NONE)}",
                key not in two.fields,
            )
            for key in sorted({*one.fields, *two.fields})
            if one.fields.get(key) != two.fields.get(key)
        ]
    said += [Shift("doubts", f"new: {one}", True) for one in new.doubts if one not in old.doubts]
    said += [Shift("doubts", f"gone: {one}", False) for one in old.doubts if one not in new.doubts]
    return tuple(said)


def _claim(old: ClaimView, new: ClaimView) -> list[Shift]:
    said = []
    if old.state is not new.state:
        worse = _BETTER.index(new.state) < _BETTER.index(old.state)
        said.append(Shift(old.id, f"{old.state} became {new.state}", worse))
    if old.text != new.text:
        said.append(Shift(old.id, "its words changed", False))
    if old.evidence != new.evidence:
        words = f"evidence {old.evidence or _NONE} became {new.evidence or _NONE}"
        said.append(Shift(old.id, words, not new.evidence))
    if old.demand != new.demand:
        said.append(
            Shift(
                old.id,
                f"demand {old.demand or 'none'} became {new.demand or 'none'}",
                looser(old.demand, new.demand),
            )
        )
    gone = sorted(set(old.supported_by) - set(new.supported_by))
    said += [Shift(old.id, f"it rests on {one} no more", True) for one in gone]
    if new.withheld < old.withheld:
        said.append(Shift(old.id, "it rests on less that is withheld", True))
    return said


def looser(old: str, new: str) -> bool:
    """Tell whether a demand is looser; whatever can't be compared is."""
    one, two = _DEMAND.fullmatch(old), _DEMAND.fullmatch(new)
    if one is None:
        return False
    if two is None or (one[1], one[2]) != (two[1], two[2]) or one[2] == "is":
        return True
    try:
        left, right = float(one[3]), float(two[3])
    except ValueError:
        return True
    return right > left if one[2].endswith("<=") else right < left
