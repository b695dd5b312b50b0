"""The two halves of `safehold constitution neighbours`: out to a sheet, and back."""

import asyncio
from collections import Counter
from pathlib import Path

import msgspec

from safehold.cli._places import write_new
from safehold.errors import DataError, DependencyError, UsageError
from safehold.progress import Progress

try:
    from safehold.improve.synthesis.calls import CallBook
    from safehold.improve.synthesis.chat import ChatSettings, only_model
    from safehold.improve.synthesis.neighbours import (
        DECISIONS,
        propose,
        read_sheet,
        reviewed,
        sheet_csv,
        sheet_html,
    )
except ModuleNotFoundError as error:
    raise DependencyError("asking a model needs: pip install 'safehold[train]'") from error

_SEED = 1


class ModelAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which model proposes, and how many."""

    url: str
    model: str
    key: str
    batch: int
    timeout_s: float


def propose_to(name: str, sheet: Path, asked: ModelAsked, progress: Progress) -> int:
    """Write the sheets of what a model proposes, and return how many proposals there are.

    Raises:
        SafeholdError: The constitution, the model or the folder is wrong.
    """
    from safehold.constitution import admit_generator, load

    constitution = load(name)
    admit_generator(constitution, operator_owned=True)
    if not asked.url.startswith(("http://", "https://")):
        raise UsageError(f"--generator: expected a URL with http:// or https://, got {asked.url!r}")
    target = sheet / "neighbours.csv"
    if target.exists():
        raise UsageError(f"{target} exists, perhaps with decisions; choose another folder")
    settings = ChatSettings(
        url=asked.url,
        model=asked.model,
        key=asked.key,
        batch=asked.batch,
        max_tokens=1200,
        concurrency=1,
        timeout_s=asked.timeout_s,
    )
    if not settings.model:
        settings = msgspec.structs.replace(settings, model=asyncio.run(only_model(settings)))
    with CallBook(sheet) as book:
        found = propose(constitution, settings, book, seed=_SEED, progress=progress)
    (sheet / "neighbours.html").write_text(sheet_html(constitution, found), encoding="utf-8")
    target.write_text(sheet_csv(found), encoding="utf-8", newline="")
    return len(found)


def read_back(name: str, filled: Path, out: Path) -> dict[str, int]:
    """Write the constitution with the decisions in it, and return the number of each kind.

    Raises:
        SafeholdError: The sheet is broken, or the new file can't be written.
    """
    from safehold.constitution import load_document, stock

    if name in stock():
        raise UsageError(f"expected a constitution's file, got the stock one {name}")
    document = load_document(name)
    source = Path(name).read_text(encoding="utf-8-sig")
    try:
        sheet = filled.read_bytes()
    except OSError as error:
        raise DataError(f"{filled}: can't be read ({error.strerror})") from error
    decisions = read_sheet(sheet, document.constitution, name=str(filled))
    write_new(out, reviewed(document, source, decisions))
    counts = Counter(one.decision for one in decisions)
    return {decision: counts[decision] for decision in DECISIONS}
