"""Verification of a configuration repository's history: signed commits, signed reviews, no gap.

Nothing that git says of a signature is believed: commits are read raw, their digest is computed,
and their signatures are verified in this process. Replacement objects and grafts are off.
"""

import datetime as dt
import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from safehold.secure.change.git_policy import (
    POLICY_PATH,
    ChangeError,
    GitChangeRules,
    GitPerson,
    load_git_policy,
)
from safehold.trust.people.interface import PeopleError, SignatureError, SshKey
from safehold.trust.people.sshsig import dearmour, embedded_key, verify_sshsig

_SHA1_DIGITS = 40

REVIEW_NAMESPACE = "safehold-review"
"""The SSHSIG namespace of a review: a signed commit is none, nor is an approval of a grant."""
GIT_NAMESPACE = "git"
NOTES = "refs/notes/reviews"
MAX_COMMITS = 10_000
_TIMEOUT_S = 120
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HEADERS = frozenset({"tree", "parent", "author", "committer", "gpgsig", "encoding"})


class Commit(msgspec.Struct, frozen=True):
    """One commit as it is in the object store."""

    oid: str
    tree: str
    parents: tuple[str, ...]
    signature: str
    signed: bytes
    """The bytes that the signature is over: everything but the signature."""


class VerifiedCommit(msgspec.Struct, frozen=True):
    """A commit that holds: who signed it, who reviewed it, what it changed."""

    oid: str
    author: str
    reviewers: tuple[str, ...]
    paths: tuple[str, ...]


class Git:
    """Read-only plumbing of one repository."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def run(self, *words: str, data: bytes | None = None) -> bytes:
        """Return what a git command printed.

        Raises:
            ChangeError: git refused, or is not installed.
        """
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        env = kept | {
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_GRAFT_FILE": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }
        try:
            done = subprocess.run(
                ["git", "-C", str(self._root), *words],
                check=False,
                capture_output=True,
                input=data,
                env=env,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ChangeError(f"can't run git {words[0]}: {error}") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise ChangeError(f"git {words[0]}: {said[-1] if said else 'refused'}")
        return done.stdout

    def oid(self, name: str) -> str:
        """Return the commit that a name means now.

        Raises:
            ChangeError: none.
        """
        if name.startswith("-"):
            raise ChangeError(f"expected a commit, got {name!r}")
        return self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()

    def commit(self, oid: str) -> Commit:
        """Read a commit, and check that it is the one of that digest.

        Raises:
            ChangeError: altered, unsigned, signed twice, or with headers that no reader shows.
        """
        raw = self.run("cat-file", "commit", oid)
        digest = hashlib.sha1 if len(oid) == _SHA1_DIGITS else hashlib.sha256
        if digest(b"commit %d\0" % len(raw) + raw).hexdigest() != oid:
            raise ChangeError(f"{oid[:12]}: the object is not what its digest says")
        head, separator, message = raw.partition(b"\n\n")
        if not separator:
            raise ChangeError(f"{oid[:12]}: expected headers and a message")
        headers: list[tuple[str, bytes]] = []
        for line in head.split(b"\n"):
            if line.startswith(b" ") and headers:
                name, value = headers[-1]
                headers[-1] = (name, value + b"\n" + line[1:])
            else:
                name_bytes, _, value = line.partition(b" ")
                headers.append((name_bytes.decode("ascii", "replace"), value))
        foreign = {name for name, _ in headers} - _HEADERS
        if foreign:
            raise ChangeError(f"{oid[:12]}: unexpected header {min(foreign)[:40]!r}")
        signatures = [value for name, value in headers if name == "gpgsig"]
        trees = [value for name, value in headers if name == "tree"]
        if len(signatures) != 1 or len(trees) != 1:
            raise ChangeError(f"{oid[:12]}: expected one signature, got {len(signatures)}")
        kept = b"\n".join(
            name.encode() + b" " + value.replace(b"\n", b"\n ")
            for name, value in headers
            if name != "gpgsig"
        )
        return Commit(
            oid=oid,
            tree=trees[0].decode(),
            parents=tuple(value.decode() for name, value in headers if name == "parent"),
            signature=signatures[0].decode("ascii", "replace"),
            signed=kept + b"\n\n" + message,
        )

    def changed(self, old: str, new: str) -> tuple[str, ...]:
        """Return every path that differs between two commits; a move is two paths."""
        raw = self.run("diff-tree", "-r", "-z", "--no-renames", "--name-only", old, new)
        return tuple(one.decode("utf-8", "surrogateescape") for one in raw.split(b"\0") if one)

    def policy(self, oid: str) -> GitChangeRules:
        """Return the policy as of a commit.

        Raises:
            ChangeError: there is none, or it is not sound.
        """
        raw = self.run("cat-file", "blob", f"{oid}:{POLICY_PATH}")
        try:
            return load_git_policy(raw.decode())
        except UnicodeDecodeError as error:
            raise ChangeError(f"{POLICY_PATH}: expected UTF-8") from error

    def reviews(self, oid: str) -> tuple[str, ...]:
        """Return the armoured signatures that the notes hold for a commit."""
        try:
            raw = self.run("notes", f"--ref={NOTES}", "show", oid)
        except ChangeError:
            return ()
        text = raw.decode("ascii", "replace")
        found = re.findall(
            r"-----BEGIN SSH SIGNATURE-----.*?-----END SSH SIGNATURE-----", text, re.DOTALL
        )
        return tuple(found)


def review_message(commit: Commit) -> bytes:
    """Return what a review signs: exactly this commit, with exactly this tree."""
    return f"commit {commit.oid}\ntree {commit.tree}\n".encode()


def verify_range(
    git: Git, base: str, tip: str, *, today: dt.date, allowed_base: str | None = None
) -> tuple[VerifiedCommit, ...]:
    """Verify every commit that is reachable from `tip` and not from `base`.

    Args:
        git: The repository.
        base: The commit that was verified last; its policy is the first that counts.
        tip: The commit that shall be.
        today: The verifier's own day: a commit's date is what its author wrote.
        allowed_base: What was remembered as verified last; None: nothing is remembered.

    Returns:
        The commits, oldest first.

    Raises:
        ChangeError: names the commit and what it lacks.
    """
    start, end = git.oid(base), git.oid(tip)
    # 1. Nothing that was verified is taken back: no force-push, no gap.
    if allowed_base is not None and start != git.oid(allowed_base):
        raise ChangeError(f"expected to go on from {allowed_base[:12]}, got {start[:12]}")
    if git.run("merge-base", start, end).decode().strip() != start:
        raise ChangeError(f"{end[:12]} does not contain {start[:12]}: the history was rewritten")
    # 2. Every object of the range is what its digest says.
    git.run("rev-list", "--objects", "--verify-objects", "--quiet", f"{start}..{end}")
    listed = git.run("rev-list", "--topo-order", "--reverse", f"{start}..{end}").decode().split()
    if len(listed) > MAX_COMMITS:
        raise ChangeError(f"expected at most {MAX_COMMITS} commits, got {len(listed)}")
    seen = {start}
    verified: list[VerifiedCommit] = []
    for oid in listed:
        commit = git.commit(oid)
        # 3. Each parent is verified, or was verified before: no root and no side history.
        for parent in commit.parents or ("",):
            if parent not in seen and not _before(git, parent, start):
                raise ChangeError(f"{oid[:12]}: expected a verified parent, got {parent[:12]!r}")
        verified.append(_one(git, commit, today))
        seen.add(oid)
    return tuple(verified)


def _before(git: Git, parent: str, start: str) -> bool:
    if not _OID.fullmatch(parent):
        return False
    try:
        git.run("merge-base", "--is-ancestor", parent, start)
    except ChangeError:
        return False
    return True


def _one(git: Git, commit: Commit, today: dt.date) -> VerifiedCommit:
    """Verify one commit by the policy of its first parent, which is verified."""
    where = commit.oid[:12]
    rules = git.policy(commit.parents[0])
    # 4. Signed by a person of that policy, with a key that counts today.
    author = _signer(rules, commit.signed, commit.signature, GIT_NAMESPACE, today)
    if isinstance(author, str):
        raise ChangeError(f"{where}: {author}")
    # 5. Reviewed: this commit and this tree, by others, each person once.
    reviewers: dict[str, GitPerson] = {}
    defects: list[str] = []
    for signature in git.reviews(commit.oid):
        found = _signer(rules, review_message(commit), signature, REVIEW_NAMESPACE, today)
        if isinstance(found, str):
            defects.append(found)
        elif found.id == author.id:
            defects.append(f"{found.name} reviewed their own commit")
        else:
            reviewers[found.id] = found
    # 6. A merge answers for all that it brings against its first parent: whichever side it took.
    paths = git.changed(commit.parents[0], commit.oid)
    persons = {one.id: frozenset(one.teams) for one in reviewers.values()}
    lacking = rules.lacking(paths or (POLICY_PATH,), persons)
    if lacking:
        raise ChangeError(f"{where}: {lacking}" + (f"; {defects[0]}" if defects else ""))
    # 7. The policy that it leaves is sound, so that the next commit can be judged.
    git.policy(commit.oid)
    return VerifiedCommit(
        oid=commit.oid, author=author.id, reviewers=tuple(sorted(reviewers)), paths=paths
    )


def _signer(
    rules: GitChangeRules, message: bytes, armoured: str, namespace: str, today: dt.date
) -> GitPerson | str:
    """Return whose signature it is, or in words why it is nobody's."""
    try:
        signature = dearmour(armoured)
        key: SshKey = embedded_key(signature)
        verify_sshsig(key, message, signature, namespace=namespace)
    except (SignatureError, PeopleError, ValueError) as error:
        return f"a signature that does not verify ({error})"
    owner = rules.owner(key, today)
    return f"the key {key.key_id} is no person's, or has expired" if owner is None else owner


def summary(uri: str, commits: Sequence[VerifiedCommit], tip: str, when: str) -> dict[str, object]:
    """Return a SLSA verification summary (v1) of a source revision, as in-toto has it."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"uri": uri, "digest": {"gitCommit": tip}}],
        "predicateType": "https://slsa.dev/verification_summary/v1",
        "predicate": {
            "verifier": {"id": "https://safehold.dev/change/verify-git"},
            "timeVerified": when,
            "resourceUri": uri,
            "policy": {"uri": POLICY_PATH},
            "verificationResult": "PASSED",
            "verifiedLevels": ["SLSA_SOURCE_LEVEL_2"],
            "slsaVersion": "1.1",
            "commits": msgspec.to_builtins(tuple(commits)),
        },
    }
