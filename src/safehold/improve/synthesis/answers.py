"""What a generator said, read strictly: repaired where that is safe, else refused with a reason."""

import re
from collections.abc import Callable
from enum import StrEnum

import msgspec

from safehold.improve.synthesis.monologue import spoken
from safehold.improve.synthesis.nonsense import loops, other_language

_LINE = re.compile(r"^\s*(?:\*\*)?(?:\d+\s*[.):]|[-*•])(?:\*\*)?\s*(.+?)\s*$")
_DECLINED = re.compile(
    "^\\W*(?:"
    "i['\u2019]?m (?:very |really )?sorry|sorry\\b|as an ai\\b|as a language model"
    "|unfortunately,? i\\b"
    "|i (?:can ?not|can['\u2019]t|won['\u2019]t|am (?:not able|unable))"
    "|i['\u2019]m (?:unable|not able)"
    "|es tut mir leid|je suis désolé|lo siento|mi dispiace|\u62b1\u6b49|\u7533\u3057\u8a33)",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"<!doctype|<html\b|<body\b|<head\b|<script\b|</(?:div|p|title)>", re.IGNORECASE
)
_FENCE = re.compile(r"^\s*```\w*\n(.*?)\n?```\s*$", re.DOTALL)
_OPENING = re.compile(
    r"^(?:sure|certainly|of course|absolutely|okay|here (?:is|are))\b[^\n]{0,120}[:!.]\s*\n+",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_NUMBER = re.compile(r"\W*\d+[.):]\W*|[-*•#]+")
"""The mark of a list item, which makes no sentence a new one."""
ASK_CHARS = (8, 600)
REPLY_CHARS = (120, 6000)
_DENSE = 0.33
"""Letters of a script without spaces say three times as much."""
_ECHO = 0.9
_LISTED_LETTERS = 0.5


class AnswerFault(StrEnum):
    """Why an answer is not used."""

    REFUSED = "refused"
    MARKUP = "markup"
    SHORT = "short"
    REPEATS = "repeats"
    ECHO = "echo"
    OFF_SUBJECT = "off subject"
    NO_LIST = "no list"
    SAID_BEFORE = "said before"
    OTHER_LANGUAGE = "other language"
    UNRELATED = "unrelated"
    REASONING = "reasoning"
    NOT_ACCEPTED = "not accepted"


class ReadAnswer(msgspec.Struct, frozen=True):
    """A usable text, or the reason why there is none."""

    text: str = ""
    fault: AnswerFault | None = None


def declines(text: str) -> bool:
    """Say whether a text begins as one that declines, in the manners of many models."""
    return bool(_DECLINED.match(text))


def read_list(answer: str, usable: Callable[[str], bool]) -> tuple[list[str], AnswerFault | None]:
    """Return the usable items of a list, each once, and why there are none where there are none.

    Numbered, bulleted and JSON lists are read; reasoning, fences and quotation marks taken off.
    """
    said = spoken(answer)
    if said is None:
        return [], AnswerFault.REASONING
    text = _unfenced(said)
    if _MARKUP.search(text):
        return [], AnswerFault.MARKUP
    if declines(text):
        return [], AnswerFault.REFUSED
    found = [item.strip("\"“”'*` ") for item in _items(text)]
    low, high = ASK_CHARS
    items = [item for item in dict.fromkeys(found) if low <= len(item) <= high]
    items = [item for item in items if _letters(item) and not declines(item) and not loops(item)]
    if not items:
        return [], AnswerFault.NO_LIST
    kept = [item for item in items if usable(item)]
    return kept, None if kept else AnswerFault.OFF_SUBJECT


def read_reply(
    answer: str, ask: str, *, cut: bool, language: str, on_subject: Callable[[str], bool]
) -> ReadAnswer:
    """Return the usable part of an answer: without reasoning, opening, unfinished end, repeats.

    A text that goes in circles all the same, or is in another language than asked, is not used.
    """
    said = spoken(answer)
    text = _unfenced(said or "").strip()
    fault = AnswerFault.MARKUP if _MARKUP.search(text) else None
    if declines(text):
        fault = AnswerFault.REFUSED
    if said is None:
        fault = AnswerFault.REASONING
    if fault is not None:
        return ReadAnswer(fault=fault)
    text = _OPENING.sub("", text, count=1)
    told = _once(_finished(text) if cut else text)
    low, high = REPLY_CHARS
    needed = low * _DENSE if _dense(text) else low
    if len(told) < needed:
        return ReadAnswer(fault=AnswerFault.REPEATS if len(text) >= needed else AnswerFault.SHORT)
    if _echo(told, ask):
        return ReadAnswer(fault=AnswerFault.ECHO)
    if loops(told):
        return ReadAnswer(fault=AnswerFault.REPEATS)
    if other_language(told, language):
        return ReadAnswer(fault=AnswerFault.OTHER_LANGUAGE)
    return (
        ReadAnswer(text=told[:high])
        if on_subject(told)
        else ReadAnswer(fault=AnswerFault.OFF_SUBJECT)
    )


def _items(text: str) -> list[str]:
    stripped = text.strip()
    if stripped.startswith("["):
        try:
            return list(msgspec.json.decode(stripped, type=list[str]))
        except (msgspec.ValidationError, msgspec.DecodeError):
            pass
    return [match[1] for line in text.splitlines() if (match := _LINE.match(line))]


def _unfenced(text: str) -> str:
    match = _FENCE.match(text)
    return match[1] if match else text


def _letters(item: str) -> bool:
    return sum(c.isalpha() or c.isspace() for c in item) >= _LISTED_LETTERS * len(item)


def _dense(text: str) -> bool:
    return len(text.split()) <= len(text) // 16


def _finished(text: str) -> str:
    """Return a text that was cut, up to its last whole sentence or line."""
    end = max(text.rfind(mark) for mark in (". ", ".\n", "! ", "? ", "\n", "。"))
    return text[: end + 1].rstrip() if end > 0 else text


def _once(text: str) -> str:
    """Return a text up to the first sentence that it has said twice before."""
    seen: dict[str, int] = {}
    at = 0
    for piece in _SENTENCE.split(text):
        start = text.find(piece, at) if piece else at
        key = " ".join(word for word in piece.casefold().split() if not _NUMBER.fullmatch(word))
        if key:
            seen[key] = seen.get(key, 0) + 1
            if seen[key] > 2:
                return text[:start].rstrip()
        at = start + len(piece)
    return text


def _echo(text: str, ask: str) -> bool:
    said, asked = set(text.casefold().split()), set(ask.casefold().split())
    return bool(said) and len(said & asked) >= _ECHO * len(said)
