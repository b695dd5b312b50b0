"""Labelled JSONL of any origin, read strictly: one clear error names the file and the line."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from safehold.errors import DataError
from safehold.exchange import Exchange, Role, TextPart, Turn, user_says
from safehold.improve.evaluation.interface import DataFile, EvalItem, Label
from safehold.improve.evaluation.parts import DataPart, part_of

NEUTRAL = user_says("Please go on.")
"""What a text without a conversation answers when it is shown as a reply."""
_NETWORK = "net_"
_DOMAIN = re.compile(r"standin_([a-z]+)_")
_ADJACENT = ("standin_", "neighbour_", "benign_adjacent")
_LABELS = {label.value: label for label in Label if label is not Label.OTHER_DOMAIN}


class _ItemMessage(msgspec.Struct, frozen=True):
    role: Role
    content: str


class _ItemLine(msgspec.Struct, frozen=True):
    """The fields that evaluation reads; data sets may have others beside them."""

    label: str | None = None
    text: str | None = None
    messages: tuple[_ItemMessage, ...] | None = None
    source: str = ""
    category: str = ""
    dataset: str = ""
    lang: str = ""


def data_files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a folder to score, and the names of the network data it skips.

    Raises:
        DataError: There is nothing to score.
    """
    found = [folder] if folder.is_file() else sorted(folder.rglob("*.jsonl"))
    skipped = tuple(path.name for path in found if path.name.startswith(_NETWORK))
    paths = [path for path in found if not path.name.startswith(_NETWORK)]
    if not paths:
        raise DataError(f"{folder}: expected .jsonl files with labelled texts, came none")
    return paths, skipped


def read_items(
    path: Path,
    constitution: str,
    limit: int | None = None,
    part: DataPart | None = None,
    *,
    unlabelled: Label | None = None,
) -> DataFile:
    """Return the items of a file; with `limit`, that many of them, evenly spaced.

    With `part`, only what comes from that part's repositories: there may be none. `unlabelled` is
    what a line without a label is; without it, such a line is an error.

    A file `standin_X_….jsonl` is about the domain X: what it calls restricted or boundary is so
    only for a constitution whose name contains X.

    Raises:
        DataError: The file can't be read, or a line is not a labelled item.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name}: can't be read ({error.strerror})") from error
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    items = [_item(path, number, line, constitution, unlabelled) for number, line in lines]
    if not items:
        raise DataError(f"{path.name}: expected labelled texts, came an empty file")
    if part is not None:
        items = [item for item in items if part_of(item.origin) is part]
    return DataFile(path.name, hashlib.sha256(content).hexdigest(), tuple(_spread(items, limit)))


def _spread(items: Sequence[EvalItem], limit: int | None) -> list[EvalItem]:
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def _item(
    path: Path, number: int, line: bytes, constitution: str, unlabelled: Label | None
) -> EvalItem:
    where = f"{path.name}, line {number}"
    try:
        given = msgspec.json.decode(line, type=_ItemLine)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # msgspec names the place and the kinds, never the content.
        raise DataError(f"{where}: not a labelled item: {error}") from error
    found = unlabelled if given.label is None else _LABELS.get(given.label)
    if found is None:
        expected = ", ".join(_LABELS)
        came = "none" if given.label is None else "another one"
        raise DataError(f"{where}: expected a label of {expected}; came {came}")
    label: Label = found
    domain = _DOMAIN.match(path.name)
    foreign = domain is not None and domain[1] not in constitution
    if foreign and label in (Label.RESTRICTED, Label.BOUNDARY):
        label = Label.OTHER_DOMAIN
    prompt, before, reply, answered = _shown(given, where)
    return EvalItem(
        key=f"{path.name}:{number}",
        label=label,
        slice=given.dataset or path.stem,
        category=given.category or "none",
        source=given.source.split("#")[0].split(":")[0] or path.stem,
        adjacent=path.name.startswith(_ADJACENT),
        origin=given.source,
        language=given.lang or "unnamed",
        prompt=prompt,
        before=before,
        reply=reply,
        # A restricted answer may follow an innocent question.
        asks=not (answered and label is Label.RESTRICTED),
    )


def _shown(given: _ItemLine, where: str) -> tuple[Exchange, Exchange, str, bool]:
    """Return the item as a prompt, what its reply answers, the reply, and if it had an answer."""
    if given.messages:
        turns = tuple(
            Turn(role=said.role, parts=(TextPart(text=said.content),)) for said in given.messages
        )
        if len(turns) > 1 and given.messages[-1].role is Role.ASSISTANT:
            before = Exchange(turns=turns[:-1])
            return before, before, given.messages[-1].content, True
        asked = [said.content for said in given.messages if said.role is Role.USER]
        return Exchange(turns=turns), NEUTRAL, "\n\n".join(asked), False
    if given.text and given.text.strip():
        return user_says(given.text), NEUTRAL, given.text, False
    raise DataError(f"{where}: expected a text or messages; came neither")
