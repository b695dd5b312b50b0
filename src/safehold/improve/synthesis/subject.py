"""What a constitution is about, by its words: is a text on the subject of a clause?

Names come from the lexicon, other words from the titles, policies, stages and asks of the clause.
Words are compared by their first letters, so that an ending decides nothing.
"""

import re
import unicodedata
from functools import cache, cached_property
from importlib import resources

from safehold.constitution import Constitution, PermittedClause, RestrictedClause
from safehold.constitution.lint.training import SLOT

_WORD = re.compile(r"[^\W\d_]+")
_STEM = 5
_SHORTEST = 4
_NEEDED = 2
"""Distinct words of the clause that put a text without a name on its subject."""


class SubjectWords:
    """The words of one constitution."""

    def __init__(self, constitution: Constitution) -> None:
        """Take the constitution."""
        self._constitution = constitution
        self._stages = {stage.id: stage.covers for stage in constitution.stages}

    def names(self, clause: str, language: str) -> tuple[str, ...]:
        """Return the names that the lexicon gives a restricted clause in a language."""
        return tuple(
            name
            for entry in self._constitution.lexicon
            if entry.clause == clause and entry.language == language
            for name in entry.names
        )

    def languages(self) -> tuple[str, ...]:
        """Return the lexicon's languages, each once, in order; English where there is none."""
        found = dict.fromkeys(entry.language for entry in self._constitution.lexicon)
        return tuple(found) or ("en",)

    def holds(
        self, text: str, clause: str, stage: str | None, language: str, *, least: int = _NEEDED
    ) -> bool:
        """Say whether a text is about a clause; true where nothing is known of the language.

        It is where it has a name of the lexicon, or `least` words of the clause: a long text should
        have two, a message may have one.
        """
        names = self.names(clause, language)
        if not names and language != "en":
            return True
        if _named(text, names):
            return True
        words = self._words(clause, stage)
        return not words or len(stems(text) & words) >= min(least, len(words))

    def touches(self, text: str) -> bool:
        """Say whether a text names what is restricted: a reason not to call it general.

        Without a lexicon it is decided by the words of the titles.
        """
        names = self._all_names
        if names:
            return _named(text, names)
        return len(stems(text) & self._titles) >= _NEEDED

    def crosses(self, text: str) -> bool:
        """Say whether a text that should be permitted is about what a restricted clause is called.

        Where the title has fewer than two words that carry a subject, nothing is said.
        """
        found = stems(text)
        titles = (stems(clause.title) for clause in self._constitution.restricted)
        return any(len(words) >= _NEEDED and words <= found for words in titles)

    def _words(self, clause_id: str, stage: str | None) -> frozenset[str]:
        clause: RestrictedClause | PermittedClause = self._constitution.clause(clause_id)
        said = [clause.title, clause.policy, clause.id.replace("-", " "), *clause.asks]
        if stage is not None:
            said += [stage.replace("-", " "), self._stages.get(stage, "")]
        elif isinstance(clause, RestrictedClause):
            said += [self._stages.get(one, "") for one in clause.stages]
        return stems(" ".join(said))

    @cached_property
    def _titles(self) -> frozenset[str]:
        said = [self._constitution.title, self._constitution.name.replace("-", " ")]
        said += [clause.title for clause in self._constitution.restricted]
        return stems(" ".join(said))

    @cached_property
    def _all_names(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(name for entry in self._constitution.lexicon for name in entry.names)
        )


def stems(text: str) -> frozenset[str]:
    """Return the beginnings of the words of a text that carry a subject."""
    words = (word for word in _WORD.findall(text.replace(SLOT, " ").casefold()))
    return frozenset(
        word[:_STEM] for word in words if len(word) >= _SHORTEST and word not in _common()
    )


@cache
def _common() -> frozenset[str]:
    """Return the words that say nothing about a subject."""
    file = resources.files("safehold.improve.synthesis") / "phrases" / "common-words.txt"
    return frozenset(file.read_text(encoding="utf-8").split())


def _named(text: str, names: tuple[str, ...]) -> bool:
    folded = unicodedata.normalize("NFKC", text).casefold()
    for name in names:
        key = unicodedata.normalize("NFKC", name).casefold().strip()
        at = folded.find(key) if key else -1
        while at >= 0:
            before = folded[at - 1] if at else " "
            # A script without spaces has no boundary before a word.
            if not before.isalnum() or ord(key[0]) >= 0x3040:
                return True
            at = folded.find(key, at + 1)
    return False
