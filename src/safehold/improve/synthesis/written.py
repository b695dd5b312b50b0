"""The written generator: the seed books and the phrase bank, each item one base example."""

import random
from collections.abc import Iterator

import msgspec

from safehold.constitution.lexicon import lexicon_of
from safehold.exchange import Exchange, user_says
from safehold.improve.synthesis import seeds
from safehold.improve.synthesis.ask import ask_list
from safehold.improve.synthesis.conversation import assistant, user
from safehold.improve.synthesis.crafts import crafts
from safehold.improve.synthesis.crossings import crossings
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.synthesis.phrasebook import languages, talks, wrapped_pairs


class WrittenGenerator:
    """Yields what people wrote for this project about one domain."""

    name = "written"

    def __init__(self, domain: str, constitution: str) -> None:
        """Take the domain's name and the digest of its constitution, for the lineage."""
        self._domain = domain
        self._constitution = constitution

    def generate(self, *, seed: int) -> Iterator[Example]:
        """Yield every written item once, in an order that depends on the seed alone.

        Raises:
            DataError: The domain has no seed books, or one breaks the schema.
        """
        examples = [
            *self._from_books(seed),
            *self._from_languages(seed),
            *self._from_talks(seed),
            *self._from_wrapped(seed),
            *self._from_lexicon(seed),
            *self._from_crafts(seed),
            *self._from_crossings(seed),
        ]
        random.Random(seed).shuffle(examples)
        yield from examples

    def _from_books(self, seed: int) -> Iterator[Example]:
        decisions = ask_list(self._domain)
        for book in seeds.books(self._domain):
            restricted = book.side is Side.RESTRICTED
            for item in book.exchanges:
                yield Example(
                    id=f"{book.name}/{item.id}",
                    family=item.family,
                    split=Split.TRAIN,
                    side=book.side,
                    clause=book.clause,
                    exchange=user_says(item.prompt.strip()),
                    reply=item.reply.strip(),
                    ask=restricted and decisions.asks(item.id, item.prompt),
                    lineage=self._lineage(seed),
                    stage=item.stage,
                    language=item.language,
                )
            for ask in book.prompts:
                yield Example(
                    id=f"{book.name}/{ask.id}",
                    family=ask.family,
                    split=Split.TRAIN,
                    side=book.side,
                    clause=book.clause,
                    exchange=user_says(ask.text.strip()),
                    reply="",
                    ask=restricted,
                    lineage=self._lineage(seed),
                    stage=ask.stage,
                    language=ask.language,
                )

    def _from_languages(self, seed: int) -> Iterator[Example]:
        for language, bank in languages(self._domain).items():
            for side, rows in (
                (Side.RESTRICTED, bank.restricted),
                (Side.PERMITTED, bank.permitted),
            ):
                for number, (clause, text) in enumerate(rows):
                    yield Example(
                        id=f"languages/{language}-{side}-{number:02}",
                        family=f"language-{language}-{side}-{number:02}",
                        split=Split.TRAIN,
                        side=side,
                        clause=clause,
                        exchange=user_says(text),
                        reply="",
                        ask=side is Side.RESTRICTED,
                        lineage=self._lineage(seed),
                        language=language,
                    )

    def _from_talks(self, seed: int) -> Iterator[Example]:
        counts: dict[tuple[str, Side], int] = {}
        for language, own in talks(self._domain):
            for side, by_clause in (
                (Side.RESTRICTED, own.restricted),
                (Side.PERMITTED, own.permitted),
            ):
                for clause, texts in by_clause.items():
                    for text in texts:
                        number = counts[language, side] = counts.get((language, side), 0) + 1
                        name = f"{language}-{side}-{number:03}"
                        yield self._asked(
                            f"talks/{name}", clause, side, _talk(text), seed, language
                        )

    def _from_wrapped(self, seed: int) -> Iterator[Example]:
        for number, pair in enumerate(wrapped_pairs(self._domain)):
            for side, (clause, ask) in (
                (Side.RESTRICTED, pair.restricted),
                (Side.PERMITTED, pair.permitted),
            ):
                said = user_says(pair.text.replace("<<ask>>", ask).strip())
                example = self._asked(
                    f"wrapped/{number:03}-{side}", clause, side, said, seed, pair.language
                )
                # Both sides of a wrapper go to one split: it must not be learnt as one side's.
                yield msgspec.structs.replace(
                    example, family=f"wrapped-{number:03}", request=ask.strip()
                )

    def _asked(
        self, name: str, clause: str, side: Side, said: Exchange, seed: int, language: str
    ) -> Example:
        """Return a request without a reply, a family by itself."""
        return Example(
            id=name,
            family=name.replace("/", "-"),
            split=Split.TRAIN,
            side=side,
            clause=clause,
            exchange=said,
            reply="",
            ask=side is Side.RESTRICTED,
            lineage=self._lineage(seed),
            language=language,
        )

    def _from_lexicon(self, seed: int) -> Iterator[Example]:
        lexicon = lexicon_of(self._domain)
        if lexicon is None:
            return
        rng = random.Random(f"{seed}/lexicon")
        for language, words in lexicon.languages.items():
            for side, asks in (
                (Side.RESTRICTED, words.restricted),
                (Side.PERMITTED, words.permitted),
            ):
                for number, ask in enumerate(asks):
                    family = f"lexicon-{language}-{side}-{number:02}"
                    for which, (drink, clause) in enumerate(words.drinks):
                        yield Example(
                            id=f"lexicon/{language}-{side}-{number:02}-{which:02}",
                            family=family,
                            split=Split.TRAIN,
                            side=side,
                            clause=clause if side is Side.RESTRICTED else lexicon.permitted_clause,
                            exchange=user_says(
                                ask.replace("{d}", drink).replace("{n}", str(rng.randint(2, 30)))
                            ),
                            reply="",
                            ask=side is Side.RESTRICTED,
                            lineage=self._lineage(seed),
                            language=language,
                        )

    def _from_crafts(self, seed: int) -> Iterator[Example]:
        for number, craft in enumerate(crafts(seed)):
            told = number % 2 == 0
            yield Example(
                id=craft.id,
                family=craft.family,
                split=Split.TRAIN,
                side=Side.PERMITTED,
                clause="general",
                exchange=user_says("Please go on." if told else craft.text),
                reply=craft.text if told else "",
                ask=False,
                lineage=self._lineage(seed),
                language=craft.language,
            )

    def _from_crossings(self, seed: int) -> Iterator[Example]:
        for crossed in crossings(self._domain, seed):
            restricted = crossed.side is Side.RESTRICTED
            yield Example(
                id=crossed.id,
                family=crossed.family,
                split=Split.TRAIN,
                side=crossed.side,
                clause=crossed.clause,
                exchange=user_says("Please go on." if crossed.told else crossed.text),
                reply=crossed.text if crossed.told else "",
                ask=restricted and not crossed.told,
                lineage=self._lineage(seed),
                language=crossed.language,
            )

    def _lineage(self, seed: int) -> Lineage:
        return Lineage(constitution=self._constitution, generator=self.name, seed=seed)


def _talk(text: str) -> Exchange:
    """Return a conversation whose turns stand on lines, the user's first."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return Exchange(turns=tuple((assistant if at % 2 else user)(it) for at, it in enumerate(lines)))
