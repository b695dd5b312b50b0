"""Cases: reading, and the lint that keeps bare numbers and broken arguments out."""

import re
import tomllib
import unicodedata
from importlib import resources
from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.govern.report.interface import Node, NodeKind, ReportError, SafetyCase
from safehold.toml_text import parse_toml

REFERENCE = re.compile(r"\{([a-z0-9._:-]+)\.([a-z0-9_]+)\}")
_NAME = re.compile(r"\b[A-Z][A-Za-z]*-?\d{1,4}(?:-\d{1,3})?\b(?![.,]?\d|\s?%)")
"""A name with digits, such as `ASL-3`, `SHA256` or `SP800-53`: no number of anything."""
_WORDS = re.compile(
    r"\b(percent|per cent|half|twice|dozen|hundreds?|thousands?|millions?|zero)\b",
    re.IGNORECASE,
)


def read_case(name: str) -> SafetyCase:
    """Return a stock case by name, or the case of a .toml file, linted.

    Raises:
        ReportError: there is none, or it has a fault.
    """
    folder = resources.files("safehold.govern.report") / "stock"
    known = sorted(one.name.removesuffix(".toml") for one in folder.iterdir())
    try:
        if name in known:
            return parse_case((folder / f"{name}.toml").read_text("utf-8"), name)
        if name.endswith(".toml"):
            return parse_case(Path(name).read_text("utf-8"), Path(name).name)
    except OSError as error:
        raise ReportError(f"can't read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ReportError(f"{name}: expected UTF-8") from error
    raise ReportError(f"expected a .toml file or one of {', '.join(known)}; came {name!r}")


def parse_case(text: str, where: str) -> SafetyCase:
    """Return the case of a TOML text.

    Raises:
        ReportError: it is malformed, or the lint finds a fault.
    """
    try:
        case = msgspec.convert(parse_toml(text), SafetyCase)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ReportError(f"{where}: {error}") from error
    faults = case_faults(case)
    if faults:
        raise ReportError(f"{where}: {faults[0]}")
    return case


def case_sha256(case: SafetyCase) -> str:
    """Return the digest of a case's canonical form."""
    return sha256_hex(canonical(case))


def case_faults(case: SafetyCase) -> tuple[str, ...]:
    """Return what is wrong with a case; empty when nothing is."""
    ids = [one.id for one in case.node]
    said = [f"node {one} is there twice" for one in sorted(set(ids)) if ids.count(one) > 1]
    for one in case.node:
        said += [
            f"{one.id} rests on {two}, and there is none"
            for two in one.supported_by
            if two not in ids
        ]
        said += _node_faults(one)
    if said:
        return tuple(said)
    said += [f"{one} rests on itself" for one in sorted(_circles(case))]
    below = {two for one in case.node for two in one.supported_by}
    for one in case.node:
        if one.id not in below and one.section is None:
            said.append(f"{one.id} belongs to no section and supports nothing")
    return tuple(said)


def _node_faults(one: Node) -> list[str]:
    said = []
    bare = REFERENCE.sub("", one.text)
    if _has_number(bare):
        said.append(f"{one.id}: a number in prose; write it as {{evidence.field}}")
    if "{" in bare or "}" in bare:
        said.append(f"{one.id}: expected references of the form {{evidence.field}}")
    solution = one.kind is NodeKind.SOLUTION
    if solution != (one.evidence is not None and one.predicate is not None):
        said.append(f"{one.id}: a solution, and nothing else, has evidence and a predicate")
    if solution and one.supported_by:
        said.append(f"{one.id}: a solution rests on evidence only")
    if one.kind in {NodeKind.GOAL, NodeKind.STRATEGY} and not one.supported_by:
        said.append(f"{one.id}: nothing supports it")
    return said


def _has_number(text: str) -> bool:
    """Tell whether prose holds a number: digits of any script, fractions, or a word for one."""
    bare = _NAME.sub("", text)
    digits = any(unicodedata.category(one) in {"Nd", "Nl", "No"} or one == "%" for one in bare)
    return digits or _WORDS.search(bare) is not None


def _circles(case: SafetyCase) -> set[str]:
    below = {one.id: one.supported_by for one in case.node}
    found = set()
    for name, first in below.items():
        seen: set[str] = set()
        edge = list(first)
        while edge:
            here = edge.pop()
            if here not in seen:
                seen.add(here)
                edge.extend(below[here])
        if name in seen:
            found.add(name)
    return found
