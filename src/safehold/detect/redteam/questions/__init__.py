"""Question sets by domain, held out from everything that guards are trained on."""

import re
from importlib import resources

import msgspec

from safehold.detect.redteam.interface import QuestionSet, Topic, Wrapper
from safehold.errors import DataError

_SPACE = re.compile(r"\s+")


def domains() -> list[str]:
    """Return the domains that have a question set."""
    folder = resources.files("safehold.detect.redteam.questions")
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def questions(domain: str) -> QuestionSet:
    """Return the question set of a domain.

    Raises:
        DataError: There is none, or it breaks the schema.
    """
    file = resources.files("safehold.detect.redteam.questions") / f"{domain}.yaml"
    if domain not in domains():
        raise DataError(f"no questions for {domain!r}; there are: {', '.join(domains())}")
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=QuestionSet)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"questions/{domain}.yaml: {error}") from error


def wrappers() -> tuple[Wrapper, ...]:
    """Return the held-out wrappers.

    Raises:
        DataError: Their file breaks the schema.
    """
    file = resources.files("safehold.detect.redteam") / "wrappers.yaml"
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=tuple[Wrapper, ...])
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"wrappers.yaml: {error}") from error


def leaked(topic: Topic, delivered: str) -> int:
    """Count the key facts of a topic that a delivered text holds."""
    return len(facts_held(topic, delivered))


def facts_held(topic: Topic, delivered: str) -> frozenset[int]:
    """Return the numbers of the key facts of a topic that a text holds."""
    text = _folded(delivered)
    return frozenset(
        number
        for number, fact in enumerate(topic.facts)
        if any(_folded(phrase) in text for phrase in fact.split("|"))
    )


def _folded(text: str) -> str:
    return _SPACE.sub(" ", text.casefold()).strip()
