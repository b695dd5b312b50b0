"""Which texts of a prompt are scored: every part alone, parts and turns joined, every view.

A model reads the parts of a turn, and the turns of a role, one after the other, so a text that is
cut over them counts as the text it is: around each seam they are joined, as they are (a word was
cut) and with a blank (between words).
A long text is also scored in pieces and by its sentences, so that stage 2 can be shown what is hot
and a request can't hide in a long wrapper.
"""

import re
from collections.abc import Container, Iterator, Sequence

import msgspec

from safehold.exchange import Channel, Exchange, Role, TextPart
from safehold.guard.session.escapes import unescaped

PIECE = 600
"""Characters of a piece of a long text."""
READ = 1200
"""Characters of prompt that stage 2 is shown."""
WHOLE = 400
"""Characters of a request that stage 2 is shown at once."""
_SEAM = PIECE
"""Characters on each side of a seam that are joined."""
_BLOCK = 6_000
"""Characters that turns joined may have between the ends of what is found: as in a lane of a reply,
where the longest known attack and its stretch fit."""
_SENTENCES = 200
"""Characters from which a text's sentences are scored by themselves too."""
LONGEST = 240
"""Characters of the longest window of sentences, where a sentence ends in time."""
_ALONE = 30
_STOP = re.compile(r"[.!?:;](?=\s)\s+|[\u3002\uff01\uff1f\u0964]\s*|\n+")
_LEADS = 2
"""Texts before a request that it is read behind."""
_TURNS = 48
_WORDS = (3, 6)
_SHORT = 120
_GLUES = ("", " ")


class Segment(msgspec.Struct, frozen=True):
    """A text to score and the turn it came from (-1: several turns joined).

    One that is not `scored` is for written rules alone: its words are scored elsewhere.
    """

    text: str
    turn: int
    scored: bool = True


def segments(exchange: Exchange) -> Iterator[Segment]:
    """Yield the texts of a prompt: each part, the user's recent words, then what seams join."""
    yield from own_texts(exchange)
    yield from joined_texts(exchange)


def own_texts(exchange: Exchange, passed: Container[int] = ()) -> Iterator[Segment]:
    """Yield each part's text, but of the turns that were `passed`."""
    for index, turn in enumerate(exchange.turns):
        for part in () if index in passed else turn.parts:
            if isinstance(part, TextPart) and part.text.strip():
                yield Segment(part.text, index)
                if part.channel is Channel.TOOL_ARGUMENTS and "\\" in part.text:
                    yield Segment(unescaped(part.text), index)


def joined_texts(exchange: Exchange) -> Iterator[Segment]:
    """Yield the user's recent words, what they may be dealt from, and what seams join."""
    said = [part.text for part in exchange.texts(Role.USER) if part.text.strip()]
    if len(said) > 1:
        yield Segment("\n".join(said)[-2 * READ :], -1)
        for text in dealt(exchange):
            yield Segment(text, -1)
    yield from _met(exchange)


def _met(exchange: Exchange) -> Iterator[Segment]:
    """Yield what stands around the seams of each turn's parts, then of each role's turns."""
    heard: dict[Role, list[str]] = {}
    for index, turn in enumerate(exchange.turns):
        texts = [part.text for part in turn.parts if isinstance(part, TextPart) and part.text]
        heard.setdefault(turn.role, []).append(" ".join(texts))
        for joined in seams(texts):
            yield Segment(joined, index)
    for role, turns in heard.items():
        if role is not Role.ASSISTANT:
            for joined in seams(turns):
                yield Segment(joined, -1, scored=role is not Role.USER)


def seams(texts: Sequence[str]) -> list[str]:
    """Return what stands around the places where the texts meet, for each way to join them."""
    if len(texts) <= 1:
        return []
    found: dict[str, None] = {}
    for glue in _GLUES:
        whole = glue.join(texts)
        at, start, end = 0, 0, 0
        for text in texts[:-1]:
            at += len(text)
            if at - _SEAM > end:
                if end:
                    found[whole[start:end]] = None
                start = at - _SEAM
            at += len(glue)
            end = at + _SEAM
        found[whole[start:end]] = None
    return [text for whole in found for text in blocks(whole) if text.strip()]


def blocks(text: str) -> list[str]:
    """Return a long text in blocks that overlap by half, each of which stays when more is said.

    What lies within `_BLOCK` characters is whole in one of them: further apart no rule looks.
    """
    if len(text) <= 2 * _BLOCK:
        return [text]
    return [text[start : start + 2 * _BLOCK] for start in range(0, len(text) - _BLOCK, _BLOCK)]


def request(exchange: Exchange) -> tuple[str, int]:
    """Return the user's last turn, its parts joined, and the turn's number; ("", -1) for none."""
    for index in range(len(exchange.turns) - 1, -1, -1):
        turn = exchange.turns[index]
        if turn.role is Role.USER:
            parts = [part.text for part in turn.parts if isinstance(part, TextPart)]
            return "\n".join(parts), index
    return "", -1


def requests(exchange: Exchange) -> list[str]:
    """Return the last request in each way that its parts can meet: lines, one text, words."""
    _, last = request(exchange)
    if last < 0:
        return []
    parts = [part.text for part in exchange.turns[last].parts if isinstance(part, TextPart)]
    said = [text for text in parts if text]
    return [text for text in dict.fromkeys(glue.join(said) for glue in ("\n", *_GLUES)) if text]


def led(exchange: Exchange) -> list[str]:
    """Return a short last request behind the end of each text that stands before it.

    Those are the system's messages and the results of tools since the user spoke before: whoever
    cuts a request over them has it read as one.
    """
    text, last = request(exchange)
    if not text.strip() or len(text) > WHOLE:
        return []
    found: dict[str, None] = {}
    near = True
    for turn in reversed(exchange.turns[:last]):
        near = near and turn.role not in {Role.USER, Role.ASSISTANT}
        if turn.role is Role.SYSTEM or (near and turn.role is Role.TOOL):
            parts = [part.text for part in turn.parts if isinstance(part, TextPart)]
            before = " ".join(parts)[-WHOLE // 2 :]
            for glue in _GLUES if before.strip() else ():
                found[f"{before}{glue}{text}"] = None
    return list(found)[: _LEADS * len(_GLUES)]


def windows(text: str) -> list[str]:
    """Return what stage 2 reads of a request whatever stage 1 says of it.

    All of one of up to 800 characters in at most two windows; of a longer one the first and the
    last 200. Long windows of documents, which no request is, were most of what stage 2 got wrong.
    """
    if len(text) <= WHOLE:
        return [text]
    if len(text) <= 2 * WHOLE:
        return [text[:WHOLE], text[-WHOLE:]]
    return [text[: WHOLE // 2], text[-WHOLE // 2 :]]


def around(text: str, window: str) -> str:
    """Return what stands around a window of a text, 400 characters with it; "" if it is not in it.

    Of several places the first counts.
    """
    at = text.find(window)
    if at < 0 or window == text:
        return ""
    beside = max(0, (WHOLE - len(window)) // 2)
    return text[max(0, at - beside) : at + len(window) + beside]


def pieces(text: str) -> list[str]:
    """Return what a text is scored in: itself if it is short, overlapping pieces, its sentences.

    A piece of 600 characters tells of what a passage is about, a window of a sentence or two of
    what is asked inside it: a request can't hide in a wrapper of any length.
    """
    if len(text) <= PIECE:
        found = [text]
    else:
        step = PIECE // 2
        found = [text[start : start + PIECE] for start in range(0, len(text) - step, step)]
    return [*found, *sentences(text)] if len(text) > _SENTENCES else found


def sentences(text: str) -> list[str]:
    """Return windows of a text that begin at each sentence or line and end with one.

    Each holds at least one sentence and goes on while it is shorter than 100 characters; one of 30
    and more is a window by itself too. A sentence without an end is cut in overlapping windows of
    240.
    """
    starts = [0, *(match.end() for match in _STOP.finditer(text)), len(text)]
    cuts = [starts[0]]
    for start in starts[1:]:
        while start - cuts[-1] > LONGEST:
            cuts.append(cuts[-1] + LONGEST // 2)
        if start > cuts[-1]:
            cuts.append(start)
    found = []
    for at, start in enumerate(cuts[:-1]):
        end = at + 1
        while end < len(cuts) - 1 and cuts[end] - start < _SENTENCES // 2:
            end += 1
        window = text[start : cuts[end]].strip()
        if window:
            found.append(window)
        alone = text[start : cuts[at + 1]].strip()
        if end > at + 1 and len(alone) >= _ALONE:
            found.append(alone)
    return list(dict.fromkeys(found))


def dealt(exchange: Exchange) -> list[str]:
    """Return the texts that the user's turns may have been dealt into, without chatter between.

    The first three or six words of every turn together, the last ones, the first lines, the last
    lines, and the short turns alone: whoever deals a request puts its parts somewhere regular.
    """
    turns = [
        text
        for turn in exchange.turns
        if turn.role is Role.USER
        and (text := "\n".join(p.text for p in turn.parts if isinstance(p, TextPart)).strip())
    ][-_TURNS:]
    if len(turns) <= 1:
        return []
    lines = [[line for line in turn.splitlines() if line.strip()] for turn in turns]
    ways = (
        *([" ".join(turn.split(maxsplit=few)[:few]) for turn in turns] for few in _WORDS),
        *([" ".join(turn.rsplit(maxsplit=few)[-few:]) for turn in turns] for few in _WORDS),
        [part[0][:LONGEST] for part in lines],
        [part[-1][:LONGEST] for part in lines],
        [turn for turn in turns if len(turn) <= _SHORT],
    )
    whole = "\n".join(turns)[-2 * READ :]
    found = dict.fromkeys("\n".join(way)[-READ:] for way in ways if len(way) > 1)
    return [text for text in found if text not in whole]


def reading(exchange: Exchange) -> str:
    """Return the end of the conversation as stage 2 reads it beside a reply."""
    texts = [
        part.text
        for turn in exchange.turns
        for part in turn.parts
        if isinstance(part, TextPart) and turn.role is not Role.SYSTEM
    ]
    return "\n".join(texts)[-READ:]


def answered(exchange: Exchange) -> str:
    """Return the end of what the assistant said in its turns, so that a split answer adds up."""
    said: list[str] = []
    room = READ // 2
    for turn in reversed(exchange.turns):
        if turn.role is Role.ASSISTANT and room > 0:
            texts = (part.text for part in turn.parts if isinstance(part, TextPart)
                     and part.channel is Channel.TEXT)  # fmt: skip
            text = "\n".join(texts)[-room:]
            if text.strip():
                said.append(text)
                room -= len(text) + 1
    return "\n".join(reversed(said))


def joined_answer(before: str, reply: str) -> str:
    """Return the end of what was answered before and of a reply as one text; "" for no news.

    A reply that is as long as what stage 2 reads is read without what stood before it.
    """
    return f"{before}\n{reply}"[-READ:] if before and len(reply) < READ else ""
