"""Put one guard together: policy, inventories, essentials, records, heartbeat, holder."""

import datetime as dt
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from safehold.errors import EndpointError, TrustError
from safehold.secure.endpoint.essentials import require_essentials
from safehold.secure.endpoint.guard import ExecGuard
from safehold.secure.endpoint.heartbeat import Heart, listen
from safehold.secure.endpoint.interface import EndpointPolicyError, GuardState
from safehold.secure.endpoint.interpreters import known_interpreters
from safehold.secure.endpoint.inventory.book import InventoryBook, catalogue
from safehold.secure.endpoint.policy import EndpointPolicy, Mode, parse_policy
from safehold.secure.endpoint.records import Records, open_records
from safehold.secure.endpoint.starting import StartingSlots
from safehold.secure.fanotify.group import Group
from safehold.secure.fanotify.hold import Holder, Work

_LOOK_S = 0.02
FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin")


class PolicyInForce(msgspec.Struct, frozen=True):
    """A policy with what its inventories say, and the digest of its text."""

    policy: EndpointPolicy
    catalogue: InventoryBook
    sha256: str


def load(path: Path, today_s: int) -> PolicyInForce:
    """Read a policy and every inventory that it names.

    Raises:
        PolicyError: the policy must be corrected.
        InventoryError: an inventory is out of date, unsigned, for another host, or changed.
    """
    try:
        data = path.read_bytes()
        policy = parse_policy(data.decode("utf-8"), path.name)
    except OSError as error:
        raise EndpointPolicyError(f"can't read {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EndpointPolicyError(f"{path.name}: expected UTF-8") from error
    known = catalogue(policy, path.absolute().parent, today_s)
    return PolicyInForce(policy, known, hashlib.sha256(data).hexdigest())


def run_guard(
    loaded: PolicyInForce,
    *,
    records: Path,
    socket_path: Path,
    leave: frozenset[str],
    ready: Callable[[], None],
    note: Callable[[str], None],
    again: Callable[[], PolicyInForce] | None = None,
) -> None:
    """Guard until SIGTERM or SIGINT. Stopping is a weakening: the key service sees it.

    At SIGHUP the policy is read `again`; one that does not hold is told, and the old one stays.

    Raises:
        PolicyError: the policy would stop the guard, the shell or the boot.
        FanotifyError: not root, or the kernel has no permission events.
    """
    require_policy(loaded)
    handle = open_records(records)
    listener = listen(socket_path)
    interpreters = known_interpreters((*FOLDERS, os.path.dirname(os.path.realpath(sys.executable))))

    left = StartingSlots()

    def guarding(now: PolicyInForce) -> ExecGuard:
        policy = now.policy
        heart = Heart(listener, now.sha256, policy.mode, policy.host)
        return ExecGuard(
            policy,
            now.catalogue,
            interpreters=interpreters,
            records=Records(handle, policy.mode),
            leave=leave,
            beside=telling(heart.beat),
            left=left,
        )

    def renew() -> Work | None:
        if again is None:
            return None
        try:
            fresh = again()
            require_policy(fresh)
        except (EndpointError, TrustError) as error:  # one that was not released, too
            note(f"the policy was not taken: {error}")
            return None
        note(f"policy {fresh.sha256} in mode {fresh.policy.mode}")
        return guarding(fresh).work

    guard = guarding(loaded)
    with Group() as group, listener:
        holder = Holder(group, guard.work, note=note, renew=renew)
        holder.take_signals()
        ready()
        holder.run()


Beside = Callable[[GuardState, threading.Event], None]


def telling(beside: Beside) -> Beside:
    """Tell systemd, where it started us, that the marks are set; then do what is done beside."""
    place = os.environ.get("NOTIFY_SOCKET", "")

    def told(state: GuardState, ended: threading.Event) -> None:
        while place and not state.marks and not ended.is_set():
            time.sleep(_LOOK_S)
        if place and state.marks:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, suppress(OSError):
                systemd.sendto(b"READY=1", place.replace("@", "\0", 1))
        beside(state, ended)

    return told


def require_policy(loaded: PolicyInForce) -> None:
    """Refuse a policy that would stop what the host needs; in learn and audit it stops nothing.

    Raises:
        PolicyError: it would.
    """
    if loaded.policy.mode is not Mode.ENFORCE:
        return
    require_essentials(loaded.policy, loaded.catalogue, dt.datetime.now(dt.UTC).date())
