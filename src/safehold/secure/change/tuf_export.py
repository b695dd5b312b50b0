"""A release as a repository of The Update Framework (TUF 1.0), so that any TUF client can fetch it.

Persons sign `root` and `targets` with their SSH keys (key type `ssh`, scheme `sshsig`), one key a
person and role: a TUF client counts keys, so two keys of one person would be two persons there.
The release desk signs `snapshot` and `timestamp` with a key of its own. Passkeys can't sign here.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from safehold.canonical import canonical, sha256_hex
from safehold.secure.change.git_policy import ChangeError
from safehold.trust.people.interface import Kind, Person, SignatureError, SshKey
from safehold.trust.people.sshsig import dearmour, verify_sshsig
from safehold.trust.release.interface import Release

NAMESPACE = "safehold-tuf"
"""The SSHSIG namespace of a signature on metadata."""
KEY_TYPE, SCHEME = "ssh", "sshsig"
MIN_PERSONS = 2
_SPEC = "1.0.31"
ROLES = ("root", "targets", "snapshot", "timestamp")
Json = dict[str, Any]


def person_key(person: Person) -> Json:
    """Return the one TUF key of a person.

    Raises:
        ChangeError: not a human with exactly one SSH key: which of several would count?
    """
    keys = [key for key in person.keys if isinstance(key, SshKey)]
    if person.kind is not Kind.HUMAN or len(keys) != 1:
        raise ChangeError(
            f"{person.name}: expected a human with one SSH key for this, got {len(keys)}"
        )
    return {"keytype": KEY_TYPE, "scheme": SCHEME, "keyval": {"public": keys[0].public}}


def desk_key(private: Ed25519PrivateKey) -> Json:
    """Return the TUF key of the release desk."""
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": raw.hex()}}


def key_id(key: Json) -> str:
    """Return a key's id: SHA-256 of its canonical form, as TUF recommends."""
    return sha256_hex(canonical(key))


def root(persons: Sequence[Person], desk: Json, *, version: int, expires: dt.datetime) -> Json:
    """Return the unsigned `root`: who signs what.

    Raises:
        ChangeError: fewer than two persons, one twice, or one with several keys.
    """
    if len({one.id for one in persons}) != len(persons) or len(persons) < MIN_PERSONS:
        raise ChangeError(f"expected {MIN_PERSONS} distinct persons or more, got {len(persons)}")
    keys = {key_id(key): key for key in map(person_key, persons)}
    if len(keys) != len(persons):
        raise ChangeError("expected a key of their own for each person")
    people = {"keyids": sorted(keys), "threshold": MIN_PERSONS}
    alone = {"keyids": [key_id(desk)], "threshold": 1}
    return {
        **_head("root", version, expires),
        "consistent_snapshot": True,
        "keys": {**keys, key_id(desk): desk},
        "roles": {"root": people, "targets": people, "snapshot": alone, "timestamp": alone},
    }


def targets(
    release: Release, files: Mapping[str, bytes], proof: Json, *, expires: dt.datetime
) -> Json:
    """Return the unsigned `targets` of a release; its version is the release's.

    Args:
        release: What took effect.
        files: The bytes of artefacts that are one file, by their paths.
        proof: What the log says of the release: kept beside each target.
        expires: When clients stop to take it.

    Raises:
        ChangeError: a file that the release does not hold, or other bytes than it holds.
    """
    held = {one.path: one for one in release.artefacts}
    listed: Json = {}
    for path, data in files.items():
        if path not in held or hashlib.sha256(data).hexdigest() != held[path].sha256:
            raise ChangeError(f"{path}: not what release {release.version} holds")
        listed[path] = {
            **_measure(data),
            "custom": {"kind": held[path].kind.value, "release": release.sha256, "log": proof},
        }
    document = canonical(release)
    listed["release.json"] = {**_measure(document), "custom": {"log": proof}}
    return {**_head("targets", release.version, expires), "targets": listed}


def snapshot(targets_file: bytes, version: int, *, expires: dt.datetime) -> Json:
    """Return the unsigned `snapshot`."""
    meta = {"targets.json": {**_measure(targets_file), "version": version}}
    return {**_head("snapshot", version, expires), "meta": meta}


def timestamp(snapshot_file: bytes, version: int, *, expires: dt.datetime) -> Json:
    """Return the unsigned `timestamp`."""
    meta = {"snapshot.json": {**_measure(snapshot_file), "version": version}}
    return {**_head("timestamp", version, expires), "meta": meta}


def to_sign(signed: Json) -> bytes:
    """Return the bytes that a signature of metadata is over (canonical JSON)."""
    return canonical(signed)


def envelope(signed: Json, signatures: Mapping[str, str]) -> bytes:
    """Return a metadata file; `signatures` are by key id."""
    return canonical(
        {
            "signatures": [{"keyid": one, "sig": sig} for one, sig in sorted(signatures.items())],
            "signed": signed,
        }
    )


def by_desk(signed: Json, private: Ed25519PrivateKey) -> bytes:
    """Return a metadata file signed by the release desk."""
    return envelope(signed, {key_id(desk_key(private)): private.sign(to_sign(signed)).hex()})


def collected(signed: Json, holder: Json, role: str, signatures: Sequence[str]) -> bytes:
    """Return a metadata file with the persons' signatures that verify.

    Args:
        signed: The metadata.
        holder: The `root` that says whose signatures count.
        role: `root` or `targets`.
        signatures: SSHSIGs, armoured or bare.

    Raises:
        ChangeError: fewer than the threshold verify.
    """
    wanted = holder["roles"][role]
    found: dict[str, str] = {}
    for text in signatures:
        bare = dearmour(text)
        for name in wanted["keyids"]:
            key = SshKey(holder["keys"][name]["keyval"]["public"])
            try:
                verify_sshsig(key, to_sign(signed), bare, namespace=NAMESPACE)
            except SignatureError:
                continue
            found[name] = bare
    if len(found) < wanted["threshold"]:
        raise ChangeError(
            f"{role}: expected {wanted['threshold']} persons of the role to sign, got {len(found)}"
        )
    return envelope(signed, found)


def write_repository(
    folder: Path,
    *,
    root_file: bytes,
    targets_file: bytes,
    files: Mapping[str, bytes],
    release: Release,
    desk: Ed25519PrivateKey,
    now: dt.datetime,
    fresh_for: dt.timedelta,
) -> None:
    """Write metadata and targets as a TUF client asks for them (consistent snapshots)."""
    version = release.version
    snap = by_desk(snapshot(targets_file, version, expires=now + fresh_for), desk)
    stamp = by_desk(timestamp(snap, version, expires=now + fresh_for), desk)
    metadata, held = folder / "metadata", folder / "targets"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "1.root.json").write_bytes(root_file)
    (metadata / f"{version}.targets.json").write_bytes(targets_file)
    (metadata / f"{version}.snapshot.json").write_bytes(snap)
    (metadata / "timestamp.json").write_bytes(stamp)
    for path, data in {**files, "release.json": canonical(release)}.items():
        place = held / path
        digest = hashlib.sha256(data).hexdigest()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_name(f"{digest}.{place.name}").write_bytes(data)


def _head(role: str, version: int, expires: dt.datetime) -> Json:
    return {
        "_type": role,
        "spec_version": _SPEC,
        "version": version,
        "expires": expires.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _measure(data: bytes) -> Json:
    return {"length": len(data), "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}
