"""From labelled exchanges to what the trainers read."""

import random
from collections.abc import Iterable, Sequence

import msgspec

from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.guard.session.segments import (
    PIECE,
    WHOLE,
    pieces,
    reading,
    segments,
    sentences,
)
from safehold.improve.synthesis.families import told_by_user
from safehold.improve.synthesis.interface import GENERAL, Example, Side, Split
from safehold.improve.training.interface import LabelledPair, LabelledText

_ASKED = 0.5
"""Weight of a request that replies are learnt from."""
_WITH_PROMPT = 0.5
"""The share of replies that are read with their prompt."""

_WINDOW_WORDS = (30, 85)
_WINDOW_CHARS = (50, 150)
_LONG_WORD = 12
"""Characters between blanks from which a text is one of a language that writes none."""
_MOST_WINDOWS = 2
_LONG_PROMPT = 150
"""Characters from which a permitted prompt is as good as a reply for learning what is harmless."""
_PASTED = 0.25
"""Share of the stretches of replies that stage 2 also reads as if somebody had pasted them."""
_SENTENCE = 0.5
"""Share of the permitted English texts of which a sentence alone is shown as a part of a prompt."""
_DEALT = 0.06
"""Share of short prompts that are shown as dealt over turns, a few words on each line."""
_TALKED = 4
"""Written permitted requests to one made-up conversation of them, of which joined turns are shown.
"""
_MESSAGES = (2, 8)
_BESIDE = 0.35
"""Share of the written requests that are shown again beside another text of the same language."""
_IN_LINES = 0.35
"""Share of the restricted ones that are shown again in lines of a few words; half of the others."""
_HALF = 0.5
_OVER_TURNS = 0.2
"""Share of the written requests that are shown again as dealt over turns with chatter between."""
_WORDS_A_TURN = (2, 3, 4, 5, 6)
_HELD = 0.8
"""Share of a dealt request's words that a joined text holds if it is one of it."""
_TURNING = "preamble"
"""Augmentation whose replies begin harmlessly: only their end carries the label."""


def of_split(examples: Iterable[Example], split: Split) -> list[Example]:
    """Return the examples of one split."""
    return [example for example in examples if example.split is split]


def passes(
    examples: Sequence[Example], epochs: int, own_epochs: int, general: float, *, seed: int
) -> list[list[Example]]:
    """Return what each pass over the data reads: all of it, unless the package's text is most.

    Where it is more than `general` times the class's own, a pass reads so much of it, another part
    of it each time until all was read, and there are `own_epochs` of them.
    """
    packaged = [one for one in examples if one.lineage.generator == GENERAL]
    own = [one for one in examples if one.lineage.generator != GENERAL]
    most = round(general * len(own))
    if not packaged or len(packaged) <= most:
        return [list(examples) for _ in range(epochs)]
    random.Random(f"{seed}/passes").shuffle(packaged)
    turned = packaged * (-(-most * own_epochs // len(packaged)) + 1)
    return [[*own, *turned[at * most : (at + 1) * most]] for at in range(own_epochs)]


def prompt_texts(examples: Sequence[Example], *, seed: int) -> list[LabelledText]:
    """Return what the prompt head of stage 1 learns from: prompts, and replies as if pasted."""
    rng = random.Random(f"{seed}/prompts")
    asks = _asks(examples)
    whole = [
        LabelledText(_shown(example, asks, rng), example.side is Side.RESTRICTED)
        for example in examples
        if _prompt_is_labelled(example)
    ]
    parts = [
        LabelledText(text, restricted=False, weight=0.5)
        for example in examples
        if (text := _sentence(example, rng))
    ]
    again = [
        LabelledText(text, one is not None and one.side is Side.RESTRICTED, weight=0.5)
        for text, one in shown_again(examples, rng)
    ]
    return whole + parts + again + _stretches(examples, seed=seed, weight=0.5)


def reply_texts(examples: Sequence[Example], *, seed: int) -> list[LabelledText]:
    """Return what the reply head of stage 1 learns from: replies whole and in part, long prompts.

    Permitted prompts are more various than permitted replies; a scorer that knew the replies alone
    would doubt whatever they never speak of.
    """
    whole = [
        LabelledText(example.reply, example.side is Side.RESTRICTED)
        for example in examples
        if example.reply
    ]
    prompts = [
        LabelledText(said, restricted=False, weight=0.5)
        for example in examples
        if example.side is Side.PERMITTED and len(said := _said(example.exchange)) > _LONG_PROMPT
    ]
    asked = [LabelledText(text, one, weight=_ASKED) for text, one in requests_of_own(examples)]
    return whole + _stretches(examples, seed=seed, weight=0.7) + prompts + asked


def requests_of_own(examples: Sequence[Example]) -> list[tuple[str, bool]]:
    """Return the written requests of somebody's own class, which its replies are learnt from too.

    A generator answers a few dozen times, while the constitution names what the class is about in
    hundreds of requests: replies that were judged by those answers alone would hardly know the
    subject's words. Permitted requests with the same names stand beside the restricted ones.
    Without the package's general text it is no class of somebody's own, and there are none.
    """
    if not any(one.lineage.generator == GENERAL for one in examples):
        return []
    found = (
        (told_by_user(one), one.side is Side.RESTRICTED)
        for one in examples
        if one.lineage.generator != GENERAL and _is_written(one)
    )
    return list(dict.fromkeys(found))


def _stretches(examples: Sequence[Example], *, seed: int, weight: float) -> list[LabelledText]:
    rng = random.Random(seed)
    return [
        LabelledText(window, example.side is Side.RESTRICTED, weight)
        for example in examples
        if example.reply
        for window in _windows(example.reply, rng, tail=_TURNING in example.lineage.chain)
    ]


def pairs(examples: Sequence[Example], clauses: Sequence[str], *, seed: int) -> list[LabelledPair]:
    """Return what stage 2 learns from: prompts alone, and stretches of replies beside prompts.

    Some of the stretches stand alone too: a passage that is pasted as a prompt is what it is.

    Sentences of permitted texts are shown as prompts too, since that is how documents are read.

    A stretch is shown with its own prompt half of the time and without any otherwise, so that the
    reply must be judged by what it says.
    """
    rng = random.Random(seed)
    asks = _asks(examples)
    found: list[LabelledPair] = []
    for example in examples:
        clause = clauses.index(example.clause) if example.side is Side.RESTRICTED else -1
        if _prompt_is_labelled(example):
            said = _shown(example, asks, rng)
            piece = said if len(said) <= PIECE else rng.choice(pieces(said))
            found.append(LabelledPair(said[-2 * PIECE :] if clause >= 0 else piece, "", clause))
        if part := _sentence(example, rng):
            found.append(LabelledPair(part, "", -1))
        if example.reply:
            turning = _TURNING in example.lineage.chain
            for window in _windows(example.reply, rng, tail=turning):
                prompt = reading(example.exchange) if rng.random() < _WITH_PROMPT else ""
                found.append(LabelledPair(prompt, window, clause))
                if rng.random() < _PASTED:
                    found.append(LabelledPair(window, "", clause))
    for text, one in shown_again(examples, rng):
        own = one is not None and one.side is Side.RESTRICTED
        found.append(LabelledPair(text, "", clauses.index(one.clause) if own and one else -1))
    of_own = {told_by_user(one): one.clause for one in examples if one.side is Side.RESTRICTED}
    found += [
        LabelledPair("", text, clauses.index(of_own[text]) if restricted else -1)
        for text, restricted in requests_of_own(examples)
    ]
    return _balanced(found)


def shown_again(
    examples: Sequence[Example], rng: random.Random
) -> list[tuple[str, Example | None]]:
    """Return written requests once more, as sessions meet them inside something else.

    A request stays what it is beside a harmless text of its language, and a restricted one in lines
    of a few words. Harmless ones stay harmless however a session joins the turns that said them
    (None: several together). Passages are long and requests short: without this, most of what
    stage 2 reads in training are passages.
    """
    written = [one for one in examples if _is_written(one)]
    harmless = [one for one in written if one.side is Side.PERMITTED]
    by_language: dict[str, list[str]] = {}
    for one in harmless:
        by_language.setdefault(one.language, []).append(told_by_user(one))
    found: list[tuple[str, Example | None]] = []
    for one in written:
        said, roll = told_by_user(one), rng.random()
        restricted = one.side is Side.RESTRICTED
        if roll < _BESIDE and (others := by_language.get(one.language)):
            both = [said, rng.choice(others)]
            rng.shuffle(both)
            found.append((rng.choice(("\n", " ", "\n\n")).join(both), one))
        elif roll < _BESIDE + _IN_LINES:
            if restricted or rng.random() < _HALF:
                found.append((_in_lines(said, rng), one))
        elif restricted:
            found.append((said, one))
        if rng.random() < _OVER_TURNS and (
            over := _over_turns(said, by_language.get(one.language, []), rng)
        ):
            found.append((over, one))
    for _ in range(len(harmless) // _TALKED):
        own = by_language[rng.choice(harmless).language]
        said_before = [rng.choice(own) for _ in range(rng.randint(*_MESSAGES))]
        turns = tuple(
            Turn(role=Role.USER, parts=(TextPart(text=said),)) for said in said_before if said
        )
        joined = [one.text for one in segments(Exchange(turns=turns)) if one.turn < 0]
        some = rng.sample(joined, k=min(2, len(joined)))
        found += [(rng.choice(pieces(text)), None) for text in some]
    return found


def _is_written(example: Example) -> bool:
    """Whether it is a request of one short message as it was written or generated."""
    return (
        not example.lineage.chain
        and len(example.exchange.turns) == 1
        and _prompt_is_labelled(example)
        and 0 < len(told_by_user(example)) <= WHOLE
    )


def _in_lines(said: str, rng: random.Random) -> str:
    """Return a text in lines of a few words, or characters where no blanks stand between words."""
    units, glue = _units(said)
    few = rng.choice((2, 3, 4, 6)) * (1 if glue else 2)
    return "\n".join(glue.join(units[at : at + few]) for at in range(0, len(units), few))


def _over_turns(said: str, chatter: Sequence[str], rng: random.Random) -> str:
    """Return a text that a session joins of turns into which a request was dealt, chatter between.

    Of all such texts that hold most of the request it is one of the shorter half; "" for none.
    """
    units, glue = _units(said)
    few = rng.choice(_WORDS_A_TURN) * (1 if glue else 2)
    dealt = [glue.join(units[at : at + few]) for at in range(0, len(units), few)]
    if len(dealt) <= 1 or not chatter:
        return ""
    ways = rng.choice(("{0} {1}", "{1} {0}", "{0}\n{1}", "{1}\n{0}", "{0}"))
    turns = tuple(
        Turn(role=Role.USER, parts=(TextPart(text=ways.format(part, rng.choice(chatter))),))
        for part in dealt
    )
    held = [
        (len(one.text), one.text)
        for one in segments(Exchange(turns=turns))
        if one.turn < 0 and sum(part in one.text for part in dealt) >= _HELD * len(dealt)
    ]
    texts = [text for _, text in sorted(held)]
    return rng.choice(texts[: (len(texts) + 1) // 2]) if texts else ""


def _prompt_is_labelled(example: Example) -> bool:
    return example.ask or example.side is Side.PERMITTED


def _shown(example: Example, asks: dict[str, str], rng: random.Random) -> str:
    """Return a text that a session scores for the prompt, one that carries the label.

    Of a permitted conversation it is any way in which the session joins the turns, since none of
    them may look restricted. Of a long restricted prompt it is a window around its request: the
    rest of it is harmless, and would teach that documents are not.
    """
    said = _said(example.exchange)
    if example.side is Side.PERMITTED:
        joined = [one.text for one in segments(example.exchange) if one.turn < 0]
        said = rng.choice(joined) if joined else said
    elif len(said) > WHOLE:
        ask = example.request or asks.get(example.lineage.parent or "", "")
        said = _around(said, ask, rng)
    if len(said) <= WHOLE and rng.random() < _DEALT:
        said = _in_lines(said, rng)
    return said


def _sentence(example: Example, rng: random.Random) -> str:
    """Return now and then a sentence of a permitted text: a document in a prompt is read by them.

    What comes before and after it is not seen, so an instruction says little of its subject. Texts
    of other languages than English are few, so each of them gives one.
    """
    text = example.reply or (told_by_user(example) if len(example.exchange.turns) == 1 else "")
    wanted = _SENTENCE if example.language == "en" else 1.0
    if example.side is Side.RESTRICTED or len(text) <= _LONG_PROMPT or rng.random() >= wanted:
        return ""
    found = sentences(text)
    return rng.choice(found) if found else ""


def _around(said: str, ask: str, rng: random.Random) -> str:
    """Return a stretch of a long text with a request in it; its end where it is not found."""
    at = said.casefold().find(ask.casefold()) if ask else -1
    if at < 0 or len(ask) > WHOLE:
        return said[-2 * PIECE :]
    room = rng.randint(0, WHOLE - len(ask))
    before = rng.randint(0, room)
    return said[max(0, at - before) : at + len(ask) + room - before]


def _asks(examples: Sequence[Example]) -> dict[str, str]:
    """Return what the user asked for, by the id of each example that others were made from."""
    return {one.id: one.request or told_by_user(one) for one in examples if not one.lineage.chain}


def _said(exchange: Exchange) -> str:
    """Return the longest text that a session scores for this prompt: what was said last."""
    texts = [segment.text for segment in segments(exchange)]
    return texts[-1] if texts else ""


def _windows(reply: str, rng: random.Random, *, tail: bool) -> list[str]:
    units, glue = _units(reply)
    low, high = _WINDOW_WORDS if glue else _WINDOW_CHARS
    if len(units) <= low:
        return [reply]
    windows = []
    for _ in range(max(1, min(_MOST_WINDOWS, len(units) // (2 * low)))):
        size = rng.randint(low, min(len(units), high))
        start = len(units) - size if tail else rng.randint(0, len(units) - size)
        windows.append(glue.join(units[start : start + size]))
    return windows


def _units(text: str) -> tuple[list[str], str]:
    """Return a text's words, or characters where it has no blanks between words, and the glue."""
    words = text.split()
    return (list(text), "") if len(words) * _LONG_WORD < len(text) else (words, " ")


def _balanced(found: list[LabelledPair]) -> list[LabelledPair]:
    """Weigh each of (restricted or not) x (prompt or reply) by the root of its scarcity."""
    counts: dict[tuple[bool, bool], int] = {}
    for pair in found:
        key = (pair.clause >= 0, bool(pair.reply))
        counts[key] = counts.get(key, 0) + 1
    most = max(counts.values(), default=1)
    return [
        msgspec.structs.replace(
            pair, weight=min(3.0, (most / counts[pair.clause >= 0, bool(pair.reply)]) ** 0.5)
        )
        for pair in found
    ]
