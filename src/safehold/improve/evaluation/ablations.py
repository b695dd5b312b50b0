"""What each part of the guard is worth: the same items through guards that lack one part."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.guard.bundle.load import Bundle
from safehold.guard.session.cascade import Cascade, Thresholds
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.session import GrowingViews, TextDecoder
from safehold.improve.evaluation.cache import ScoreCache, code_digest, run_key
from safehold.improve.evaluation.figures import Ranked, ranking, scores_on, separation
from safehold.improve.evaluation.interface import (
    Ablation,
    DataFile,
    EvalItem,
    Frequency,
    ItemSide,
    JudgedItem,
    Label,
    Score,
)
from safehold.improve.evaluation.scoring import Examiner, ProbedModel
from safehold.improve.synthesis.encodings import ENCODINGS
from safehold.progress import Progress
from safehold.stats import Rate

_ENCODINGS = ("base64", "rot13", "leet", "reversed", "hex")
_ENCODED = 24
"""Restricted texts that are shown in each encoding."""
_ALWAYS = -1e9
_NO_LOGIT = -1e8


class _NoViews:
    """A decoder that shows every text as it stands, to see what the decoders are worth."""

    def views(self, text: str) -> Sequence[str]:
        """Return the text alone."""
        return (text,)

    def growing(self) -> GrowingViews:
        """Start a lane that decodes nothing."""
        return _NothingGrows()


class _NothingGrows:
    decodes = False
    pending = 0
    unreadable = 0

    def unknown(self, known: str) -> int:
        """Return nothing."""
        del known
        return 0

    def feed(self, text: str) -> Iterable[str]:
        """Return nothing."""
        del text
        return ()

    def finish(self) -> Iterable[str]:
        """Return nothing."""
        return ()


class AblatedGuard(msgspec.Struct, frozen=True):
    """One guard to compare: its parts, how its scores are ordered, if its threshold holds."""

    name: str
    bundle: Bundle
    cascade: Cascade
    decoder: TextDecoder
    ranked: Ranked
    calibrated: bool = True


def variants(bundle: Bundle, beside: Mapping[str, Bundle]) -> list[AblatedGuard]:
    """Return the guards to compare: this bundle's, it without each part, and other bundles."""
    cascade = bundle.cascade
    own = ranking(cascade, ItemSide.REPLY)
    views = ViewDecoder()
    found = [
        AblatedGuard("as it is", bundle, cascade, views, own),
        AblatedGuard("no decoded views", bundle, cascade, _NoViews(), own),
    ]
    if cascade.has_stage2:
        alone = msgspec.structs.replace(
            cascade, prompt=_asks_always(cascade, ItemSide.PROMPT), reply=_asks_always(cascade)
        )
        found += [
            AblatedGuard("stage 1 alone", bundle, cascade, views, _by_stage1, calibrated=False),
            AblatedGuard("stage 2 alone", bundle, alone, views, _by_final, calibrated=False),
        ]
    if cascade.probe is not None:
        found.append(
            AblatedGuard("probe alone", bundle, cascade, views, _by_probe, calibrated=False)
        )
    for name, other in beside.items():
        ranked = ranking(other.cascade, ItemSide.REPLY)
        found.append(AblatedGuard(name, other, other.cascade, views, ranked))
    return found


def _asks_always(cascade: Cascade, surface: ItemSide = ItemSide.REPLY) -> Thresholds:
    given = cascade.prompt if surface is ItemSide.PROMPT else cascade.reply
    return msgspec.structs.replace(given, escalate=_ALWAYS, weights=(0.0, 1.0, 0.0))


def _by_stage1(score: Score) -> float:
    return _NO_LOGIT if score.stage1 is None else score.stage1


def _by_final(score: Score) -> float:
    return _NO_LOGIT if score.final is None else score.final


def _by_probe(score: Score) -> float:
    return _NO_LOGIT if score.probe is None else score.probe


def encoded(items: Iterable[EvalItem]) -> list[EvalItem]:
    """Return some of the restricted items in encodings that a model can be told to write."""
    restricted = [item for item in items if item.label is Label.RESTRICTED]
    step = max(1, len(restricted) // _ENCODED)
    found: list[EvalItem] = []
    for item in restricted[::step][:_ENCODED]:
        for name in _ENCODINGS:
            text = ENCODINGS[name](item.reply)
            found.append(
                msgspec.structs.replace(
                    item,
                    key=f"{item.key}:{name}",
                    slice=f"encoded {name}",
                    prompt=user_says(text),
                    reply=text,
                )
            )
    return found


def compare(
    sources: Sequence[DataFile],
    bundle: Bundle,
    beside: Mapping[str, Bundle],
    cache: ScoreCache,
    progress: Progress,
    listener: ProbedModel | None = None,
) -> tuple[Ablation, ...]:
    """Return the figures of every variant on the same items, as streamed replies.

    Scores are kept as they come, so a killed run goes on where it stopped.

    Raises:
        DataError: There is no restricted or no benign item to compare by.
    """
    items = [item for source in sources for item in source.items]
    labels = {item.label for item in items}
    if not {Label.RESTRICTED, Label.BENIGN} <= labels:
        raise DataError("ablations need restricted and benign items; one of them is missing")
    shown = [*items, *encoded(items)]
    data = hashlib.sha256("".join(source.sha256 for source in sources).encode()).hexdigest()
    code = code_digest()
    plain = len(items)
    found = []
    kept: dict[tuple[str, int, int], list[JudgedItem]] = {}
    for variant in variants(bundle, beside):
        # Stage 1 alone is read off the scores of the whole guard.
        same = (variant.bundle.digest, id(variant.cascade), _kind(variant.decoder))
        if same not in kept:
            examiner = Examiner(variant.cascade, variant.bundle.stage2, variant.decoder, listener)
            progress.start(f"ablation: {variant.name}", len(shown))
            run = run_key(variant.bundle.digest, data, code, f"ablation {_parts(variant)}")
            kept[same] = [*_examined(examiner, shown, cache, run, progress)]
        found.append(_ablation(variant, kept[same][:plain], kept[same][plain:]))
    return tuple(found)


def _kind(decoder: TextDecoder) -> int:
    return int(isinstance(decoder, _NoViews))


def _parts(variant: AblatedGuard) -> str:
    """Name what gives the scores, whatever the variant is called."""
    cascade = variant.cascade
    parts = (cascade.prompt, cascade.reply, cascade.has_stage2, cascade.probe is not None)
    return f"{_kind(variant.decoder)} {parts}"


def _examined(
    examiner: Examiner, items: Sequence[EvalItem], cache: ScoreCache, run: str, progress: Progress
) -> Iterator[JudgedItem]:
    for item in items:
        scores = cache.get(run, item.key)
        if scores is None:
            scores = examiner.examine(item)
            cache.put(run, item.key, scores)
        yield JudgedItem(item, scores)
        progress.advance()


def _ablation(
    variant: AblatedGuard, plain: Sequence[JudgedItem], hidden: Sequence[JudgedItem]
) -> Ablation:
    def of(*labels: Label) -> list[Score]:
        return scores_on((e for e in plain if e.item.label in labels), ItemSide.REPLY)

    restricted, benign = of(Label.RESTRICTED), of(Label.BENIGN, Label.OTHER_DOMAIN)
    calls = sum(score.escalations for score in restricted + benign)

    def flagged(scores: Sequence[Score]) -> Frequency | None:
        if not variant.calibrated or not scores:
            return None
        return Frequency.of(Rate(sum(score.blocked for score in scores), len(scores)))

    return Ablation(
        variant=variant.name,
        separation=separation(
            "restricted texts",
            "all benign",
            ItemSide.REPLY,
            [variant.ranked(score) for score in restricted],
            [variant.ranked(score) for score in benign],
        ),
        restricted_flagged=flagged(restricted),
        benign_flagged=flagged(benign),
        encoded_flagged=flagged(scores_on(hidden, ItemSide.REPLY)),
        stage2_calls_per_item=round(calls / max(1, len(restricted) + len(benign)), 3),
    )
