"""Passages made of the constitution's own names, for a class whose generator gave little.

`frames/work.txt` holds steps of work that fit any subject, `frames/talk.txt` what is said of things
without working on them, `frames/things.txt` things of other subjects. Steps with a name of the
lexicon are restricted; the same steps with another thing, and talk with the same name, are
permitted. None of the three tells the sides apart alone: neither the steps, nor the names. Such
passages are only learnt from: nothing is calibrated or measured on them.
"""

import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources

from safehold.constitution import ClauseRole, Constitution, LexiconEntry
from safehold.constitution.lint.training import SLOT
from safehold.exchange import user_says
from safehold.improve.synthesis.crafts import drawn, told_in_form
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.synthesis.prompts import LEADS
from safehold.improve.synthesis.subject import SubjectWords

CROSSED = "crossed"
_LANGUAGE = "en"
_PASSAGES = 90
"""Restricted passages of a clause; there are as many of each kind of twin."""
_STEPS = (3, 8)
_PARTS = re.compile(r"[,;:.]|\band\b|\bor\b")
_PART_WORDS = 3
_OTHER_NAME = 0.3
"""Share of the steps of a passage that name something else of the same subject."""
_FORMS = 6
_WORK = re.compile(r"\w+ing\b|\b(?:it|them|why|what|which|how|not)\b")
"""What a phrase holds that is no name of a thing."""


class CrossedText:
    """Yields passages for each English entry of the lexicon, and none where there is none."""

    name = CROSSED

    def __init__(self, constitution: Constitution, passages: int = _PASSAGES) -> None:
        """Take the constitution, and how many restricted passages a clause gets."""
        self._constitution = constitution
        self._passages = passages
        self._general = [c.id for c in constitution.permitted if c.role is ClauseRole.GENERAL]

    def generate(self, *, seed: int) -> Iterator[Example]:
        """Yield each restricted passage with its two twins, all of the training split."""
        subject = SubjectWords(self._constitution)
        things = [one for one in _lines("things") if not subject.touches(f" {one} ")]
        for at, entry in enumerate(self._constitution.lexicon):
            if entry.language == _LANGUAGE and entry.names and self._general:
                yield from self._of(entry, f"{at:02}", things, seed)

    def _of(
        self, entry: LexiconEntry, label: str, things: Sequence[str], seed: int
    ) -> Iterator[Example]:
        rng = random.Random(f"{seed}/{CROSSED}/{label}")
        names = [*entry.names, *self._parts(entry.clause)]
        for number in range(self._passages):
            name = names[number % len(names)]
            foreign = rng.choice(things)
            steps = rng.sample(_lines("work"), k=rng.randint(*_STEPS))
            talk = rng.sample(_lines("talk"), k=rng.randint(*_STEPS))
            form, draws = rng.randrange(_FORMS), rng.getrandbits(32)
            for side, clause, kind, frames, own, others in (
                (Side.RESTRICTED, entry.clause, "work", steps, name, names),
                (Side.PERMITTED, self._general[0], "else", steps, foreign, things),
                (Side.PERMITTED, entry.near, "talk", talk, name, names),
            ):
                told = told_in_form(
                    _filled(frames, own, others, random.Random(draws)),
                    _LANGUAGE, form, random.Random(draws),
                )  # fmt: skip
                one = f"{self.name}/{label}-{number:03}"
                yield Example(
                    id=f"{one}-{kind}",
                    family=one,
                    split=Split.TRAIN,
                    side=side,
                    clause=clause,
                    exchange=user_says(LEADS[number % len(LEADS)]),
                    reply=told,
                    ask=False,
                    lineage=Lineage(
                        constitution=self._constitution.digest, generator=self.name, seed=seed
                    ),
                    language=_LANGUAGE,
                )

    def _parts(self, clause_id: str) -> list[str]:
        """Return the short phrases of what the clause's stages cover."""
        clause = self._constitution.clause(clause_id)
        stages = getattr(clause, "stages", ())
        covers = [one.covers for one in self._constitution.stages if one.id in stages]
        found = [part.strip().lower() for text in covers for part in _PARTS.split(text)]
        return [
            part
            for part in dict.fromkeys(found)
            if 0 < len(part.split()) <= _PART_WORDS and not _WORK.search(part)
        ]


def _filled(frames: Sequence[str], own: str, others: Sequence[str], rng: random.Random) -> str:
    told = []
    for at, frame in enumerate(frames):
        name = rng.choice(others) if at and rng.random() < _OTHER_NAME else own
        told.append(drawn(frame.replace(SLOT, name), rng))
    return " ".join(told)


@cache
def _lines(name: str) -> tuple[str, ...]:
    file = resources.files("safehold.improve.synthesis") / "frames" / f"{name}.txt"
    return tuple(line for line in file.read_text(encoding="utf-8").splitlines() if line)
