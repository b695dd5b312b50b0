"""Texts to answer an incident with: asks to dress, and a replay of what the guard was trained on.

They come from a dataset of `safehold synth`, or from the domain's seed books alone, which takes
seconds. Families never cross a split, so what is held out here was never learnt from.
"""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from safehold.constitution import Constitution
from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.improve.response.interface import Asks
from safehold.improve.synthesis import dataset
from safehold.improve.synthesis.families import split_of
from safehold.improve.synthesis.interface import Example, Side, Split
from safehold.improve.synthesis.phrasebook import phrasebook
from safehold.improve.synthesis.written import WrittenGenerator
from safehold.improve.training.examples import of_split, pairs, prompt_texts
from safehold.improve.training.interface import LabelledPair, LabelledText

_MOST_ASK = 300
_WRAPPED = 5
"""One in so many of the seed books' prompts is also put into a frame of the phrase book."""


class Corpus(msgspec.Struct, frozen=True):
    """Examples by split."""

    train: tuple[Example, ...]
    calibrate: tuple[Example, ...]
    test: tuple[Example, ...]

    def asks(self) -> Asks:
        """Return asks of both sides: the training split's to learn from, the test split's held."""
        learnt, held = _plain(self.train), _plain(self.test)
        return Asks(
            restricted=learnt[Side.RESTRICTED],
            permitted=learnt[Side.PERMITTED],
            held_restricted=held[Side.RESTRICTED],
            held_permitted=held[Side.PERMITTED],
            gate_permitted=_plain(self.calibrate)[Side.PERMITTED],
        )

    def replay(self, count: int, seed: int) -> list[LabelledText]:
        """Return a sample of what the prompt head learnt from, the same for equal seeds."""
        texts = prompt_texts(self.train, seed=seed)
        return random.Random(f"{seed}/replay").sample(texts, min(count, len(texts)))

    def pairs(self, clauses: Sequence[str], seed: int) -> list[LabelledPair]:
        """Return what stage 2 learnt from, of the clauses that it knows."""
        known = [one for one in self.train if one.side is Side.PERMITTED or one.clause in clauses]
        return pairs(known, clauses, seed=seed)

    def benign_replies(self, count: int, seed: int) -> list[str]:
        """Return permitted replies of the calibration split."""
        found = sorted({one.reply for one in self.calibrate if one.side is Side.PERMITTED})
        found = [reply for reply in found if reply]
        return random.Random(f"{seed}/replies").sample(found, min(count, len(found)))

    def benign(self, count: int, seed: int) -> list[str]:
        """Return permitted prompts of the calibration split."""
        found = [text for texts in self.benign_slices().values() for text in texts]
        return random.Random(f"{seed}/benign").sample(found, min(count, len(found)))

    def benign_slices(self) -> dict[str, tuple[str, ...]]:
        """Return the calibration split's permitted prompts by clause, each once."""
        found: dict[str, dict[str, None]] = {}
        for one in self.calibrate:
            if one.side is Side.PERMITTED and said(one):
                found.setdefault(one.clause, {})[said(one)] = None
        return {clause: tuple(texts) for clause, texts in sorted(found.items())}


def of_dataset(folder: Path) -> Corpus:
    """Return the corpus of a dataset."""
    return _corpus(list(dataset.read(folder)))


def of_seed_books(constitution: Constitution, seed: int) -> Corpus:
    """Return the corpus of a domain's seed books, some of it in the phrase book's frames.

    Raises:
        DataError: The package ships no books for the domain.
    """
    base = [
        msgspec.structs.replace(one, split=split_of(one.family))
        for one in WrittenGenerator(constitution.name, constitution.digest).generate(seed=seed)
    ]
    frames = phrasebook().frames
    framed = [
        msgspec.structs.replace(
            one,
            exchange=user_says(frames[number % len(frames)].replace("<<ask>>", said(one))),
            lineage=msgspec.structs.replace(one.lineage, chain=("frame",)),
        )
        for number, one in enumerate(base[::_WRAPPED])
        if (one.ask or one.side is Side.PERMITTED) and len(said(one)) <= _MOST_ASK
    ]
    return _corpus([*base, *framed])


def _corpus(examples: Sequence[Example]) -> Corpus:
    parts = {split: tuple(of_split(examples, split)) for split in Split}
    found = Corpus(
        train=parts[Split.TRAIN], calibrate=parts[Split.CALIBRATE], test=parts[Split.TEST]
    )
    asks = found.asks()
    if not all((asks.restricted, asks.permitted, asks.held_restricted, asks.held_permitted)):
        raise DataError("the corpus needs restricted and permitted asks to train on and to hold")
    return found


def _plain(examples: Iterable[Example]) -> dict[Side, tuple[str, ...]]:
    found: dict[Side, list[str]] = {side: [] for side in Side}
    for one in examples:
        text = said(one)
        short = 0 < len(text) <= _MOST_ASK and not one.lineage.chain
        if short and (one.ask or one.side is Side.PERMITTED):
            found[one.side].append(text)
    return {side: tuple(dict.fromkeys(texts)) for side, texts in found.items()}


def said(example: Example) -> str:
    """Return what the last turn of an example says."""
    turns = example.exchange.turns
    return "\n".join(part.text for part in type(example.exchange)(turns[-1:]).texts())
