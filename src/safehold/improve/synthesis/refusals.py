"""Data for the operator's own fine-tuning: a model that refuses beside a guard that blocks.

Chat rows teach what to say, pairs what to prefer (the form that preference trainers read: `prompt`,
`chosen`, `rejected`, each a list of messages). For each restricted row both hold a permitted one
near the class and a general one: a model that is only taught to refuse refuses what is near as
well, and one that sees no ordinary request answered refuses those too.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import msgspec

from safehold.errors import DataError
from safehold.exchange import Role, TextPart
from safehold.improve.synthesis.interface import Example, Side, Split

CHAT = "refusal-chat.jsonl"
PAIRS = "refusal-pairs.jsonl"
HELD_OUT = "refusal-test.jsonl"

Said = dict[str, str]


class ChatRow(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that ends with what the model should say."""

    messages: tuple[Said, ...]
    side: Side
    clause: str


class PairRow(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation with the better and the worse end."""

    prompt: tuple[Said, ...]
    chosen: tuple[Said, ...]
    rejected: tuple[Said, ...]
    side: Side
    clause: str


class RefusalData(msgspec.Struct, frozen=True, kw_only=True):
    """The rows to train on, and those to measure on, which no row to train on is related to."""

    chat: tuple[ChatRow, ...]
    pairs: tuple[PairRow, ...]
    held_out: tuple[ChatRow, ...]


def refusal_data(
    examples: Sequence[Example], refusals: Sequence[str], general: Iterable[str], *, seed: int
) -> RefusalData:
    """Return the rows that a dataset gives; equal inputs give equal rows.

    Args:
        examples: A dataset, all splits.
        refusals: What the model may say instead, at least one.
        general: The permitted clauses that stand for everything else; the others are near.
        seed: Of the choice of refusals and of permitted rows.

    Raises:
        DataError: There is no restricted request or no permitted answer to train on.
    """
    if not refusals:
        raise DataError("expected at least one refusal")
    ordinary = frozenset(general)
    chat, pairs = _rows(examples, Split.TRAIN, refusals, ordinary, seed)
    if not {Side.RESTRICTED, Side.PERMITTED} <= {row.side for row in chat}:
        raise DataError("the train split has no restricted request or no permitted answer")
    held_out, _ = _rows(examples, Split.TEST, refusals, ordinary, seed)
    return RefusalData(chat=tuple(chat), pairs=tuple(pairs), held_out=tuple(held_out))


def write_refusals(folder: Path, data: RefusalData) -> dict[str, str]:
    """Write the three files, and return their digests by name."""
    digests = {}
    for name, rows in ((CHAT, data.chat), (PAIRS, data.pairs), (HELD_OUT, data.held_out)):
        body = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        (folder / name).write_bytes(body)
        digests[name] = hashlib.sha256(body).hexdigest()
    return digests


def _rows(
    examples: Sequence[Example],
    split: Split,
    refusals: Sequence[str],
    general: frozenset[str],
    seed: int,
) -> tuple[list[ChatRow], list[PairRow]]:
    own = [one for one in examples if one.split is split and _said(one)]
    asking = [one for one in own if one.side is Side.RESTRICTED and one.ask]
    answered = [one for one in own if one.side is Side.PERMITTED and _plain_reply(one)]
    rng = random.Random(f"{seed}/{split}/refusals")
    asking.sort(key=lambda one: one.id)
    answered.sort(key=lambda one: hashlib.sha256(one.id.encode()).digest())
    chat: list[ChatRow] = []
    pairs: list[PairRow] = []
    for one in asking:
        refusal = _assistant(rng.choice(refusals))
        prompt = _said(one)
        chat.append(ChatRow(messages=(*prompt, refusal), side=one.side, clause=one.clause))
        if _plain_reply(one):
            pairs.append(
                PairRow(
                    prompt=prompt,
                    chosen=(refusal,),
                    rejected=(_assistant(one.reply),),
                    side=one.side,
                    clause=one.clause,
                )
            )
    refused = len(pairs)
    for at, one in enumerate(_both_kinds(answered, general, max(len(asking), 1))):
        prompt, answer = _said(one), _assistant(one.reply)
        chat.append(ChatRow(messages=(*prompt, answer), side=one.side, clause=one.clause))
        if at < 2 * refused:
            pairs.append(
                PairRow(
                    prompt=prompt,
                    chosen=(answer,),
                    rejected=(_assistant(rng.choice(refusals)),),
                    side=one.side,
                    clause=one.clause,
                )
            )
    return chat, pairs


def _both_kinds(
    answered: Sequence[Example], general: frozenset[str], each: int
) -> Iterable[Example]:
    """Return so many near and as many general ones by turns; general ones fill missing places."""
    near = [one for one in answered if one.clause not in general][:each]
    other = [one for one in answered if one.clause in general][: 2 * each - len(near)]
    both = chain.from_iterable(zip_longest(near, other))
    return [one for one in both if one is not None]


def _plain_reply(one: Example) -> bool:
    """Whether the reply is as it was written: a mangled one must not be taught or preferred."""
    return bool(one.reply) and not one.lineage.chain


def _said(one: Example) -> tuple[Said, ...]:
    """Return the conversation as chat messages; empty where it is none that a trainer reads."""
    messages: list[Said] = []
    for turn in one.exchange.turns:
        if turn.role not in {Role.SYSTEM, Role.USER, Role.ASSISTANT}:
            return ()
        text = "\n".join(part.text for part in turn.parts if isinstance(part, TextPart))
        messages.append({"role": turn.role.value, "content": text})
    if not messages or messages[-1]["role"] != Role.USER.value or not messages[-1]["content"]:
        return ()
    return tuple(messages)


def _assistant(text: str) -> Said:
    return {"role": Role.ASSISTANT.value, "content": text}
