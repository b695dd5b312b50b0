"""The thief's steps, each tried with its controls off, and with each of them alone on.

The thief starts as root of the gateway's namespace. What he takes are zeros.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from safehold.demo.heist.enclave import Enclave, enclave
from safehold.demo.heist.network import discovery, extraction, lateral_move
from safehold.demo.heist.programs import foreign_programs
from safehold.demo.heist.records import covered_tracks, forged_approval, one_accomplice
from safehold.demo.heist.table import HeistTry
from safehold.demo.heist.vault import (
    blind_host,
    copy_sealed,
    decoys,
    read_weights,
    stolen_grant,
)
from safehold.secure.egress.interface import KernelError


def heist(say: Callable[[str], None] = lambda _: None) -> tuple[HeistTry, ...]:
    """Play the whole heist.

    Raises:
        KernelError: Not root, or the kernel lacks namespaces or nftables.
    """
    if os.geteuid() != 0:
        raise KernelError("a heist makes network namespaces: run it as root")
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        enclave(f"sh{os.getpid() % 100000}", Path(folder)) as made,
    ):
        for one in _all(made):
            found.append(one)
            say(f"{one.step}, {one.control or 'all off'}: {one.outcome.value}")
    return tuple(found)


def _all(made: Enclave) -> Iterator[HeistTry]:
    for step in STEPS:
        yield from step(made)


def as_json(tries: tuple[HeistTry, ...]) -> bytes:
    """Return the tries as JSON."""
    return msgspec.json.format(msgspec.json.encode(tries), indent=1)


STEPS = (
    discovery,
    decoys,
    foreign_programs,
    lateral_move,
    forged_approval,
    one_accomplice,
    stolen_grant,
    blind_host,
    read_weights,
    copy_sealed,
    extraction,
    covered_tracks,
)
