"""What share of restricted replies reaches stage 2, by stage 1 alone, and at what escalation.

`SAFEHOLD_EVAL_DATA=DIR python -m bench.reach` prints a table: restricted passages and recipes by
group and language, streamed token by token, at the bundle's own threshold of escalation, and at
the one which lets 6 % of the general texts through. Nothing is chosen with it: the second
threshold is only there to be compared with other first stages at an equal cost. Without the
variable the project's own texts are read alone, at the bundle's threshold.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import yaml
from bench.tables import Table

from safehold.detect.redteam.questions import questions
from safehold.errors import DataError
from safehold.guard.bundle.load import load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.scorers.interface import StreamScorer
from safehold.guard.scorers.tokens import tokens
from safehold.improve.evaluation.interface import Label
from safehold.improve.evaluation.items import read_items
from safehold.improve.evaluation.parts import DataPart, part_of
from safehold.stats import lower_bound, upper_bound

DOMAIN = "homebrewing"
ESCALATED = 0.06
_GENERAL = ("benign_chat_long.jsonl", "benign_multilingual.jsonl")
_RESTRICTED = "restricted_brew.jsonl"
_OWN = Path(__file__).parent / "guard_own" / "recipes.yaml"


class Reached(msgspec.Struct, frozen=True):
    """A text's group, and the highest logit that stage 1 gave it as a reply that streams."""

    group: str
    general: bool
    logit: float


def highest(stage1: StreamScorer, text: str) -> float:
    """Return the highest logit of a reply that comes token by token."""
    lane = stage1.open_reply()
    return max((lane.feed([token]) for token in tokens(text)), default=-np.inf)


def own(stage1: StreamScorer) -> Iterator[Reached]:
    """Yield the project's own restricted replies: recipes by language, passages of the red team."""
    for language, texts in yaml.safe_load(_OWN.read_text("utf-8")).items():
        group = "own recipes, English" if language == "en" else "own recipes, 16 other languages"
        yield from (Reached(group, general=False, logit=highest(stage1, text)) for text in texts)
    for topic in questions(DOMAIN).topics:
        yield Reached(
            "the red team's passages", general=False, logit=highest(stage1, topic.passage)
        )


def public(stage1: StreamScorer, folder: Path) -> Iterator[Reached]:
    """Yield the public set's restricted passages and its general texts, by part."""
    for name in (_RESTRICTED, *_GENERAL):
        for item in read_items(folder / name, DOMAIN).items:
            part = part_of(item.origin).value
            if name == _RESTRICTED and item.label is Label.RESTRICTED:
                language = "English" if item.language == "en" else "Chinese"
                group = f"public passages, {language}"
                yield Reached(group, general=False, logit=highest(stage1, item.reply))
            elif item.label is Label.BENIGN:
                yield Reached(f"general, {part}", general=True, logit=highest(stage1, item.reply))


def table(found: list[Reached], threshold: float) -> Table:
    """Return what reaches stage 2 at the bundle's threshold, and at 6 % of the general texts."""
    general = sorted(one.logit for one in found if one.general)
    at = general[int(len(general) * (1 - ESCALATED))] if general else None
    rows = []
    for group in dict.fromkeys(one.group for one in found):
        own = [one for one in found if one.group == group]
        cells = [group, str(len(own))]
        for limit in (threshold, at):
            if limit is None:
                cells += ["-", "-"]
                continue
            hits = sum(one.logit >= limit for one in own)
            bound = (
                f"at most {upper_bound(hits, len(own)):.1%}"
                if own[0].general
                else f"at least {lower_bound(hits, len(own)):.1%}"
            )
            cells += [f"{hits / len(own):.1%}", bound]
        rows.append(tuple(cells))
    names = ("texts", "n", "at the bundle's threshold", "bound", "at 6 % of general", "bound")
    blind = sum(one.group == f"general, {DataPart.BLIND.value}" for one in found)
    return Table(
        "Replies that stage 1 sends to stage 2", names, tuple(rows),
        note=f"{len(general)} general texts, {blind} of the blind part; bounds exact, one-sided, "
        "95 %.",
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    bundle = load_bundle(*stock_bundle())
    stage1 = bundle.cascade.stage1
    if stage1 is None:
        raise SystemExit("this benchmark needs a bundle with a stage 1")
    found = list(own(stage1))
    named = os.environ.get("SAFEHOLD_EVAL_DATA")
    if named:
        folder = Path(named) / "dev2"
        if not folder.is_dir():
            raise DataError(f"{named}: expected a folder dev2")
        found += public(stage1, folder)
    print(table(found, bundle.cascade.reply.escalate).markdown())


if __name__ == "__main__":
    main()
