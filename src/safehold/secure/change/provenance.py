"""Where an artefact comes from: SLSA v1 provenance, signed by persons who rebuilt it, and an SBOM.

Formats: in-toto statement v1, SLSA provenance v1, DSSE v1, CycloneDX 1.6. A person's signature is
an SSHSIG over the DSSE pre-authentication encoding, in a namespace of its own.
"""

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from safehold.canonical import canonical
from safehold.secure.change.git_policy import ChangeError
from safehold.trust.log.dsse import PAYLOAD_TYPE, Envelope, Signed, pae
from safehold.trust.people.interface import Person, Roster
from safehold.trust.people.sshsig import dearmour
from safehold.trust.release.interface import ReleaseError
from safehold.trust.released.vouching import PREDICATE, rebuilders

BUILD_TYPE = "https://safehold.dev/build/wheel/v1"
BUNDLE_TYPE = "https://safehold.dev/build/bundle/v1"
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class BuiltFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was built: a file's name and digest."""

    name: str
    sha256: str


def provenance(
    subjects: Sequence[BuiltFile],
    *,
    source: str,
    commit: str,
    builder: str,
    parameters: Mapping[str, str],
    dependencies: Mapping[str, str],
    kind: str = BUILD_TYPE,
) -> dict[str, Any]:
    """Return the statement that these files were built from this source.

    Args:
        subjects: The files.
        source: The source's name, such as `git+https://example.org/safehold`.
        commit: The commit that was built.
        builder: Who or what built it, as a URI.
        parameters: What the build was given.
        dependencies: Name and SHA-256 of what went in beside the source (the locks).
        kind: The type of build, as a URI.

    Raises:
        ChangeError: no subject, or a digest that is none: such a statement would say nothing.
    """
    digests = [one.sha256 for one in subjects] + list(dependencies.values())
    if not subjects or not commit or not all(_HEX.match(one) for one in digests):
        raise ChangeError("expected at least one file, a commit, and SHA-256 digests")
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": one.name, "digest": {"sha256": one.sha256}} for one in subjects],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": kind,
                "externalParameters": {"source": source, **parameters},
                "internalParameters": {},
                "resolvedDependencies": [
                    {"uri": source, "digest": {"gitCommit": commit}},
                    *(
                        {"name": name, "digest": {"sha256": digest}}
                        for name, digest in sorted(dependencies.items())
                    ),
                ],
            },
            "runDetails": {"builder": {"id": builder}, "metadata": {}},
        },
    }


def to_sign(statement: Mapping[str, Any]) -> bytes:
    """Return what a rebuilder signs: the DSSE encoding of the canonical statement."""
    return pae(PAYLOAD_TYPE, canonical(statement))


def envelope(statement: Mapping[str, Any], signatures: Mapping[str, str]) -> bytes:
    """Return the DSSE envelope; `signatures` are armoured SSHSIGs by key id."""
    return canonical(
        Envelope(
            payload=base64.b64encode(canonical(statement)).decode(),
            payload_type=PAYLOAD_TYPE,
            signatures=tuple(
                Signed(keyid=key_id, sig=dearmour(text))
                for key_id, text in sorted(signatures.items())
            ),
        )
    )


def verify_provenance(
    data: bytes, roster: Roster, subject: BuiltFile, *, least: int = 2
) -> tuple[tuple[Person, ...], dict[str, Any]]:
    """Return who vouches for a file's provenance, and the statement.

    Args:
        data: The envelope.
        roster: Who is enrolled: a signature counts for its person, once.
        subject: The file as it is now.
        least: How many distinct humans must have rebuilt it.

    Raises:
        ChangeError: malformed, of another file, or too few distinct humans signed.
    """
    try:
        return rebuilders(data, roster, name=subject.name, sha256=subject.sha256, least=least)
    except ReleaseError as error:
        raise ChangeError(str(error)) from error


def sbom(lock: str, *, name: str, version: str) -> dict[str, Any]:
    """Return a CycloneDX document of a lock with hashes: every package, version and digest.

    Raises:
        ChangeError: a line that pins nothing, or a package without a hash.
    """
    components: list[dict[str, Any]] = []
    for entry in re.split(r"(?<!\\)\n", lock):
        text = entry.strip()
        if not text or text.startswith(("#", "--")):
            continue
        pinned, hashes = _PINNED.match(text), _HASH.findall(text)
        if pinned is None or not hashes:
            raise ChangeError(f"expected NAME==VERSION with hashes, got {text[:60]!r}")
        package, number = pinned.group(1).lower().replace("_", "-"), pinned.group(2)
        components.append(
            {
                "type": "library",
                "name": package,
                "version": number,
                "purl": f"pkg:pypi/{package}@{number}",
                "bom-ref": f"pkg:pypi/{package}@{number}",
                "hashes": [{"alg": "SHA-256", "content": one} for one in sorted(hashes)],
            }
        )
    if not components:
        raise ChangeError("expected a lock with at least one package")
    components.sort(key=lambda one: (one["name"], one["version"]))
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{name}@{version}\n{canonical(components).decode()}")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version}},
        "components": components,
    }
