"""The words of a restricted workflow's working steps, and the stages that each step shows.

A constitution names stages; what a text must hold to be about one is language. A domain's steps
give the beginnings of such words in many languages. They tell one stage from another in text that
a guard calls restricted; alone they say nothing, since a history of the craft has the same words.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from importlib import resources
from itertools import chain
from typing import Final

import msgspec

from safehold.constitution.interface import Constitution
from safehold.errors import ConfigError, ConstitutionError

_WHOLE: Final = "$"
_BEGINS: Final = r"(?<!\w)"
_ENDS: Final = r"(?!\w)"
_UNSPACED: Final = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Scripts in which a word has no beginning that can be seen."""


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
        """Compile the steps' words: one search for each step."""
        self._steps = tuple(
            (frozenset(one.stages), _pattern(chain.from_iterable(one.words.values())))
            for one in steps
        )

    def stages(self, text: str) -> frozenset[str]:
        """Return the ids of the stages that a text has a step of."""
        folded = _folded(text)
        return frozenset().union(*(ids for ids, said in self._steps if said.search(folded)))


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


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    parts = []
    for word in sorted({*words}):
        stem = re.escape(_folded(word.removesuffix(_WHOLE)))
        begins = "" if _UNSPACED.search(word) else _BEGINS
        parts.append(begins + stem + (_ENDS if word.endswith(_WHOLE) else ""))
    return re.compile("|".join(parts))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
