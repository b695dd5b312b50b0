"""Base examples for an operator's own class: their seed books, the constitution, general text."""

import random
from collections.abc import Iterator
from pathlib import Path

from safehold.constitution import ClauseRole, Constitution
from safehold.constitution.lint.training import SLOT
from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.improve.synthesis import seeds
from safehold.improve.synthesis.crafts import crafts
from safehold.improve.synthesis.interface import (
    CONSTITUTION,
    GENERAL,
    Example,
    Lineage,
    Side,
    Split,
)
from safehold.improve.synthesis.seeds import SeedBook
from safehold.improve.synthesis.subject import SubjectWords


def _lineage(constitution: Constitution, generator: str, seed: int) -> Lineage:
    return Lineage(constitution=constitution.digest, generator=generator, seed=seed)


def _of_book(
    book: SeedBook, constitution: Constitution, generator: str, seed: int
) -> Iterator[Example]:
    """Yield the texts of a book; a prompt of a restricted exchange asks if it names the subject."""
    subject = SubjectWords(constitution)
    restricted = book.side is Side.RESTRICTED
    for item in book.exchanges:
        prompt = item.prompt.strip()
        yield Example(
            id=f"{generator}/{book.name}/{item.id}",
            family=f"{generator}/{item.family}",
            split=Split.TRAIN,
            side=book.side,
            clause=book.clause,
            exchange=user_says(prompt),
            reply=item.reply.strip(),
            ask=restricted and subject.holds(prompt, book.clause, item.stage, item.language),
            lineage=_lineage(constitution, generator, seed),
            stage=item.stage,
            language=item.language,
        )
    for ask in book.prompts:
        yield Example(
            id=f"{generator}/{book.name}/{ask.id}",
            family=f"{generator}/{ask.family}",
            split=Split.TRAIN,
            side=book.side,
            clause=book.clause,
            exchange=user_says(ask.text.strip()),
            reply="",
            ask=restricted,
            lineage=_lineage(constitution, generator, seed),
            stage=ask.stage,
            language=ask.language,
        )


class SeedFolder:
    """Yields the operator's own seed books."""

    name = "seeds"

    def __init__(self, constitution: Constitution, folder: Path) -> None:
        """Take the constitution and the folder of its books."""
        self._constitution = constitution
        self._folder = folder

    def generate(self, *, seed: int) -> Iterator[Example]:
        """Yield each text once.

        Raises:
            DataError: A book is broken; the message names file and line.
        """
        for book in seeds.folder_books(self._folder):
            yield from _of_book(book, self._constitution, self.name, seed)


class ConstitutionText:
    """Yields what the constitution itself holds: its asks, and its crossed lexicon."""

    name = CONSTITUTION

    def __init__(self, constitution: Constitution) -> None:
        """Take the constitution."""
        self._constitution = constitution

    def generate(self, *, seed: int) -> Iterator[Example]:
        """Yield each ask once, and each lexicon sentence with each name."""
        constitution = self._constitution
        for side in Side:
            for clause in getattr(constitution, side.value):
                for number, ask in enumerate(clause.asks):
                    family = f"asks-{clause.id}-{number:02}"
                    yield self._prompt(family, f"{family}", side, clause.id, ask, "en", seed)
        for at, entry in enumerate(constitution.lexicon):
            for side, asks, clause_id in (
                (Side.RESTRICTED, entry.restricted, entry.clause),
                (Side.PERMITTED, entry.permitted, entry.near),
            ):
                for number, ask in enumerate(asks):
                    family = f"lexicon-{at:02}-{side}-{number:02}"
                    for which, name in enumerate(entry.names):
                        text = ask.replace(SLOT, name)
                        one = f"{family}-{which:02}"
                        yield self._prompt(one, family, side, clause_id, text, entry.language, seed)

    def _prompt(
        self, name: str, family: str, side: Side, clause: str, text: str, language: str, seed: int
    ) -> Example:
        return Example(
            id=f"{self.name}/{name}",
            family=f"{self.name}/{family}",
            split=Split.TRAIN,
            side=side,
            clause=clause,
            exchange=user_says(text.strip()),
            reply="",
            ask=side is Side.RESTRICTED,
            lineage=_lineage(self._constitution, self.name, seed),
            language=language,
        )


class GeneralText:
    """Yields the package's text of ordinary use and of other work with amounts and steps.

    What touches the constitution's subject is left out.

    What the package calls general was written without a thought of the operator's class: a text
    about bread is general to everybody but a bakery's guard.
    """

    name = GENERAL

    def __init__(self, constitution: Constitution) -> None:
        """Take the constitution.

        Raises:
            DataError: It has no permitted clause with the role `general`.
        """
        general = [c.id for c in constitution.permitted if c.role is ClauseRole.GENERAL]
        if not general:
            raise DataError(
                f"constitution {constitution.name}: expected a permitted clause with role: "
                "general, for ordinary use of the model"
            )
        self._constitution = constitution
        self._clause = general[0]
        self.left_out = 0
        """Texts that touch the subject, once `generate` has run."""

    def generate(self, *, seed: int) -> Iterator[Example]:
        """Yield each text once."""
        subject = SubjectWords(self._constitution)
        self.left_out = 0
        for example in self._all(seed):
            said = " ".join(part.text for part in example.exchange.texts())
            if subject.touches(f"{said}\n{example.reply}"):
                self.left_out += 1
            else:
                yield example

    def _all(self, seed: int) -> Iterator[Example]:
        for book in seeds.shared_books(self._clause):
            yield from _of_book(book, self._constitution, self.name, seed)
        for book in seeds.foreign_books(self._clause, self._constitution.name):
            yield from _of_book(book, self._constitution, self.name, seed)
        examples = []
        for number, craft in enumerate(crafts(seed)):
            told = number % 2 == 0
            examples.append(
                Example(
                    id=f"{self.name}/{craft.id}",
                    family=f"{self.name}/{craft.family}",
                    split=Split.TRAIN,
                    side=Side.PERMITTED,
                    clause=self._clause,
                    exchange=user_says("Please go on." if told else craft.text),
                    reply=craft.text if told else "",
                    ask=False,
                    lineage=_lineage(self._constitution, self.name, seed),
                    language=craft.language,
                )
            )
        random.Random(seed).shuffle(examples)
        yield from examples
