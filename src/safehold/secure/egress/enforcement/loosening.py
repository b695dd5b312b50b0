"""What is looser than what was approved: anything but a pure tightening needs the grant.

The approved state is the whole register, the whole plan, and the digests of the files that say what
is explained and allowed beside them (senders, quotas, detectors). The one table of orders in
`trust/release` says which value of each field guards more; a field that is new, gone or without an
order counts as looser.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Register
from safehold.secure.egress.interface import StateError
from safehold.trust.release.orders import GuardDirection
from safehold.trust.release.weaker import changes, settings_document

Documents = Mapping[str, object]
"""What was approved: `egress-plan` and `egress-register` as documents, other files by digest."""

FILES = ("senders", "quotas", "detectors")


def documents(register: Register, plan: EgressPlan, files: Mapping[str, str]) -> dict[str, object]:
    """Return what an `apply` approves."""
    return {
        "egress-plan": settings_document(plan),
        "egress-register": settings_document(register),
        **{f"egress-{name}": files.get(name, "") for name in FILES},
    }


def digest(approved: Documents) -> str:
    """Name exactly these documents."""
    return hashlib.sha256(msgspec.json.encode(approved, order="deterministic")).hexdigest()


def file_digests(
    files: Mapping[str, Path | None], named: Mapping[str, Sequence[Path]] | None = None
) -> dict[str, str]:
    """Return the digest of each file that is given, with those of the files that it names.

    What a file names counts as its content: a key that was replaced explains other bytes.

    Raises:
        StateError: One can't be read.
    """
    found = {}
    for name, path in files.items():
        if path is not None:
            parts = [_digest_of(one) for one in (path, *(named or {}).get(name, ()))]
            whole = hashlib.sha256("\n".join(parts).encode()).hexdigest()
            found[name] = parts[0] if len(parts) == 1 else whole
    return found


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StateError(f"{path.name}: can't be read ({error.strerror})") from error


def looser(approved: Documents, now: Documents) -> tuple[str, ...]:
    """Say which fields are looser than the approved ones; empty for a pure tightening."""
    if not approved:
        return ("the state of an earlier version, which did not keep what was approved",)
    said: list[str] = []
    for kind in sorted({*approved, *now}):
        before, after = approved.get(kind), now.get(kind)
        if isinstance(before, dict) and isinstance(after, dict):
            found = changes(kind, before, after)
            said += [
                change.path.removeprefix("egress-")
                for change in found
                if change.direction is GuardDirection.WEAKER
            ]
        elif after != before:
            # Nobody can say which of two files guards more; and without one nobody looks by it.
            said.append(kind.removeprefix("egress-"))
    return tuple(said)


class Recorded(msgspec.Struct, frozen=True):
    """What the audit log says was done: the approved digest, and what is closed."""

    approved: str = ""
    blocked: frozenset[str] = frozenset()
    throttled: frozenset[str] = frozenset()
    sealed: bool = False


def recorded(events: Iterable[tuple[str, Mapping[str, object]]]) -> Recorded:
    """Fold the events of an audit log, oldest first."""
    approved, sealed = "", False
    blocked: set[str] = set()
    throttled: set[str] = set()
    for kind, body in events:
        flow = str(body.get("flow", ""))
        match kind:
            case "egress.apply":
                approved = str(body.get("approved", ""))
            case "egress.block":
                blocked.add(flow)
            case "egress.throttle":
                throttled.add(flow)
            case "egress.seal" | "egress.cut":
                sealed = True
            case "egress.release":
                blocked.discard(flow)
                throttled.discard(flow)
                sealed = sealed and flow != "*"
            case "egress.reset":
                approved, sealed = "", False
                blocked, throttled = set(), set()
            case _:
                pass
    return Recorded(approved, frozenset(blocked), frozenset(throttled), sealed)
