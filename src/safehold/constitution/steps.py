"""The words of a restricted workflow's working steps, and the stages that each step shows.

A constitution names stages; what a text must hold to be about one is language. A domain's steps
give the beginnings of such words in many languages. They tell one stage from another in text that
a guard calls restricted; alone they say nothing, since a history of the craft has the same words.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Final

import msgspec

from safehold.constitution.interface import Constitution
from safehold.errors import ConfigError, ConstitutionError

_WHOLE: Final = "$"
_ENDS: Final = r"(?!\w)"
_UNSPACED: Final = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Scripts in which a word has no beginning that can be seen."""
_BEGINNING: Final = re.compile(rf"(?<!\w)\w|{_UNSPACED.pattern}")


class WorkflowStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A working step: the ids of the stages it shows, and beginnings of its words by language.

    A word that ends in `$` counts as a whole word alone. Case and width make no difference.
    """

    step: str
    stages: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]


class StepWords:
    """Finds the stages whose steps a text names."""

    def __init__(self, steps: Iterable[WorkflowStep]) -> None:
        """Sort the words by how they begin, so that a text is looked at once."""
        sorted_: dict[str, dict[frozenset[str], list[str]]] = {}
        for one in steps:
            for word in sorted({word for words in one.words.values() for word in words}):
                stem = _folded(word)
                by_stages = sorted_.setdefault(stem[: _key_size(stem)], {})
                by_stages.setdefault(frozenset(one.stages), []).append(stem)
        self._beginning = {
            key: tuple((ids, _pattern(stems)) for ids, stems in found.items())
            for key, found in sorted_.items()
        }

    def stages(self, text: str) -> frozenset[str]:
        """Return the ids of the stages that a text has a step of."""
        folded = _folded(text)
        found: set[str] = set()
        for begins in _BEGINNING.finditer(folded):
            at = begins.start()
            key = folded[at : at + _key_size(begins[0])]
            for ids, said in self._beginning.get(key, ()):
                if not ids <= found and said.match(folded, at):
                    found |= ids
        return frozenset(found)


def steps_of(domain: str) -> tuple[WorkflowStep, ...]:
    """Return the steps that the package ships for a domain; () where none are written.

    Raises:
        ConfigError: The file breaks its schema.
    """
    name = f"{domain}.steps.yaml"
    file = resources.files("safehold.constitution") / "lexicons" / name
    return read_steps(file.read_bytes(), source=name) if file.is_file() else ()


def read_steps(content: bytes, *, source: str) -> tuple[WorkflowStep, ...]:
    """Return the steps in a YAML document.

    Raises:
        ConfigError: It breaks the schema, or a step has no word.
    """
    try:
        found = msgspec.yaml.decode(content, type=tuple[WorkflowStep, ...])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{source}: {error}") from error
    for one in found:
        words = [word for some in one.words.values() for word in some]
        if not words or not all(word.removesuffix(_WHOLE).strip() for word in words):
            raise ConfigError(f"{source}: expected words for the step {one.step}, came none")
    return found


def check_steps(steps: Iterable[WorkflowStep], constitution: Constitution) -> None:
    """Refuse steps that show a stage which the constitution does not define.

    Raises:
        ConstitutionError: A step names an unknown stage.
    """
    defined = {stage.id for stage in constitution.stages}
    for one in steps:
        for name in one.stages:
            if name not in defined:
                raise ConstitutionError(
                    f"the step {one.step} shows {name}, which is no stage of {constitution.name}"
                )


def _key_size(stem: str) -> int:
    return 1 if _UNSPACED.match(stem) else 2


def _pattern(stems: Iterable[str]) -> re.Pattern[str]:
    return re.compile(
        "|".join(
            re.escape(stem.removesuffix(_WHOLE)) + (_ENDS if stem.endswith(_WHOLE) else "")
            for stem in stems
        )
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
