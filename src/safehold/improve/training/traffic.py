"""Thresholds from unlabelled, mostly benign traffic: the same weights, another operating point.

1. Stage 1 scores all traffic; the escalation threshold lets a wanted share of it through.
2. Stage 2 reads what escalates, in the session that will serve.
3. Earlier turns, parts of a text, joined turns and earlier answers get margins, so that none of
   these kinds alone blocks more than is allowed, and none is kept back for the sake of another.
4. The block threshold is the umbrella rule's order statistic of the final scores. Texts that never
   escalate score lowest. Where texts near the subject are given too, their own looser bound must
   hold as well, so the higher of both thresholds is taken.
5. Traffic may hold attacks: the stated share of the highest scores is left out before the rule.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from safehold.exchange import Exchange
from safehold.guard.bundle.interface import SurfaceTraffic, TrafficRecord
from safehold.guard.bundle.load import Bundle
from safehold.guard.session.cascade import Cascade, TextKind, Thresholds
from safehold.guard.session.decoding import ViewDecoder
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.training.calibration import refuse_too_few, umbrella_threshold
from safehold.improve.training.traces import Trace, trace
from safehold.progress import Progress

OWN_ESCALATE = 0.5
"""Share of the traffic that stage 2 reads for a class of somebody's own.

Its stage 1 was trained from a few dozen answers and misses what they do not speak of; stage 2
begins from a network that has read much more. Training allows that share of replies as well.
"""
_LOWEST = -1e9
_NO_MARGINS = (0.0, 0.0, 0.0, 0.0)
_FEW = 30
"""Texts of a kind from which its margin is set on them."""
_QUANTILES = (0.5, 0.9, 0.99, 0.999)


class TrafficSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the traffic shall bear: rates that are bounded with probability 1 - `delta`.

    `alpha` is the most of it that may be blocked, `near_alpha` the most of the texts near the
    subject, `escalate` the share that stage 2 reads, `contamination` the share of the traffic that
    may be restricted after all. Replies may have rates of their own; without them they have these.
    """

    alpha: float = 0.002
    near_alpha: float = 0.03
    delta: float = 0.05
    escalate: float = 0.06
    contamination: float = 0.0
    reply_alpha: float | None = None
    reply_near_alpha: float | None = None
    reply_escalate: float | None = None

    def of_replies(self) -> "TrafficSettings":
        """Return the rates that replies shall bear."""
        own = {
            "alpha": self.reply_alpha,
            "near_alpha": self.reply_near_alpha,
            "escalate": self.reply_escalate,
        }
        given = {name: rate for name, rate in own.items() if rate is not None}
        return msgspec.structs.replace(self, **given)


class TrafficText(msgspec.Struct, frozen=True):
    """One exchange of the traffic: what was asked, and what was answered where that counts too.

    `asks` is false where the exchange only leads up to the reply.
    """

    exchange: Exchange
    reply: str
    asks: bool = True


class BenignTraffic(msgspec.Struct, frozen=True):
    """Traffic with the digests of what it was read from; `near` is near the subject."""

    general: tuple[TrafficText, ...]
    near: tuple[TrafficText, ...]
    sources: dict[str, str]


def refuse_too_little(traffic: BenignTraffic, settings: TrafficSettings) -> None:
    """Refuse traffic that can't bear the rates, before any of it is scored.

    Raises:
        DataError: There are too few texts of a kind; one line says which.
    """
    for name, rates in (("prompts", settings), ("replies", settings.of_replies())):
        general, near = (
            sum(text.asks if name == "prompts" else bool(text.reply) for text in texts)
            for texts in (traffic.general, traffic.near)
        )
        kept = general - math.ceil(rates.contamination * general)
        refuse_too_few(
            kept, rates.alpha, rates.delta, f"benign {name} that are not near the subject"
        )
        if near:
            refuse_too_few(near, rates.near_alpha, rates.delta, f"benign {name} near the subject")


def calibrated(
    bundle: Bundle, traffic: BenignTraffic, settings: TrafficSettings, progress: Progress
) -> tuple[Cascade, TrafficRecord]:
    """Return the bundle's cascade at the traffic's operating point, and the record of it.

    Raises:
        DataError: The traffic is too small for the bound.
    """
    refuse_too_little(traffic, settings)
    cascade = bundle.cascade
    texts = (*traffic.general, *traffic.near)
    progress.start("traffic, stage 1", len(texts))
    silent = msgspec.structs.replace(cascade, has_stage2=False, probe=None)
    first = _rows(silent, bundle, texts, progress, stage2=False)
    general = len(traffic.general)
    rates = {True: settings, False: settings.of_replies()}
    levels = [
        float(
            np.quantile(
                [max(row[surface].stage1, _LOWEST) for row in first[:general] if surface in row],
                1 - own.escalate,
            )
        )
        for surface, own in rates.items()
    ]
    cascade = msgspec.structs.replace(
        cascade,
        prompt=_with_margins(
            msgspec.structs.replace(cascade.prompt, escalate=levels[0]), _NO_MARGINS
        ),
        reply=_with_margins(
            msgspec.structs.replace(cascade.reply, escalate=levels[1]), _NO_MARGINS
        ),
    )
    if cascade.has_stage2:
        hot = [
            text
            for text, row in zip(texts, first, strict=True)
            if any(one.stage1 >= levels[0 if prompt else 1] for prompt, one in row.items())
        ]
        progress.start("traffic, stage 2", len(texts))
        chosen = {id(text) for text in hot}
        # Stage 2 reads every last request; a reply only where stage 1 asks for it.
        read = [
            text if id(text) in chosen else msgspec.structs.replace(text, reply="")
            for text in texts
        ]
        found = _rows(cascade, bundle, read, progress, stage2=True)
        first = [{**row, **more} for row, more in zip(first, found, strict=True)]
    surfaces: dict[str, SurfaceTraffic] = {}
    for name, prompt in (("prompt", True), ("reply", False)):
        base = cascade.prompt if prompt else cascade.reply
        usual = [row[prompt] for row in first[:general] if prompt in row]
        close = [row[prompt] for row in first[general:] if prompt in row]
        if cascade.has_stage2:
            base = _with_margins(base, _margins(base, usual, close, rates[prompt]))
        surfaces[name] = _surface(
            base,
            [_final(cascade, base, row) for row in usual],
            [_final(cascade, base, row) for row in close],
            rates[prompt],
        )
    record = TrafficRecord(
        bundle=bundle.digest, sources=traffic.sources, surfaces=surfaces,
        alpha=settings.alpha, near_alpha=settings.near_alpha, delta=settings.delta,
        contamination=settings.contamination, reply_alpha=settings.reply_alpha,
        reply_near_alpha=settings.reply_near_alpha,
    )  # fmt: skip
    return at_record(cascade, record), record


def at_record(cascade: Cascade, record: TrafficRecord) -> Cascade:
    """Return the cascade at the operating point of a record, without the traffic itself."""

    def placed(base: Thresholds, surface: SurfaceTraffic) -> Thresholds:
        if cascade.has_stage2:
            moved = msgspec.structs.replace(base, escalate=surface.escalate, block=surface.block)
            return _with_margins(moved, surface.margins)
        return msgspec.structs.replace(base, escalate=surface.block, alone=surface.block)

    return msgspec.structs.replace(
        cascade,
        prompt=placed(cascade.prompt, record.surfaces["prompt"]),
        reply=placed(cascade.reply, record.surfaces["reply"]),
    )


def _rows(
    cascade: Cascade,
    bundle: Bundle,
    texts: Sequence[TrafficText],
    progress: Progress,
    *,
    stage2: bool,
) -> list[dict[bool, Trace]]:
    """Return each text's traces, by whether they are the prompt's."""
    scorer = bundle.stage2 if stage2 else None
    rows = []
    for text in texts:
        found = trace(cascade, scorer, ViewDecoder(), [_example(text)], progress)
        rows.append({one.prompt: one for one in found if text.asks or not one.prompt})
    return rows


def _example(text: TrafficText) -> Example:
    return Example(
        id="",
        family="",
        split=Split.CALIBRATE,
        side=Side.PERMITTED,
        clause="",
        exchange=text.exchange,
        reply=text.reply,
        ask=False,
        lineage=Lineage(constitution="", generator="traffic", seed=0),
    )


def _final(cascade: Cascade, surface: Thresholds, row: Trace) -> float:
    if not cascade.has_stage2:
        return max(row.stage1, _LOWEST)
    return max(
        (
            cascade.ensemble(surface, first, second, kind=kind)
            for (first, second), kind in zip(row.pairs, row.kinds, strict=True)
        ),
        default=_LOWEST,
    )


def _with_margins(surface: Thresholds, margins: Sequence[float]) -> Thresholds:
    earlier, part, joined, *answer = margins
    return msgspec.structs.replace(
        surface, earlier=earlier, part=part, joined=joined, answer=answer[0] if answer else None
    )


def _margins(
    base: Thresholds, general: Sequence[Trace], near: Sequence[Trace], settings: TrafficSettings
) -> tuple[float, float, float, float]:
    """Return how much surer each other kind must be for as many false alarms as the last request.

    A prompt has many texts of the other kinds, so these bear half of the share of near texts. A
    kind that the traffic hardly has keeps the margin that a bundle has without any traffic; an
    earlier turn and an answer that of a part.
    """
    first, second, constant = base.weights

    def level(kind: TextKind) -> float | None:
        found = []
        close = settings.near_alpha / (1 if kind is TextKind.REQUEST else 2)
        for rows, share in ((general, settings.alpha), (near, close)):
            scores = sorted(
                max(first * one + second * two + constant for one, two in own)
                for row in rows
                if (
                    own := [
                        pair for pair, its in zip(row.pairs, row.kinds, strict=True) if its is kind
                    ]
                )
            )
            if len(scores) >= _FEW:
                found.append(scores[-1 - math.floor(share * len(scores))])
        return max(found, default=None)

    def margin(kind: TextKind, otherwise: float) -> float:
        own = level(kind)
        if request is None or own is None or second <= 0:
            return otherwise
        return max(0.0, (own - request) / second)

    request = level(TextKind.REQUEST)
    usual = Thresholds(escalate=0.0, weights=base.weights, block=0.0, alone=0.0)
    part = margin(TextKind.PART, usual.part)
    return (
        margin(TextKind.EARLIER, part),
        part,
        margin(TextKind.JOINED, usual.joined),
        margin(TextKind.ANSWER, part),
    )


def _surface(
    base: Thresholds,
    scores: Sequence[float],
    near: Sequence[float],
    settings: TrafficSettings,
) -> SurfaceTraffic:
    kept = sorted(scores)[: len(scores) - math.ceil(settings.contamination * len(scores))]
    rule = umbrella_threshold(kept, settings.alpha, settings.delta)
    value = rule.value
    if near:
        value = max(value, umbrella_threshold(near, settings.near_alpha, settings.delta).value)
    block = float(np.nextafter(value, np.inf))
    return SurfaceTraffic(
        n=len(scores),
        near_n=len(near),
        rank=rule.rank,
        escalate=base.escalate,
        block=block,
        above=(sum(one >= block for one in scores), sum(one >= block for one in near)),
        quantiles=tuple(float(np.quantile(scores, level)) for level in _QUANTILES),
        margins=(base.earlier, base.part, base.joined, base.margin(TextKind.ANSWER)),
    )


def read_record(path: Path) -> TrafficRecord:
    """Read a committed record of a calibration.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return msgspec.json.decode(path.read_bytes(), type=TrafficRecord)
