"""Documents of standards: TOML text to values, checked, with the digest that acts name."""

import datetime as dt
import tomllib

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.errors import ConfigError
from safehold.toml_text import parse_toml
from safehold.trust.standing.interface import StandardsDocument


def parse_standards(text: str, where: str) -> StandardsDocument:
    """Return the document that a TOML text holds.

    Raises:
        ConfigError: It is no such document, or it contradicts its own words.
    """
    try:
        raw = parse_toml(text)
        effective = raw.get("effective")
        if type(effective) is dt.date:
            midnight = dt.datetime.combine(effective, dt.time(), dt.UTC)
            raw["effective"] = int(midnight.timestamp())
        document = msgspec.convert(raw, StandardsDocument)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{where}: {error}") from error
    problems = document_faults(document)
    if problems:
        raise ConfigError(f"{where}: {problems[0]}")
    return document


def document_faults(document: StandardsDocument) -> tuple[str, ...]:
    """Return where a document contradicts itself; empty when it does not."""
    said: list[str] = []
    known = [one.id for one in document.standards]
    thresholds = [one.id for one in document.thresholds]
    said += [
        f"standard {one} is defined twice" for one in sorted(set(known)) if known.count(one) > 1
    ]
    said += [
        f"threshold {one} is defined twice"
        for one in sorted(set(thresholds))
        if thresholds.count(one) > 1
    ]
    needs = [(one.id, need) for one in document.thresholds for need in one.requires]
    needs += [("baseline", need) for need in document.baseline]
    said += [
        f"{who} demands {need!r}, and no standard of that name is defined"
        for who, need in needs
        if need not in known
    ]
    return tuple(said)


def document_digest(document: StandardsDocument) -> str:
    """Return the SHA-256 of a document's canonical form: what acts name."""
    return sha256_hex(canonical(document))
