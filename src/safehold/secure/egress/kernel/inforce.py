"""The rules in force against the rules compiled, in nft's own words.

What was compiled is applied to an empty network namespace, and listed there by the same nft that
lists the rules in force. So both texts went the same way, and a difference is one of meaning, not
of spelling. Numbers that move (counters, quotas) are left out.
"""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

import msgspec

from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.dispatch import serves_group
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.kernel.ruleset import WIRE_TABLE
from safehold.secure.egress.kernel.statements import TABLE, Json

_TABLE_LINE = ("table", "FAMILY", "NAME")

Rules = Mapping[str, tuple[str, ...]]
"""Chains and other objects of our tables: `table kind name` to their lines."""

_TIMEOUT_S = 20.0
_MOVING = ("over ", "elements = ")
_GROUP = re.compile(r'socket cgroupv2 level \d+ (?:"(?P<path>[^"]*)"|\S+) goto (?P<to>\S+)')

_SCRATCH = "safehold.secure.egress.kernel.scratch"


def rules_in_force(kernel: NftKernel) -> Rules:
    """List our tables as they are now."""
    return parse_listing(kernel.text())


def rules_compiled(transaction: Json, devices: Sequence[str], flows: Sequence[Flow]) -> Rules:
    """List what a transaction means, from a namespace of its own that ends with it.

    Raises:
        KernelError: No namespace can be made, or the kernel refused.
    """
    names = [name for name in devices if name != "lo"]
    command = ["unshare", "--net", "--", sys.executable, "-P", "-m", _SCRATCH, *names]
    try:
        done = subprocess.run(
            command,
            input=msgspec.json.encode(transaction),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise KernelError("unshare (util-linux) is missing or did not answer") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise KernelError(f"compiled rules can't be listed: {lines[0][:200] if lines else ''}")
    rules = dict(parse_listing(done.stdout.decode(errors="replace")))
    for flow in flows:
        if flow.source.cgroup:
            chain = f"{TABLE} chain s_{flow.id}"
            rules[chain] = (_group_line(flow.source.cgroup, f"f_{flow.id}"),)
            if serves_group(flow):
                rules[f"{TABLE} chain i_{flow.id}"] = (
                    _group_line(flow.source.cgroup, f"h_{flow.id}"),
                )
    return rules


def parse_listing(text: str) -> Rules:
    """Read `nft list ruleset`: our tables only."""
    found: dict[str, list[str]] = {}
    table = ""
    lines: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if line.startswith("table ") and len(words) >= len(_TABLE_LINE):
            table = words[2]
        elif line.startswith("\t\t") and table in {TABLE, WIRE_TABLE}:
            said = line.strip()
            if not said.startswith(_MOVING):
                lines.append(said)
        elif line.startswith("\t") and len(words) > 1 and table in {TABLE, WIRE_TABLE}:
            lines = found.setdefault(f"{table} {words[0]} {words[1]}", [])
    return {name: tuple(content) for name, content in found.items()}


def differences(compiled: Rules, force: Rules) -> tuple[str, ...]:
    """Say what is in force and not compiled, or the other way round; empty when they agree."""
    said = []
    for name in sorted({*compiled, *force}):
        wanted, found = compiled.get(name), force.get(name)
        if wanted is None:
            said.append(f"{name} is foreign")
        elif found is None:
            said.append(f"{name} is gone")
        elif tuple(map(_plain, wanted)) != tuple(map(_plain, found)) and not _same_group(
            wanted, found
        ):
            said.append(f"{name} was changed")
    return tuple(said)


def foreign_chains(compiled: Rules, force: Rules) -> tuple[tuple[str, str], ...]:
    """Chains of our tables that nobody compiled, as (table, chain)."""
    names = (name.split(" ", 2) for name in force if name not in compiled)
    return tuple((table, name) for table, kind, name in names if kind == "chain")


def _plain(line: str) -> str:
    return " ".join(line.split())


def _group_line(group: str, target: str) -> str:
    return f'socket cgroupv2 level {group.count("/") + 1} "{group}" goto {target}'


def _same_group(wanted: Sequence[str], found: Sequence[str]) -> bool:
    """Whether one rule names the same control group; nft prints a path from another root.

    A group that was removed has a number only: it matches nothing, which is closed.
    """
    if len(wanted) != 1 or len(found) != 1:
        return False
    want, have = _GROUP.fullmatch(wanted[0]), _GROUP.fullmatch(found[0])
    if want is None or have is None or want["to"] != have["to"]:
        return False
    return have["path"] is None or f"/{have['path']}".endswith(f"/{want['path']}")
