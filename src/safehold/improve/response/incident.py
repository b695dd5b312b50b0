"""Reading an incident: where in the text the ask stands, and what dress is around it.

The ask is the stretch that the guard itself finds most restricted once it stands alone: a line, a
sentence, a quotation, or the decoded text of a part. Whoever reports benign text as a jailbreak (to
make the guard refuse it) is found out here: nothing in it is restricted.
"""

import re
from collections.abc import Iterator
from itertools import islice

from safehold.detect.redteam.interface import Wrapper
from safehold.detect.redteam.questions import wrappers
from safehold.detect.redteam.transforms import TRANSFORMS
from safehold.exchange.views import views
from safehold.guard.scorers.similar import KnownAttack, KnownAttacks, folded
from safehold.improve.response.interface import Dress, Incident, IncidentKind, ResponseError
from safehold.improve.response.judged import Judge

SLOT = "<<ask>>"
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_QUOTED = re.compile(r"[\"'“«‘]([^\"”»’\n]{12,600})[\"'”»’]")
_MOST_SPANS = 160
_LEAST = 12
_RESTRICTED = 0.5
"""The score of a text that the guard blocks."""
_NEAR = 0.1
_MARKS = " \t\n\"'"
_KNOWN_LEAST = 60


_Place = tuple[str, str, tuple[str, ...]]
"""A text, the span of it where the ask stands, and the chain that the ask went through."""


def dress_of(incident: Incident, judge: Judge, *, ask: str = "") -> Dress:
    """Return the dress of an incident's ask; `ask` says where it is, else it is looked for.

    Raises:
        ResponseError: The ask that was named is not in the text, or nothing in the text of a miss
            is restricted and nobody confirmed that it is.
    """
    text = incident.text
    place: _Place
    if ask:
        if ask not in text:
            raise ResponseError("the ask that was named does not stand in the example's text")
        found, score = ask, judge.prompt(ask).score
        place = (text, ask, ())
    else:
        found, score, place = _hottest(text, judge)
    if incident.kind is IncidentKind.MISS and score < _RESTRICTED and not incident.confirmed_by:
        raise ResponseError(
            "nothing in the example is restricted by itself, so it may be benign text that was "
            "sent in to have it refused; name the ask (--ask) and who read it (--confirmed-by)"
        )
    whole, span, chain = place
    around = whole.replace("<<", "< <").replace(span, SLOT, 1) if span else whole
    return Dress(
        wrapper=Wrapper(family=incident.id, text=around),
        chain=chain,
        ask=found,
        known_as=known_family(around.replace(SLOT, " ")),
    )


def _hottest(text: str, judge: Judge) -> tuple[str, float, _Place]:
    """Return the hottest stretch, its score, and where it stands: the text, the span, the chain."""
    spans = list(dict.fromkeys(_spans(text)))
    logits = judge.stage1([ask for ask, _, _, _ in spans])
    ranked = sorted(zip(spans, logits, strict=True), key=lambda one: -one[1])[:12]
    scored = [(judge.prompt(span[0]).score, span) for span, _ in ranked]
    top = max(score for score, _ in scored)
    # The shortest of nearly equal ones, unless it leaves a piece of the ask in the dress.
    near = sorted((one for one in scored if one[0] >= top - _NEAR), key=lambda one: len(one[1][0]))
    whole_asks = [one for one in near if not _cut(one[1][1], one[1][2], judge)]
    score, (ask, whole, span, chain) = (whole_asks or near)[0]
    return ask, score, (whole, span, chain)


def _cut(whole: str, span: str, judge: Judge) -> bool:
    """Say whether what stands before a stretch, in its own sentence, is suspect by itself."""
    before = whole[: whole.find(span)]
    if not before.rstrip(" ").endswith(":"):
        return False
    said = _SENTENCE.findall(before)
    piece = said[-1].rstrip(": ").rpartition(": ")[2] or said[-1] if said else ""
    return len(piece) >= _LEAST and judge.prompt(piece).escalated


def _spans(text: str) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield stretches that may be the ask: what it says, the text, the span there, its chain."""
    for stretch in islice(_stretches(text), _MOST_SPANS):
        yield stretch, text, stretch, ()
    known = {one.name for one in TRANSFORMS}
    first, *rest = views(text)
    for view in rest:
        if len(view.chain) == 1 and view.chain[0] in known and not view.spliced:
            yield view.text, first.text, first.text[slice(*view.span)], view.chain
    yield text, text, text, ()


def _stretches(text: str) -> Iterator[str]:
    for match in _QUOTED.finditer(text):
        yield match[1].strip()
    for line in text.splitlines():
        bare = line.strip(_MARKS)
        for said in (bare, bare.partition(": ")[2]):
            if len(said) >= _LEAST:
                yield said
        sentences = [one.strip(_MARKS) for one in _SENTENCE.findall(line)]
        for sentence in sentences:
            if len(sentence) >= _LEAST:
                yield sentence
            after = sentence
            while len(after := after.partition(": ")[2]) >= _LEAST:
                yield after


def known_family(around: str) -> str:
    """Name the family of wrappers that a dress resembles; empty where it is new."""
    known = [
        KnownAttack(one.family, "c", bare, 0.4)
        for one in wrappers()
        if len(folded(bare := re.sub(r"<<\w+>>", " ", one.text))) >= _KNOWN_LEAST
    ]
    found = KnownAttacks(known).search(around)
    return "" if found is None else found.id
