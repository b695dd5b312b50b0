"""Who rebuilt a file, or compared two bundles: DSSE envelopes that persons of the roster signed."""

import base64
from pathlib import Path
from typing import Any

from safehold.canonical import CanonicalError, parse_canonical, sha256_hex
from safehold.trust.log.dsse import PAYLOAD_TYPE, Envelope, pae
from safehold.trust.people.interface import Kind, Person, Roster, SignatureError, SshKey
from safehold.trust.people.sshsig import verify_sshsig
from safehold.trust.release import comparison
from safehold.trust.release.comparison import Comparison, read_comparison
from safehold.trust.release.interface import Release, ReleaseError

NAMESPACE = "safehold-provenance"
"""The SSHSIG namespace of a rebuilder's signature."""
PREDICATE = "https://slsa.dev/provenance/v1"
SUFFIX = ".provenance"
"""How an envelope's file ends in the folder of documents, after its own SHA-256."""


def rebuilders(
    data: bytes, roster: Roster, *, name: str, sha256: str, least: int = 2
) -> tuple[tuple[Person, ...], dict[str, Any]]:
    """Return who vouches for a file's provenance, and the statement.

    Args:
        data: The envelope.
        roster: Who is enrolled: a signature counts for its person, once.
        name: The file's name.
        sha256: Its digest now.
        least: How many distinct humans must have rebuilt it.

    Raises:
        ReleaseError: malformed, of another file, or too few distinct humans signed.
    """
    persons, statement = signers(data, roster, predicate=PREDICATE, namespace=NAMESPACE)
    if {"name": name, "digest": {"sha256": sha256}} not in statement.get("subject", []):
        raise ReleaseError(f"{name}: the statement is about another file")
    if len(persons) < least:
        raise ReleaseError(f"expected {least} persons who rebuilt it, got {len(persons)}")
    return persons, statement


def comparers(
    data: bytes, roster: Roster, *, least: int = 2
) -> tuple[tuple[Person, ...], Comparison]:
    """Return who vouches for a comparison of two bundles, and the comparison.

    Args:
        data: The envelope.
        roster: Who is enrolled: a signature counts for its person, once.
        least: How many distinct humans must have measured it.

    Raises:
        ReleaseError: malformed, another statement, or too few distinct humans signed.
    """
    persons, statement = signers(
        data, roster, predicate=comparison.PREDICATE, namespace=comparison.NAMESPACE
    )
    found = read_comparison(statement)
    if len(persons) < least:
        raise ReleaseError(f"expected {least} persons who compared them, got {len(persons)}")
    return persons, found


def signers(
    data: bytes, roster: Roster, *, predicate: str, namespace: str
) -> tuple[tuple[Person, ...], dict[str, Any]]:
    """Return the distinct humans of a roster who signed an envelope, and its statement.

    Raises:
        ReleaseError: malformed, or a statement of another kind.
    """
    try:
        found = parse_canonical(data, Envelope, what="a DSSE envelope")
        payload = base64.b64decode(found.payload, validate=True)
        statement: dict[str, Any] = parse_canonical(payload, dict[str, Any], what="a statement")
    except (ValueError, CanonicalError) as error:
        raise ReleaseError("expected a canonical DSSE envelope of a statement") from error
    if found.payload_type != PAYLOAD_TYPE or statement.get("predicateType") != predicate:
        raise ReleaseError(f"expected a statement of {predicate}")
    persons: dict[str, Person] = {}
    for signed in found.signatures:
        owned = roster.owner(signed.keyid)
        if owned is None or not isinstance(owned[1], SshKey) or owned[0].kind is not Kind.HUMAN:
            continue
        try:
            verify_sshsig(owned[1], pae(PAYLOAD_TYPE, payload), signed.sig, namespace=namespace)
        except SignatureError:
            continue
        persons[owned[0].id] = owned[0]
    return tuple(persons.values()), statement


def vouched_in(folder: Path, release: Release, roster: Roster) -> frozenset[tuple[str, str]]:
    """Return the provenance and comparisons of a release that two persons of the roster signed.

    Envelopes lie beside the documents, as `SHA256.provenance`. One that is missing, malformed or
    signed by too few vouches for nothing; the release is weaker then.
    """
    found: set[tuple[str, str]] = set()
    for one in release.artefacts:
        digest = release.provenance.get(one.path)
        if digest is None:
            continue
        try:
            data = (folder / f"{digest}{SUFFIX}").read_bytes()
            if sha256_hex(data) == digest:
                rebuilders(data, roster, name=one.path, sha256=one.sha256)
                found.add((digest, one.sha256))
        except (OSError, ReleaseError):
            continue
    for behaviour in release.behaviour:
        digest = behaviour.report_sha256
        try:
            data = (folder / f"{digest}{SUFFIX}").read_bytes()
            if sha256_hex(data) == digest:
                found.add((digest, comparers(data, roster)[1].sha256))
        except (OSError, ReleaseError):
            continue
    return frozenset(found)
