"""Many texts like one: other asks in the same dress, other words in the dress, other transforms.

Restricted and permitted asks go into the same dress in equal number: a guard that saw the dress
with restricted asks alone learns that the dress is the crime (measured; docs/response.md).
"""

import random
from collections.abc import Callable, Sequence

import msgspec

from safehold.detect.redteam.interface import Wrapper
from safehold.detect.redteam.transforms import apply, instruction, survives
from safehold.improve.response.incident import SLOT
from safehold.improve.response.interface import Asks, Dress, Variant

_DEEPEST = 2
"""How many changes one variant is made by, at most."""
_SHOUTED = 0.3
"""Of the words whose case is changed, the share that is written in capitals."""
_SHORT = 5
"""A text of so few words loses none."""

_FILLERS = ("please", "now", "just", "well", "so", "then", "really", "kindly")
_MOST_ASK = 300
Rewriter = Callable[[str, int], str]
"""Says a text in other words; the second argument is a seed."""


class ProliferateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many variants: of each side to learn from, of each side held out.

    `twins` permitted ones are held out, if that is more: thresholds are set on them, and a dress
    may cost a point at most, which few texts can't tell.

    `edited` is the share of the dress's words that change; `chained` the share of variants whose
    ask goes through a transform more than the incident's.
    """

    learnt: int = 128
    held_out: int = 64
    twins: int = 0
    edited: float = 0.1
    chained: float = 0.15
    seed: int = 1


_MORE = ("leet", "spaced", "rot13", "base64", "reversed", "morse")


def variants(
    dress: Dress,
    asks: Asks,
    settings: ProliferateSettings,
    rewrite: Rewriter | None = None,
) -> list[Variant]:
    """Return variants of both sides, learnt and held out; equal settings give equal texts.

    A rewriter rewords the dress of one learnt variant in four; its answer counts only where the
    slot survived.
    """
    rng = random.Random(f"{settings.seed}/{dress.wrapper.text}")
    found: dict[str, Variant] = {}
    plan: list[tuple[Sequence[str], bool, bool, int]] = [
        (asks.restricted, True, False, settings.learnt),
        (asks.permitted, False, False, settings.learnt),
        (asks.held_restricted, True, True, settings.held_out),
        (asks.held_permitted, False, True, max(settings.held_out, settings.twins)),
    ]
    for pool, restricted, held_out, count in plan:
        made = 0
        for turn in range(4 * count):
            if made >= count or not pool:
                break
            ask = pool[rng.randrange(len(pool))][:_MOST_ASK]
            around = dress.wrapper.text
            if rewrite is not None and not held_out and turn % 4 == 0:
                around = _reworded(around, rewrite, settings.seed * 1_000 + turn)
            text = dressed(around, ask, _chain(dress, ask, rng, settings), rng, settings.edited)
            if text not in found:
                found[text] = Variant(text=text, restricted=restricted, held_out=held_out)
                made += 1
    return list(found.values())


def _reworded(around: str, rewrite: Rewriter, seed: int) -> str:
    fresh = rewrite(around, seed)
    return fresh if fresh.count(SLOT) == 1 else around


def _chain(
    dress: Dress, ask: str, rng: random.Random, settings: ProliferateSettings
) -> tuple[str, ...]:
    chain = dress.chain
    if len(chain) < _DEEPEST and rng.random() < settings.chained:
        chain = (rng.choice(_MORE), *chain) if chain else (rng.choice(_MORE),)
    return chain if survives(ask, chain) else dress.chain


def dressed(around: str, ask: str, chain: Sequence[str], rng: random.Random, edited: float) -> str:
    """Put an ask into a dress, some of whose words change."""
    told = instruction(tuple(chain))
    said = apply(ask, chain)
    said = f"{told}\n{said}" if told else said
    return Wrapper(family="", text=_edited(around, rng, edited)).around(said)


def gate_twins(dress: Dress, asks: Asks, count: int, seed: int) -> list[str]:
    """Return permitted asks in the same dress that nothing else uses."""
    rng = random.Random(f"{seed}/gate")
    picked = rng.sample(asks.gate_permitted, min(count, len(asks.gate_permitted)))
    return [dressed(dress.wrapper.text, ask[:_MOST_ASK], dress.chain, rng, 0.0) for ask in picked]


def _edited(around: str, rng: random.Random, share: float) -> str:
    """Change some words: capitals, a word dropped, a filler put in; the slots stay."""
    words = around.split(" ")
    for _ in range(round(len(words) * share)):
        at = rng.randrange(len(words))
        if "<<" in words[at] or not words[at]:
            continue
        kind = rng.randrange(3)
        if kind == 0:
            words[at] = words[at].upper() if rng.random() < _SHOUTED else words[at].capitalize()
        elif kind == 1 and len(words) > _SHORT and "\n" not in words[at]:
            words.pop(at)
        else:
            words.insert(at, rng.choice(_FILLERS))
    return " ".join(words)
