"""Is the prompt of a restricted exchange a restricted request itself, or an innocent lead-in?

"Go on" before a restricted passage must not be learnt as a restricted prompt. The decision is a
word list of the domain and decisions by a reader, both data under `phrases/`; in doubt the answer
is no, since a missing positive costs less than a poisoned one.
"""

import re
from importlib import resources

import msgspec

from safehold.errors import DataError


class AskList(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The decisions for one domain."""

    words: tuple[str, ...]
    marks: tuple[str, ...] = ()
    asking: tuple[str, ...] = ()
    innocent: tuple[str, ...] = ()

    def asks(self, seed_id: str, prompt: str) -> bool:
        """Say whether the prompt with this seed id is a request for the restricted thing."""
        if seed_id in self.innocent:
            return False
        if seed_id in self.asking:
            return True
        if set(seed_id.split("-")) & set(self.marks):
            return False
        return bool(self._pattern().search(prompt.casefold()))

    def _pattern(self) -> re.Pattern[str]:
        words = "|".join(re.escape(word.casefold()) for word in self.words)
        # A CJK word has no boundary before it; every other one begins a word.
        return re.compile(rf"(?:(?<![^\W_])|(?<=[\u3040-\u9fff]))(?:{words})")


def ask_list(domain: str) -> AskList:
    """Return the decisions for a domain.

    Raises:
        DataError: There are none, or they break the schema.
    """
    name = f"ask-{domain}.yaml"
    file = resources.files("safehold.improve.synthesis") / "phrases" / name
    if not file.is_file():
        raise DataError(f"{name} is missing: which prompts of {domain!r} are requests themselves?")
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=AskList)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"{name}: {error}") from error
