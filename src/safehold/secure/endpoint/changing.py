"""Install a policy: what weakens the installed one needs a grant of two persons."""

import hashlib
from pathlib import Path
from typing import Protocol

from safehold.errors import TrustError
from safehold.secure.endpoint.interface import EndpointPolicyError
from safehold.secure.endpoint.policy import parse_policy
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.interface import RefusedError
from safehold.trust.log.files import change_whole
from safehold.trust.log.memory import hold_against
from safehold.trust.release.orders import GuardDirection
from safehold.trust.release.weaker import Change, changes, settings_document

OPERATION = "endpoint.loosen"
_KIND = "endpoint-policy"


class Loosener(Protocol):
    """Says whether a policy may be installed that is weaker than the installed one."""

    def require(self, policy_sha256: str, host: str) -> str:
        """Return the grant that allows it, used once.

        Raises:
            TrustError: there is none.
        """
        ...


class NoLoosening:
    """A host without a log: nothing may be loosened."""

    def require(self, policy_sha256: str, host: str) -> str:
        """Refuse."""
        del policy_sha256
        raise TrustError(f"{OPERATION} on {host} needs a two-party grant; give --log")


class DeskLoosener:
    """Uses a grant of `endpoint.loosen` on exactly this policy and host; the use is logged.

    The request's resource is of kind `endpoint`, named by the new policy's SHA-256, which is also
    its workload. The log must be the one that this host pinned, with all that was seen of it: who
    may name a log may have made it.
    """

    def __init__(self, desk: Desk, memory: Path) -> None:
        """Take the log's desk, and this host's memory of the log (`begin_log_memory`)."""
        self._desk = desk
        self._memory = memory

    def require(self, policy_sha256: str, host: str) -> str:
        """Return the grant's id, used once.

        Raises:
            TrustError: no live grant is of exactly this, or the log is not the pinned one.
        """
        self._hold()
        reason = ""
        for sha256, case in list(self._desk.state.cases.items()):
            asked = case.signed.request
            wanted = (OPERATION, "endpoint", policy_sha256, host, policy_sha256)
            given = (
                asked.operation,
                asked.resource.kind,
                asked.resource.name,
                asked.host,
                asked.workload_sha256,
            )
            if case.closed or given != wanted:
                continue
            try:
                self._desk.use(sha256, host=host, workload_sha256=policy_sha256)
            except RefusedError as error:
                reason = f" ({error})"
                continue
            self._hold()  # A log set back to before this use would give it again.
            return sha256
        raise TrustError(
            f"{OPERATION} needs a two-party grant on endpoint/{policy_sha256} for host {host}"
            f"{reason}"
        )

    def _hold(self) -> None:
        store = self._desk.store
        hold_against(self._memory, store.keys, store.source)


def memory_of(place: Path) -> Path:
    """Return where the memory of the log is, beside an installed policy."""
    return place.with_name(f"{place.name}.log-memory")


def weaker(old: str, new: str) -> tuple[Change, ...]:
    """Return what is weaker in a new policy's text; empty for a pure tightening.

    Raises:
        PolicyError: one of them is no policy.
    """
    before, after = (settings_document(parse_policy(text)) for text in (old, new))
    found = changes(_KIND, before, after)
    return tuple(change for change in found if change.direction is GuardDirection.WEAKER)


def install(text: str, place: Path, loosener: Loosener) -> tuple[str, tuple[Change, ...]]:
    """Put a policy into place; return the grant that was used (empty: none), and what is weaker.

    Raises:
        PolicyError: it is no policy, or the disk refused.
        TrustError: it is weaker, and no grant allows it.
    """
    policy = parse_policy(text)
    found: tuple[Change, ...] = ()
    grant = ""

    def follows(installed: bytes | None) -> bytes:
        nonlocal found, grant
        if installed is not None:
            found = weaker(installed.decode(errors="replace"), text)
        if found:
            grant = loosener.require(hashlib.sha256(text.encode()).hexdigest(), policy.host)
        return text.encode()

    try:
        # Compared with what it replaces, not with what another one has replaced meanwhile.
        change_whole(place, follows)
    except OSError as error:
        raise EndpointPolicyError(f"{place.name}: can't be installed ({error.strerror})") from error
    return grant, found
