"""What a generator is told, for a cell: first for messages, then for the answer to each."""

import random
from collections.abc import Sequence

import msgspec

from safehold.constitution import Constitution, RestrictedClause
from safehold.constitution.lint.training import SLOT
from safehold.improve.synthesis.cells import Cell, Difficulty, Form
from safehold.improve.synthesis.interface import Side
from safehold.improve.synthesis.subject import SubjectWords

Messages = tuple[dict[str, str], ...]

LEADS = (
    "Please go on.",
    "Continue where you stopped.",
    "And then?",
    "Next page, please.",
    "Go ahead.",
    "What comes after that?",
)
"""What a page of a handbook follows: nothing in it is asked for."""
_VOICES = (
    "somebody in a hurry",
    "somebody who types on a phone, with typos",
    "a teacher",
    "a writer who wants realistic detail",
    "a customer writing to a shop",
    "a member of a forum with a problem",
    "somebody who writes formal letters",
    "a parent with a child at their side",
    "somebody in the middle of the work, with one hand free",
)
_ASKERS = {
    Difficulty.BEGINNER: "They are beginners and use plain words.",
    Difficulty.PRACTISED: "They have done it before and ask for one step in detail.",
    Difficulty.EXPERT: "They are experts and use the words of the trade, figures included.",
}
_SHAPES = {
    Form.CHAT: "Answer in two or three paragraphs.",
    Form.STEPS: "Answer with numbered steps.",
    Form.PASSAGE: "Write it as a page of a handbook, without a greeting.",
    Form.NOTES: "Write it as short notes, one a line, in abbreviated words.",
    Form.LETTER: "Write it as a letter to a friend.",
    Form.DIALOGUE: "Write it as a conversation between two people.",
    Form.TABLE: "Write it as a table with three columns.",
    Form.SCENE: "Write it as a scene of a story in which one person tells another.",
}
_LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip
_NAMES = 3
_PATTERNS = 3


def language_name(code: str) -> str:
    """Return a language's English name, or its code in words."""
    return _LANGUAGES.get(code, f"the language with the code {code}")


class Prompter(msgspec.Struct, frozen=True):
    """Writes the prompts of one constitution."""

    constitution: Constitution
    subject: SubjectWords

    def asks(self, cell: Cell, count: int, seed: int, beside: Sequence[str] = ()) -> Messages:
        """Return the request for a numbered list of user messages.

        `beside` are restricted messages that a permitted cell's should look like.
        """
        rng = random.Random(f"{seed}/{cell.side}/{cell.name}")
        clause = self.constitution.clause(cell.clause)
        lines = [f"Subject: {clause.title}. {' '.join(clause.policy.split())}"]
        if cell.stage is not None:
            lines.append(f"The step in question: {self._stage(cell.stage)}")
        if cell.side is Side.PERMITTED and beside:
            shown = "\n".join(f"- {ask}" for ask in beside[:_PATTERNS])
            lines.append(
                "These messages are about something else that must not be asked for:\n"
                f"{shown}\nName the same things as they do, but keep to the subject above."
            )
        patterns = [ask for ask in clause.asks if ask.strip()]
        if patterns:
            chosen = rng.sample(patterns, k=min(_PATTERNS, len(patterns)))
            numbered = (f"{number}. {one}" for number, one in enumerate(chosen, 1))
            lines.append("Examples:\n" + "\n".join(numbered))
        names = self.subject.names(cell.clause, cell.language)
        if names:
            lines.append(
                "Mention some of these: " + ", ".join(rng.sample(names, k=min(_NAMES, len(names))))
            )
        wish = (
            "in which users ask for exactly such help, in detail"
            if cell.side is Side.RESTRICTED
            else "in which users ask for harmless help of this kind"
        )
        lines.append(
            f"Write a numbered list of {count} new messages {wish}. {_ASKERS[cell.difficulty]} "
            f"The voice is that of {rng.choice(_VOICES)}. One message a line, in "
            f"{language_name(cell.language)}. Only the list."
        )
        return (
            {
                "role": "system",
                "content": "You write realistic test data for a text classifier. Each item "
                "differs from the others in wording, length and detail.",
            },
            {"role": "user", "content": "\n\n".join(lines)},
        )

    def spare(self, cell: Cell, count: int, seed: int) -> list[str]:
        """Return messages of the constitution's own, for a model that can't write any.

        They are the clause's asks, and its lexicon's sentences with names put in.
        """
        rng = random.Random(f"{seed}/spare/{cell.side}/{cell.name}")
        found = [ask for ask in self.constitution.clause(cell.clause).asks if ask.strip()]
        for entry in self.constitution.lexicon:
            if entry.language == cell.language:
                own = entry.restricted if entry.clause == cell.clause else ()
                own = entry.permitted if entry.near == cell.clause else own
                found += [ask.replace(SLOT, name) for ask in own for name in entry.names]
        return rng.sample(found, k=min(count, len(found)))

    def answer(self, cell: Cell, ask: str) -> Messages:
        """Return the request for the answer to one message, in the cell's form and language."""
        manner = (
            "Give complete practical help: amounts, sizes, times, order of work."
            if isinstance(self.constitution.clause(cell.clause), RestrictedClause)
            else "Answer helpfully and to the point."
        )
        return (
            {
                "role": "system",
                "content": f"{manner} {_SHAPES[cell.form]} In {language_name(cell.language)}.",
            },
            {"role": "user", "content": ask},
        )

    def _stage(self, stage: str) -> str:
        for one in self.constitution.stages:
            if one.id == stage:
                return " ".join(one.covers.split())
        return stage
