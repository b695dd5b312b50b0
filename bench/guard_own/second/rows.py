"""The second set as rows to play: prompts, replies and whole conversations, each with its side.

A folder has the YAML files named below, in the layout of this one. What is composed (a procedure
dealt over turns, a conversation of single messages) is composed alike each time.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from safehold.exchange import Role

HERE = Path(__file__).parent
TURNS, CONVERSATIONS, PARTS = 8, 60, 5
"""Messages of a user in a permitted conversation, conversations of a kind, parts of a procedure."""
_SENTENCE = re.compile("(?<=[.;:!?])\\s+|(?<=[。\uff1b\uff1a])|\n")
_CLAUSE = re.compile("(?<=[.;:!?,])\\s+|(?<=[。、\uff1b\uff1a\uff0c])|\n")

Said = tuple[Role, str]


class Row(msgspec.Struct, frozen=True):
    """One item: the turns are played one after the other, `played` says from which on.

    `parts` are the turns that hold a dealt procedure: what passes of them is delivered.
    """

    group: str
    surface: str
    restricted: bool
    language: str
    category: str
    turns: tuple[Said, ...]
    parts: tuple[int, ...] = ()


def digest(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a folder's YAML files."""
    told = hashlib.sha256()
    for path in sorted(folder.glob("*.yaml")):
        told.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return told.hexdigest()


def rows(folder: Path) -> list[Row]:
    """Return every row of a folder."""
    return [
        *_prompts(folder, "requests", restricted=True),
        *_wrapped(folder, restricted=True),
        *_replies(folder, "recipes", restricted=True),
        *_dealt_requests(folder),
        *_dealt_recipes(folder),
        *_prompts(folder, "permitted", restricted=False),
        *_wrapped(folder, restricted=False),
        *_prompts(folder, "howtos", restricted=False),
        *_replies(folder, "howtos", restricted=False),
        *_prompts(folder, "facts", restricted=False),
        *_replies(folder, "facts", restricted=False),
        *_prompts(folder, "general", restricted=False),
        *_conversations(folder, "near", _texts(folder, "permitted")),
        *_conversations(folder, "general", _texts(folder, "general")),
    ]


def slice_of(found: Sequence[Row], limit: int | None) -> list[Row]:
    """Return at most `limit` rows of each group and surface, evenly spaced."""
    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        kinds.setdefault((row.group, row.surface), []).append(row)
    return [
        some[index * len(some) // count]
        for some in kinds.values()
        for count in [min(limit or len(some), len(some))]
        for index in range(count)
    ]


def _load(folder: Path, name: str) -> Any:  # noqa: ANN401 - YAML of this folder
    return yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))


def _leaves(folder: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield language, category and text."""
    for language, given in _load(folder, name).items():
        by_category = given if isinstance(given, dict) else {name: given}
        for category, texts in by_category.items():
            for text in texts:
                yield language, category, text


def _texts(folder: Path, name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for language, _, text in _leaves(folder, name):
        found.setdefault(language, []).append(text)
    return found


def _prompts(folder: Path, name: str, *, restricted: bool) -> Iterator[Row]:
    for language, category, text in _leaves(folder, name):
        yield Row(name, "prompt", restricted, language, category, ((Role.USER, text),))


def _replies(folder: Path, name: str, *, restricted: bool) -> Iterator[Row]:
    for language, category, text in _leaves(folder, name):
        yield Row(name, "reply", restricted, language, category, ((Role.ASSISTANT, text),))


def _wrapped(folder: Path, *, restricted: bool) -> Iterator[Row]:
    for number, one in enumerate(_load(folder, "wrapped"), start=1):
        for ask in one["restricted" if restricted else "permitted"]:
            said = one["wrapper"].replace("{ask}", ask)
            group = "wrapped requests" if restricted else "wrapped permitted"
            turns = ((Role.USER, said),)
            yield Row(group, "prompt", restricted, one["language"], f"wrapper {number}", turns)


def _turns(texts: Sequence[str]) -> tuple[Said, ...]:
    """Return texts as turns; the user begins."""
    return tuple((Role.ASSISTANT if at % 2 else Role.USER, text) for at, text in enumerate(texts))


def _dealt_requests(folder: Path) -> Iterator[Row]:
    for one in _load(folder, "dealt"):
        turns = _turns(one["turns"])
        group = "dealt requests"
        yield Row(group, "conversation", True, one["language"], one["clause"], turns)


def _dealt_recipes(folder: Path) -> Iterator[Row]:
    chatter = _load(folder, "chatter")
    for language, clause, text in _leaves(folder, "recipes"):
        if language in chatter:
            turns, parts = _dealt(text, chatter[language], _chance(text))
            group = "dealt recipes"
            yield Row(group, "conversation", True, language, clause, turns, parts)


def _dealt(
    text: str, chatter: dict[str, Any], chance: random.Random
) -> tuple[tuple[Said, ...], tuple[int, ...]]:
    """Deal a procedure over turns, with chatter in each and two turns of chatter between."""
    said: list[str] = []
    parts: list[int] = []
    chats = itertools.cycle(chance.sample(chatter["chat"], len(chatter["chat"])))
    for number, part in enumerate(cut(text)):
        asked, answered = next(chats)
        said += [f"{asked} {chance.choice(chatter['next'])}", f"{answered} {part}"]
        parts.append(len(said) - 1)
        if number in {1, 3}:
            said += next(chats)
    return _turns(said), tuple(parts)


def cut(text: str) -> list[str]:
    """Cut a procedure into PARTS parts of like length, at sentences or, where few, at commas."""
    pieces = [piece for piece in _SENTENCE.split(text) if piece.strip()]
    if len(pieces) < 2 * PARTS:
        pieces = [piece for piece in _CLAUSE.split(text) if piece.strip()]
    whole, done = sum(map(len, pieces)), 0
    parts: dict[int, list[str]] = {}
    for piece in pieces:
        parts.setdefault((done + len(piece) // 2) * PARTS // whole, []).append(piece)
        done += len(piece)
    return [" ".join(part) for part in parts.values()]


def _conversations(folder: Path, kind: str, pool: dict[str, list[str]]) -> Iterator[Row]:
    group = f"{kind} conversations"
    written = _load(folder, f"threads_{kind}")
    for one in written:
        turns = _turns(one["turns"])
        yield Row(group, "conversation", False, one["language"], "written", turns)
    many = sorted(language for language, texts in pool.items() if len(texts) >= TURNS)
    answers = _answers(folder, kind)
    for number in range(CONVERSATIONS - len(written) if many else 0):
        language = many[number % len(many)]
        chance = _chance(f"{kind}/{number}")
        said: list[str] = []
        for text in chance.sample(pool[language], TURNS):
            said += [text, chance.choice(answers.get(language) or answers["en"])]
        turns = _turns(said)
        yield Row(group, "conversation", False, language, "composed", turns)


def _answers(folder: Path, kind: str) -> dict[str, list[str]]:
    """Return what an assistant says in a composed conversation: chatter; near it, how-tos too."""
    chatter = _load(folder, "chatter")
    found = {language: [said for _, said in one["chat"]] for language, one in chatter.items()}
    if kind == "near":
        for name in ("howtos", "facts"):
            for language, texts in _texts(folder, name).items():
                found.setdefault(language, []).extend(texts)
    return found


def _chance(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - drawn again alike, no secret
