"""One evaluation: data in, scores (resumed where there are some), report out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from safehold import __version__
from safehold.errors import DataError
from safehold.guard.bundle.load import Bundle
from safehold.guard.served.interface import ServedModel
from safehold.guard.session.cascade import Thresholds
from safehold.guard.session.decoding import ViewDecoder
from safehold.improve.evaluation import figures
from safehold.improve.evaluation.ablations import compare
from safehold.improve.evaluation.cache import ScoreCache, code_digest, open_cache, run_key
from safehold.improve.evaluation.interface import (
    Ablation,
    DataFile,
    EvalItem,
    EvaluationReport,
    ItemScores,
    ItemSide,
    JudgedItem,
    Label,
)
from safehold.improve.evaluation.items import data_files, read_items
from safehold.improve.evaluation.judging import SecondOpinion, judge_figures
from safehold.improve.evaluation.parts import DataPart
from safehold.improve.evaluation.scoring import Examiner, ProbedModel
from safehold.progress import Progress

SCORES = "scores.jsonl"
FAILURES = "failures.jsonl"
REPORT = "report.json"
_ABLATION_ITEMS = 120
"""Items of each file that the ablations use, evenly spaced, unless a limit says fewer."""


class EvaluationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do beside scoring everything with the whole guard."""

    limit: int | None = None
    stage1_only: bool = False
    ablations: bool = False
    part: DataPart | None = None


class Evaluated(msgspec.Struct, frozen=True):
    """The report, and the judged items that its pictures are drawn from."""

    report: EvaluationReport
    judged: tuple[JudgedItem, ...]


class Misjudged(msgspec.Struct, frozen=True):
    """A misjudged item by its place in the data, never its text."""

    item: str
    surface: ItemSide
    label: Label
    slice: str
    category: str
    blocked: bool
    rank: float


def evaluate(
    bundle: Bundle,
    data: Path,
    out: Path,
    settings: EvaluationSettings,
    progress: Progress,
    beside: Mapping[str, Bundle] | None = None,
    second: SecondOpinion | None = None,
    served: ServedModel | None = None,
) -> Evaluated:
    """Score the data, write `report.json`, `failures.jsonl` and `scores.jsonl`; return the figures.

    `served` is the model that a bundle's probe reads.

    Raises:
        DataError: A data file or the cache can't be used; the message says where.
    """
    paths, skipped = data_files(data)
    constitution = bundle.manifest.constitution
    # Every file is read before the first score, so that a bad line costs no waiting.
    sources = [read_items(path, constitution, settings.limit, settings.part) for path in paths]
    if not any(source.items for source in sources):
        raise DataError(f"{data}: nothing in it belongs to the {settings.part} part")
    if settings.stage1_only:
        bundle = without_stage2(bundle)
    out.mkdir(parents=True, exist_ok=True)
    listener = None if served is None else ProbedModel(served)
    with open_cache(out / SCORES) as cache:
        judged = tuple(_judged(bundle, sources, cache, settings, progress, listener))
        judge = None if second is None else judge_figures(second, sources, cache, progress)
        ablations: tuple[Ablation, ...] = ()
        if settings.ablations:
            few = [_few(path, constitution, settings.limit) for path in paths]
            ablations = compare(few, bundle, beside or {}, cache, progress, listener)
    report = EvaluationReport(
        safehold=__version__,
        bundle=bundle.manifest.name,
        bundle_digest=bundle.digest,
        constitution=constitution,
        code_digest=code_digest(),
        files={source.name: source.sha256 for source in sources},
        skipped=skipped,
        items=len(judged),
        headline=figures.headline(judged),
        slices=figures.grouped(judged, lambda entry: entry.item.slice),
        categories=figures.grouped(
            judged, lambda entry: f"{entry.item.slice}: {entry.item.category}"
        ),
        sources=figures.grouped(judged, lambda entry: entry.item.source),
        separations=figures.separations(judged, bundle.cascade),
        stops=figures.stops(judged),
        ablations=ablations,
        judge=judge,
        part=settings.part or "",
        limit=settings.limit,
        languages=figures.by_language(judged),
        lengths=figures.grouped(judged, figures.length_of),
    )
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (out / REPORT).write_bytes(encoded + b"\n")
    lines = [msgspec.json.encode(failure) + b"\n" for failure in failures(judged, bundle)]
    (out / FAILURES).write_bytes(b"".join(lines))
    return Evaluated(report, judged)


def without_stage2(bundle: Bundle) -> Bundle:
    """Return the bundle with its first stage deciding alone, at the bundle's own threshold.

    A cascade's stage 1 is calibrated to escalate, so this threshold is the escalation's.
    """
    cascade = bundle.cascade

    def alone(surface: ItemSide) -> Thresholds:
        given = cascade.prompt if surface is ItemSide.PROMPT else cascade.reply
        return msgspec.structs.replace(given, alone=min(given.alone, given.escalate))

    if not cascade.has_stage2:
        return bundle
    single = msgspec.structs.replace(
        cascade,
        has_stage2=False,
        prompt=alone(ItemSide.PROMPT),
        reply=alone(ItemSide.REPLY),
        probe=None,
    )
    return msgspec.structs.replace(bundle, cascade=single, stage2=None)


def _few(path: Path, constitution: str, limit: int | None) -> DataFile:
    return read_items(path, constitution, min(limit or _ABLATION_ITEMS, _ABLATION_ITEMS))


def _judged(
    bundle: Bundle,
    sources: Sequence[DataFile],
    cache: ScoreCache,
    settings: EvaluationSettings,
    progress: Progress,
    listener: ProbedModel | None,
) -> Iterator[JudgedItem]:
    examiner = Examiner(bundle.cascade, bundle.stage2, ViewDecoder(), listener)
    code = code_digest()
    variant = "stage1" if settings.stage1_only else "whole"
    for source in sources:
        progress.start(source.name, len(source.items))
        run = run_key(bundle.digest, source.sha256, code, variant)
        for item in source.items:
            yield JudgedItem(item, _scores(examiner, cache, run, item))
            progress.advance()


def _scores(examiner: Examiner, cache: ScoreCache, run: str, item: EvalItem) -> ItemScores:
    known = cache.get(run, item.key)
    if known is not None:
        return known
    scores = examiner.examine(item)
    cache.put(run, item.key, scores)
    return scores


def failures(judged: Sequence[JudgedItem], bundle: Bundle) -> Iterator[Misjudged]:
    """Yield what was misjudged, the clearest mistakes first."""
    found: list[Misjudged] = []
    for surface in ItemSide:
        ranked = figures.ranking(bundle.cascade, surface)
        for entry in judged:
            score, item = entry.scores.on(surface), entry.item
            if score is None or item.label in (Label.BOUNDARY, Label.TEMPLATE):
                continue
            if score.blocked is not (item.label is Label.RESTRICTED):
                found.append(
                    Misjudged(
                        item=item.key,
                        surface=surface,
                        label=item.label,
                        slice=item.slice,
                        category=item.category,
                        blocked=score.blocked,
                        rank=round(ranked(score), 4),
                    )
                )
    yield from sorted(found, key=lambda failure: -abs(failure.rank))
