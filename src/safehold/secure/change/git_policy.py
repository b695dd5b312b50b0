"""Who may change which paths of a configuration repository: a file of that repository."""

import datetime as dt
import fnmatch
import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from safehold.errors import TrustError
from safehold.toml_text import parse_toml
from safehold.trust.grants.interface import Quorum
from safehold.trust.grants.quorum import assign
from safehold.trust.people.interface import Label, PeopleError, SshKey, SshPublic, TeamId
from safehold.trust.people.sshsig import parse_public_key
from safehold.trust.text import Name

POLICY_PATH = ".safehold/change.toml"
"""Where a repository keeps its policy."""
MIN_REVIEWS = 2
"""How many reviews a change of the policy itself needs, beside its author."""


class ChangeError(TrustError):
    """Have the commit signed and reviewed as its policy says; it was not verified."""


class GitKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's SSH key, and the last day on which it counts."""

    public: SshPublic
    until: dt.date


class GitPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person of the repository."""

    id: Label
    name: Name
    teams: tuple[TeamId, ...]
    keys: Annotated[tuple[GitKey, ...], msgspec.Meta(min_length=1)]


class GitRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose reviews a change of these paths needs. Every rule that matches a path applies."""

    paths: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Patterns; `*` matches slashes too."""
    thresholds: Annotated[tuple[Quorum, ...], msgspec.Meta(min_length=1)]


class GitChangeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The policy file."""

    person: Annotated[tuple[GitPerson, ...], msgspec.Meta(min_length=2)]
    rule: Annotated[tuple[GitRule, ...], msgspec.Meta(min_length=1)]

    def owner(self, key: SshKey, today: dt.date) -> GitPerson | None:
        """Return whose key it is today; None: nobody's, or it has expired."""
        for person in self.person:
            for one in person.keys:
                if parse_public_key(one.public).material == key.material and today <= one.until:
                    return person
        return None

    def thresholds(self, path: str) -> tuple[tuple[Quorum, ...], ...]:
        """Return what each rule that matches the path needs.

        Raises:
            ChangeError: no rule matches: nobody could review it.
        """
        found = tuple(
            rule.thresholds
            for rule in self.rule
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in rule.paths)
        )
        if not found:
            raise ChangeError(f"{path}: expected a rule for the path, got none")
        return found

    def lacking(self, paths: Iterable[str], persons: Mapping[str, frozenset[str]]) -> str:
        """Return in words what the reviews of these persons lack; empty: nothing."""
        for path in paths:
            for thresholds in self.thresholds(path):
                if assign(thresholds, persons) is None:
                    wanted = " and ".join(f"{one.count} of {one.team}" for one in thresholds)
                    return f"{path}: expected reviews by {wanted}, got {len(persons)} that count"
        return ""


def load_git_policy(text: str) -> GitChangeRules:
    """Return the checked policy.

    Raises:
        ChangeError: malformed, one person twice, one key of two persons, or a policy that one
            person and one reviewer could change.
    """
    try:
        rules = msgspec.convert(parse_toml(text), GitChangeRules)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ChangeError(f"{POLICY_PATH}: {error}") from error
    ids = [person.id for person in rules.person]
    try:
        keys = [parse_public_key(key.public).material for one in rules.person for key in one.keys]
    except (PeopleError, ValueError) as error:
        raise ChangeError(f"{POLICY_PATH}: expected well-formed public keys") from error
    if len(set(ids)) != len(ids) or len(set(keys)) != len(keys):
        raise ChangeError(f"{POLICY_PATH}: expected each person and each key once")
    count = max(sum(one.count for one in needs) for needs in rules.thresholds(POLICY_PATH))
    if count < MIN_REVIEWS:
        raise ChangeError(f"{POLICY_PATH}: expected {MIN_REVIEWS} reviews of itself, got {count}")
    return rules
