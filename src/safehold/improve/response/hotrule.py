"""From a dress to a hot rule: the text around the ask, and what it would have cost.

The rule is a known attack where the dress is long enough to tell, else a pattern of its pieces. Its
benign cost is measured on the operator's own benign texts before it may act: every view of each
text is searched, as a session will.
"""

import re
from collections.abc import Sequence

import msgspec

from safehold.errors import ConfigError
from safehold.guard.overlay.interface import DAY_S, BenignCost, HotRule
from safehold.guard.scorers.rules import Rule, RuleSet
from safehold.guard.scorers.similar import LEAST_CHARS, MOST_CHARS, KnownAttack, folded
from safehold.guard.session.decoding import ViewDecoder
from safehold.improve.response.interface import (
    Dress,
    Incident,
    IncidentKind,
    ResponseError,
    Variant,
)
from safehold.stats import Rate

_SHARES = (0.5, 0.45, 0.4, 0.35, 0.6, 0.7)
"""Shares that are tried; of equal ones the first is taken."""
_LEAST_PATTERN = 16
"""Letters, digits and spaces of a dress that a pattern needs to be about anything."""
_GAP = ".{0,800}?"
_BETWEEN = r"\W+(?:\w+\W+){0,2}"
_LEAST_WORDS = 6
"""From so many words on a pattern may do without one."""
_DAYS = 7
_SLOT = re.compile(r"<<\w+>>")
_WORD = re.compile(r"\w+")


class MeasuredRule(msgspec.Struct, frozen=True):
    """A rule with what it caught of the held-out variants of its own family."""

    rule: HotRule
    caught: Rate
    twins: Rate
    """Permitted asks in the same dress that it refuses: what the rule costs there."""


def hot_rule(
    incident: Incident,
    dress: Dress,
    made: Sequence[Variant],
    benign: Sequence[str],
    *,
    sources: dict[str, str],
    owner: str,
    now: int,
    days: int = _DAYS,
) -> MeasuredRule:
    """Return the rule that catches most of the held-out variants at no benign hit.

    Where every share hits benign texts, the one with the fewest hits is returned: its cost says so,
    and nobody need let it act.

    Raises:
        ResponseError: The incident is a false alarm, the dress is too short to tell from ordinary
            texts, or there is no benign text to measure it on.
    """
    if incident.kind is IncidentKind.FALSE_ALARM:
        raise ResponseError(
            "a rule can only stop texts, and this is a false alarm; go on with the warm start"
        )
    if not benign:
        raise ResponseError("a rule's cost is measured on your own benign texts; give some")
    held = [one for one in made if one.held_out]
    texts = [_views(one.text) for one in held]
    plain = [_views(text) for text in benign]
    best: tuple[tuple[int, int], HotRule, list[bool]] | None = None
    for candidate in _candidates(dress):
        rule = HotRule(
            id=f"{incident.id}-rule",
            clause=incident.clause,
            owner=owner,
            incident=incident.id,
            created=now,
            expires=now + days * DAY_S,
            pattern=candidate.pattern,
            text=candidate.text,
            at_least=candidate.at_least,
        )
        rules = searched(rule)
        hits = sum(_hit(rules, one) for one in plain)
        found = [_hit(rules, one) for one in texts]
        rank = (hits, -sum(found))
        if best is None or rank < best[0]:
            cost = BenignCost(hits=hits, n=len(benign), sources=sources)
            best = (rank, msgspec.structs.replace(rule, cost=cost), found)
    if best is None:
        raise ResponseError(
            f"the dress has fewer than {_LEAST_PATTERN} letters: a rule of it would refuse "
            "ordinary texts; go on with the warm start"
        )
    sides = [one.restricted for one in held]
    caught = [hit for hit, bad in zip(best[2], sides, strict=True) if bad]
    twins = [hit for hit, bad in zip(best[2], sides, strict=True) if not bad]
    return MeasuredRule(
        rule=best[1], caught=Rate(sum(caught), len(caught)), twins=Rate(sum(twins), len(twins))
    )


class _Candidate(msgspec.Struct, frozen=True):
    text: str = ""
    pattern: str = ""
    at_least: float = 0.5


def _candidates(dress: Dress) -> list[_Candidate]:
    around = _SLOT.sub(" ", dress.wrapper.text)
    length = len(folded(around))
    if length >= LEAST_CHARS:
        return [_Candidate(text=_shortened(around), at_least=share) for share in _SHARES]
    if length >= _LEAST_PATTERN:
        return [_Candidate(pattern=_pattern(dress.wrapper.text))]
    return []


def _shortened(around: str) -> str:
    """Return the most of a dress that a known attack may hold: its beginning and its end."""
    if len(folded(around)) <= MOST_CHARS:
        return around
    half = MOST_CHARS // 2 - 10
    return f"{around[:half]} {around[-half:]}"


def _pattern(around: str) -> str:
    """Return a pattern of the words around the slots: two more between them, or one left out."""
    pieces = [_WORD.findall(piece) for piece in _SLOT.split(around)]
    pieces = [words for words in pieces if words]
    ways = [pieces]
    if sum(map(len, pieces)) >= _LEAST_WORDS:
        for number, words in enumerate(pieces):
            for left_out in range(len(words)):
                fewer = words[:left_out] + words[left_out + 1 :]
                ways.append([*pieces[:number], *([fewer] if fewer else []), *pieces[number + 1 :]])
    said = (_GAP.join(_BETWEEN.join(map(re.escape, words)) for words in way) for way in ways)
    return f"(?s){'|'.join(dict.fromkeys(said))}"


def searched(rule: HotRule) -> RuleSet:
    """Return the rule ready to search.

    Raises:
        ResponseError: It can't be searched.
    """
    try:
        if rule.pattern:
            return RuleSet([Rule(rule.id, rule.clause, rule.pattern)])
        return RuleSet([], [KnownAttack(rule.id, rule.clause, rule.text, rule.at_least)])
    except ConfigError as error:
        raise ResponseError(f"the rule can't be searched: {error}") from error


def cost_of(rule: HotRule, benign: Sequence[str], sources: dict[str, str]) -> BenignCost:
    """Return what a rule hits among benign texts."""
    rules = searched(rule)
    hits = sum(_hit(rules, _views(text)) for text in benign)
    return BenignCost(hits=hits, n=len(benign), sources=sources)


def refused_by(rule: HotRule, texts: Sequence[str]) -> tuple[bool, ...]:
    """Say of each text whether the rule refuses it, in any view of it."""
    rules = searched(rule)
    return tuple(_hit(rules, _views(text)) for text in texts)


def _hit(rules: RuleSet, seen: Sequence[str]) -> bool:
    return any(rules.search(view) is not None for view in seen)


def _views(text: str) -> Sequence[str]:
    return ViewDecoder().views(text)
