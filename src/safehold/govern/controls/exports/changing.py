"""What was changed and what is deployed: a verified history, and artefacts with who vouches."""

import datetime as dt
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from safehold.canonical import sha256_hex
from safehold.govern.controls.facts.documents import Changes, Deployed, Deployments, MergedChange
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.sources import ArtefactSource
from safehold.govern.controls.facts.trust_log import LogReading, read_state
from safehold.govern.controls.interface import ControlError
from safehold.secure.change.git_policy import ChangeError, GitChangeRules
from safehold.secure.change.git_verify import Git, VerifiedCommit, verify_range
from safehold.secure.change.provenance import BuiltFile, verify_provenance
from safehold.trust.log.files import change_whole
from safehold.trust.people.interface import Roster
from safehold.trust.people.sshsig import dearmour, embedded_key
from safehold.trust.released.follow import ReleaseLog
from safehold.trust.released.interface import read_release_settings

_SLSA = 3
_HEADS = "heads.json"


def changes(site: Site, log: LogReading, now: int) -> Changes:
    """Export the configuration repository's changes, each verified by the policy before it.

    Raises:
        ChangeError: a commit does not hold; it is named.
    """
    at = site.export
    if not at.repository or not at.repository_base:
        raise ControlError("controls.toml: expected export.repository and repository_base")
    git = Git(Path(at.repository))
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    verified = verify_range(git, at.repository_base, at.repository_ref, today=today)
    policy = git.policy(git.oid(at.repository_ref))
    publics = {key.public.split()[0] for person in policy.person for key in person.keys}
    return Changes(
        written=now,
        changes=tuple(_change(site, log, git, one) for one in verified),
        refs={at.repository_ref: _steps(git, site, at.repository_ref)},
        allowed_signers_kinds=tuple(sorted(publics)),
    )


def _change(site: Site, log: LogReading, git: Git, one: VerifiedCommit) -> MergedChange:
    at = site.export
    commit = git.commit(one.oid)
    rules = git.policy(commit.parents[0])
    teams = {person.id: set(person.teams) for person in rules.person}
    said = trailers(commit.signed)
    merged = _time(commit.signed)
    deployer = [
        case.requester
        for case in log.used("release.")
        if case.used_at is not None and case.used_at >= merged
    ]
    return MergedChange(
        id=one.oid[:12],
        author=one.author,
        approvers=one.reviewers,
        owners=tuple(sorted(_owners(rules, one.paths, teams))),
        security_approvers=tuple(
            who for who in one.reviewers if at.security_team in teams.get(who, set())
        ),
        critical=_touches(one.paths, at.critical),
        touches_weights=_touches(one.paths, at.at_weights),
        hardware_signed=_in_hardware(commit.signature),
        risk=said.get("risk", ""),
        test=said.get("test", ""),
        rollback=said.get("rollback", ""),
        # A review signs this commit with this tree: what was merged is what was approved.
        approved_tree=commit.tree,
        merged_tree=commit.tree,
        merged_at=merged,
        deployer=deployer[0] if deployer else "",
    )


def trailers(signed: bytes) -> dict[str, str]:
    """Return the trailers of a commit's message, by their names in small letters."""
    message = signed.partition(b"\n\n")[2].decode("utf-8", "replace")
    found = re.findall(r"^(Risk|Test|Rollback): (\S.{0,199})$", message, re.MULTILINE)
    return {name.lower(): value for name, value in found}


def _in_hardware(signature: str) -> bool:
    return embedded_key(dearmour(signature)).public.startswith("sk-")


def _time(signed: bytes) -> int:
    found = re.search(rb"^committer .* (\d{1,12}) [+-]\d{4}$", signed, re.MULTILINE)
    if found is None:
        raise ChangeError("a commit has no time")
    return int(found.group(1))


def _touches(paths: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for path in paths for pattern in patterns)


def _owners(
    rules: GitChangeRules, paths: tuple[str, ...], teams: dict[str, set[str]]
) -> Iterator[str]:
    wanted = {quorum.team for path in paths for needs in rules.thresholds(path) for quorum in needs}
    yield from (who for who, held in teams.items() if held & wanted)


def _steps(git: Git, site: Site, ref: str) -> tuple[bool, ...]:
    """Remember the ref's head, and say of each remembered one whether the next contains it."""
    memory = Path(site.state) / _HEADS
    head = git.oid(ref)

    def with_head(data: bytes | None) -> bytes:
        heads = {} if data is None else msgspec.json.decode(data, type=dict[str, list[str]])
        known = heads.get(ref, [])
        if not known or known[-1] != head:
            known = [*known, head]
        return msgspec.json.encode(heads | {ref: known})

    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        told = change_whole(memory, with_head)
        known = msgspec.json.decode(told, type=dict[str, list[str]])[ref]
    except (OSError, msgspec.DecodeError) as error:
        raise ControlError(f"{memory.name}: {error}") from error
    return tuple(
        _contains(git, old, new) for old, new in zip(known, known[1:] or known, strict=False)
    )


def _contains(git: Git, old: str, new: str) -> bool:
    try:
        git.run("merge-base", "--is-ancestor", old, new)
    except ChangeError:
        return False
    return True


def deployments(site: Site, log: LogReading, now: int) -> Deployments:
    """Export what is deployed: digests on disk, who rebuilt it, from which reviewed commit.

    Raises:
        SafeholdError: the log or the releases can't be verified.
    """
    del log
    at = site.export
    if not at.artefacts:
        raise ControlError("controls.toml: expected export.artefacts, got none")
    roster = read_state(Path(site.log), Path(site.log_keys)).roster
    reviewed = _reviewed(site, now)
    deployed = tuple(_deployed(one, roster, reviewed) for one in at.artefacts)
    drift: tuple[str, ...] = ()
    if at.releases:
        release = ReleaseLog(read_release_settings(Path(at.releases)), lambda: float(now)).current()
        wanted = {one.path: one.sha256 for one in release.current.artefacts}
        drift = tuple(
            f"{one.name} is not as released"
            for one in deployed
            if wanted.get(one.name) not in {None, one.sha256}
        )
    return Deployments(
        written=now, deployed=deployed, builders=at.builders, drift=drift, drift_checked=now
    )


def _reviewed(site: Site, now: int) -> frozenset[str]:
    at = site.export
    if not at.repository:
        return frozenset()
    git = Git(Path(at.repository))
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    found = verify_range(git, at.repository_base, at.repository_ref, today=today)
    return frozenset(one.oid for one in found)


def _deployed(one: ArtefactSource, roster: Roster, reviewed: frozenset[str]) -> Deployed:
    path = Path(one.path)
    digest = _digest(path / "manifest.json" if path.is_dir() else path)
    builder, level, commit = "", 0, ""
    if one.provenance:
        subject = BuiltFile(one.name, digest)
        try:
            _, statement = verify_provenance(_bytes(Path(one.provenance)), roster, subject)
        except ChangeError:
            level = 1
        else:
            level = _SLSA
            body = statement["predicate"]
            builder = str(body["runDetails"]["builder"]["id"])
            commit = str(body["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"])
    sbom = Path(one.sbom) if one.sbom else None
    return Deployed(
        name=one.name,
        kind=one.kind,
        sha256=digest,
        source_reviewed=commit in reviewed,
        builder=builder,
        provenance_level=level,
        # Two persons rebuilt it, and signed the digest that lies here.
        rebuilt_sha256=digest if level == _SLSA else "",
        sbom_written=int(sbom.stat().st_mtime) if sbom is not None and sbom.exists() else 0,
        signed=level > 0,
    )


def _digest(path: Path) -> str:
    return sha256_hex(_bytes(path))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error
