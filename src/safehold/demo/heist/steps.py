"""The thief's steps, each tried with its controls off, and with each of them alone on.

The thief starts as root of the gateway's namespace. What he takes are zeros.
"""

import contextlib
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from safehold.demo.heist.enclave import Enclave, enclave, notes_of
from safehold.demo.heist.programs import foreign_programs
from safehold.demo.heist.records import covered_tracks, forged_approval, one_accomplice
from safehold.demo.heist.table import HeistOutcome, HeistTry
from safehold.demo.heist.vault import (
    blind_host,
    copy_sealed,
    decoys,
    read_weights,
    stolen_grant,
)
from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link
from safehold.secure.egress.declare.register import parse_register
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import StateFile
from safehold.secure.egress.interface import KernelError, RefuseAll
from safehold.secure.egress.kernel.netns import enter, run_in
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.simulation.drill import Receiver

PREVENTED, DETECTED, MISSED = HeistOutcome
BUDGET = 500_000
_PACKET = 65_536
_PUSH = 2_000_000
_ADMIN, _SERVE, _LURE = 22, 8443, 2222

_REGISTER = """version = 1
[[flow]]
id = "permitted"
owner = "drill"
purpose = "the one permitted flow"
data_class = "public"
protocol = "udp"
ports = [9000]
destination = ["10.231.7.2/32"]
source = {{ uid = 0 }}
expires = 2099-01-01
budget = {{ hour = {budget}, day = {budget}, week = {budget}, month = {budget} }}
"""


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


def discovery(made: Enclave) -> Iterator[HeistTry]:
    """The thief looks at every port of the bastion that he can think of."""
    step = "discovery of services"
    with made.listener("bastion", _ADMIN) as real:
        reached = made.thief("connect", made.address("bastion"), str(_ADMIN), "who are you")
        yield HeistTry(step, "", MISSED if reached and notes_of(real) else PREVENTED)
    with made.listener("bastion", _LURE) as lure:
        began = time.time()
        made.thief("connect", made.address("bastion"), str(_LURE), "who are you")
        yield _noticed(step, "dec-03", began, [float(one["time"]) for one in notes_of(lure)])


def lateral_move(made: Enclave) -> Iterator[HeistTry]:
    """The thief goes from the gateway to the serving host's administration."""
    step = "a lateral move to the serving host"
    closed = f"""table inet heist {{
  chain input {{
    type filter hook input priority 0; policy drop;
    ct state established accept
    tcp dport {_SERVE} accept
  }}
}}
"""
    watched = """table inet heist {
  set edges { type ipv4_addr . inet_service; flags dynamic; size 1024; }
  chain input {
    type filter hook input priority 0; policy accept;
    tcp flags syn add @edges { ip saddr . tcp dport }
  }
}
"""
    to = ("connect", made.address("serving"), str(_ADMIN), "hello")
    with made.listener("serving", _ADMIN):
        yield HeistTry(step, "", MISSED if made.thief(*to) else PREVENTED)
        with made.rules("serving", closed):
            yield HeistTry(step, "lat-01", MISSED if made.thief(*to) else PREVENTED)
        with made.rules("serving", watched):
            began = time.time()
            made.thief(*to)
            listed = run_in(made.space("serving"), ["nft", "list", "set", "inet", "heist", "edges"])
            # The baseline knows the port that serves; any other pair is a new edge.
            new = [time.time()] if f". {_ADMIN}" in listed or ". ssh" in listed else []
            yield _noticed(step, "lat-06", began, new)


def extraction(made: Enclave) -> Iterator[HeistTry]:
    """The thief sends zeros out by several ways; bytes are counted in the egress box."""
    ways = (
        ("extraction by TCP", "tcp", 9001, "egr-01", 0),
        ("extraction by DNS", "dns", 53, "egr-14", 0),
        ("extraction by ICMP", "icmp", 0, "egr-16", 0),
        ("extraction through the permitted flow", "udp", 9000, "egr-03", BUDGET + _PACKET),
    )
    receiver = Receiver(made.both)
    try:
        bare = [(way, _send(made, receiver, way[1], way[2])) for way in ways]
        for (step, _, _, _, bound), out in bare:
            yield HeistTry(step, "", MISSED if out > bound else PREVENTED, out=out)
        for step, channel, port, control, bound in ways:
            with _alone(made, control):
                out = _send(made, receiver, channel, port)
            outcome = PREVENTED if out <= bound else MISSED
            yield HeistTry(step, control, outcome, out=out, bound=bound)
    finally:
        receiver.close()


@contextlib.contextmanager
def _alone(made: Enclave, control: str) -> Iterator[None]:
    """Put one control in force at the gateway: compiled rules, or a rule against one protocol."""
    against = {"egr-14": "meta l4proto { tcp, udp } th dport { 53, 853 } drop",
               "egr-16": "meta l4proto { icmp, icmpv6 } drop"}  # fmt: skip
    try:
        with tempfile.TemporaryDirectory() as folder:
            if control in against:
                text = (
                    "table inet heist {\n  chain output {\n    type filter hook output priority 0; "
                    f"policy accept;\n    {against[control]}\n  }}\n}}\n"
                )
                rules = Path(folder) / "rules.nft"
                rules.write_text(text)
                run_in(made.both.inside, ["nft", "-f", str(rules)])
            else:
                _enforcer(made, Path(folder)).apply(first=True)
            yield
    finally:
        run_in(made.both.inside, ["nft", "flush", "ruleset"])


def _enforcer(made: Enclave, folder: Path) -> Enforcer:
    return Enforcer(
        register=parse_register(_REGISTER.format(budget=BUDGET)),
        plan=EgressPlan(
            bound=Bound(weight_bytes=10**12),
            link=Link((made.both.inside_interface,), 10**9, shape=False),
        ),
        store=StateFile(folder),
        audit=ChainedLog(folder / "audit.jsonl"),
        authorizer=RefuseAll(),
        kernel=NftKernel(made.both.inside),
        today=dt.datetime.now(dt.UTC).date(),
    )


def _send(made: Enclave, receiver: Receiver, channel: str, port: int) -> int:
    before = receiver.total()
    command = [sys.executable, "-m", "safehold.secure.egress.simulation.traffic", "send", channel]
    command += [made.both.outside_v4, str(port), str(_PUSH), "6" if channel != "tcp" else "1.5"]
    subprocess.run(enter(made.both.inside, command), check=False, timeout=60)
    return receiver.total() - before


def _noticed(step: str, control: str, began: float, times: list[float]) -> HeistTry:
    if not times:
        return HeistTry(step, control, MISSED)
    return HeistTry(step, control, DETECTED, seconds=max(0.0, times[0] - began))


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
