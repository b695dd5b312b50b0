"""A domain's lexicon: the names of what is restricted in many languages, and ways to ask of it.

A scorer that never met a drink's name can't know that it is one. Synthesis crosses the names with
the asks of the same language, restricted and permitted alike, so that no name alone decides.
"""

from importlib import resources

import msgspec

from safehold.errors import ConfigError


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One language: (name, restricted clause) of each drink, and sentences with `{d}` and `{n}`."""

    drinks: tuple[tuple[str, str], ...]
    restricted: tuple[str, ...]
    permitted: tuple[str, ...]


class Lexicon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A domain's words by language; `permitted_clause` is what its permitted asks belong to."""

    permitted_clause: str
    languages: dict[str, Words]


def lexicon_of(domain: str) -> Lexicon | None:
    """Return the lexicon of a domain; None where none is written.

    Raises:
        ConfigError: The file breaks its schema.
    """
    content = _content(domain)
    if content is None:
        return None
    try:
        return msgspec.yaml.decode(content, type=Lexicon)
    except msgspec.DecodeError as error:
        raise ConfigError(f"lexicons/{domain}.yaml: {error}") from error


def _content(domain: str) -> bytes | None:
    file = resources.files("safehold.constitution") / "lexicons" / f"{domain}.yaml"
    return file.read_bytes() if file.is_file() else None
