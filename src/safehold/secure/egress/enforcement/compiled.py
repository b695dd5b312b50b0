"""What a host must hold, named: the transaction without the numbers that move."""

import hashlib
import pwd
from collections.abc import Sequence

import msgspec

from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.enforcement.state import State
from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.ruleset import Desired, Quota, transaction

_AND = "+"
"""Stands in the name of rules before each flow that was closed in them; in no id, in no digest."""


def plain(desired: Desired) -> Desired:
    """The same rules, whatever the quotas have left."""
    quotas = {key: Quota(limit=1, fresh=False) for key in desired.quotas}
    return msgspec.structs.replace(desired, quotas=quotas, gone=())


def meaning(desired: Desired) -> str:
    """Name the rules that a host must hold: the digest of what they are compiled to."""
    text = msgspec.json.encode(transaction(plain(desired)), order="deterministic")
    return hashlib.sha256(text).hexdigest()


def closed_in(state: State, flow: str) -> str:
    """Name the rules in force once a flow's own chain is closed, without compiling the others."""
    return state.compiled if flow in state.blocked else f"{state.compiled}{_AND}{flow}"


def in_force(named: str, desired: Desired, compiled: str) -> bool:
    """Say whether a state names the rules that are wanted: `compiled`, or some closed since."""
    before, *closed = named.split(_AND)
    if not closed:
        return named == compiled
    if not desired.blocked.issuperset(closed):
        return False
    old = msgspec.structs.replace(desired, blocked=desired.blocked.difference(closed))
    return before == meaning(old)


def user_ids(flows: Sequence[Flow]) -> dict[str, int]:
    """The user ids that rows name; raises KernelError when this host lacks one."""
    found = {}
    for flow in flows:
        if flow.source.user:
            try:
                found[flow.source.user] = pwd.getpwnam(flow.source.user).pw_uid
            except KeyError as error:
                raise KernelError(f"flow {flow.id}: this host has no such user") from error
    return found
