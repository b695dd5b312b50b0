"""Steps over the network: discovery, the lateral move, and extraction by several channels.

Every rule in force here is compiled by the product from a register and a plan, as
`safehold egress apply` does it. A control that is one row of the register is tried against the same
register with that row as careless hands write it: then the step succeeds, although the rest holds.
"""

import contextlib
import datetime as dt
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from safehold.demo.heist.enclave import Enclave, notes_of
from safehold.demo.heist.table import HeistOutcome, HeistTry
from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link
from safehold.secure.egress.declare.register import parse_register
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import BootClock, StateFile
from safehold.secure.egress.interface import EgressMode, NoWeightGrants, RefuseAll
from safehold.secure.egress.kernel.netns import enter, run_in
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.simulation.drill import Receiver
from safehold.secure.egress.watch.alerts import Alert, AlertFile
from safehold.secure.egress.watch.observe_flows import compare, observer, seen
from safehold.secure.egress.watch.watch import Watch

PREVENTED, DETECTED, MISSED = HeistOutcome
BUDGET = 500_000
_PACKET = 65_536
_PUSH = 2_000_000
_ADMIN, _SERVE, _LURE = 22, 8443, 2222
_OUTSIDE, _RESOLVER, _MONITOR = "10.231.7.2", "10.231.7.53", "10.231.7.80"
_WAIT_S = 5.0

_ROW = """
[[flow]]
id = "{id}"
owner = "drill"
purpose = "a flow of the drill"
data_class = "public"
direction = "{way}"
protocol = "{protocol}"
{ports}destination = ["{to}"]
source = {{ uid = 0 }}
expires = 2099-01-01
budget = {{ hour = {budget}, day = {budget}, week = {budget}, month = {budget} }}
"""


def _row(name: str, protocol: str, to: str, port: int = 0, way: str = "out") -> str:
    ports = f"ports = [{port}]\n" if port else ""
    return _ROW.format(id=name, protocol=protocol, to=to, ports=ports, way=way, budget=BUDGET)


PERMITTED = _row("permitted", "udp", f"{_OUTSIDE}/32", 9000)
NAMES_ANYWHERE = PERMITTED + _row("names", "dns", "0.0.0.0/0")
NAMES_OF_THE_RESOLVER = PERMITTED + _row("names", "dns", f"{_RESOLVER}/32")
PINGS_ANYWHERE = PERMITTED + _row("pings", "icmp", "0.0.0.0/0")
PINGS_OF_ONE_HOST = PERMITTED + _row("pings", "icmp", f"{_MONITOR}/32")
SERVING = _row("api", "tcp", "10.231.8.1/32", _SERVE, "serve")


def discovery(made: Enclave) -> Iterator[HeistTry]:
    """The thief looks at every port of the bastion that he can think of."""
    step = "discovery of services"
    address = made.address("bastion")
    with made.listener("bastion", _ADMIN) as real:
        reached = made.thief("connect", address, str(_ADMIN), "who are you")
        yield HeistTry(step, "", MISSED if reached and notes_of(real) else PREVENTED)
    cases = made.folder / "cases"
    command = [
        *(sys.executable, "-m", "safehold", "endpoint", "decoy", "serve"),
        *("--service", f"admin={_LURE}", "--host", "bastion", "--cases", str(cases)),
    ]
    lure = subprocess.Popen(enter(made.space("bastion"), command), stdout=subprocess.DEVNULL)
    try:
        ready = _soon(lambda: f":{_LURE}" in run_in(made.space("bastion"), ["ss", "-Hltn"]), 30.0)
        began = time.time()
        made.thief("connect", address, str(_LURE), "who are you")
        told = ready and _soon(lambda: any(cases.glob("*.json")))
        found = [one.stat().st_mtime for one in cases.glob("*.json")] if told else []
    finally:
        lure.terminate()
        lure.wait(10)
    yield _noticed(step, "dec-03", began, found)


def lateral_move(made: Enclave) -> Iterator[HeistTry]:
    """The thief goes from the gateway to the serving host's administration."""
    step = "a lateral move to the serving host"
    address = made.address("serving")
    move = ("connect", address, str(_ADMIN), "hello")
    serves = ("connect", address, str(_SERVE), "hello")
    with made.listener("serving", _ADMIN), made.listener("serving", _SERVE):
        yield HeistTry(step, "", MISSED if made.thief(*move) else PREVENTED)
        # The serving host answers at its declared port alone: a handshake elsewhere never ends.
        with in_force(made, "serving", SERVING):
            stopped = made.thief(*serves) and not made.thief(*move)
            yield HeistTry(step, "lat-01", PREVENTED if stopped else MISSED)
    # New listeners: the handshake that never ended would answer on, and be told, in the map.
    with (
        made.listener("serving", _ADMIN),
        made.listener("serving", _SERVE),
        in_force(made, "serving", SERVING, EgressMode.MAP) as watched,
    ):
        yield _new_edge(made, watched, step, serves, move)


def _new_edge(
    made: Enclave,
    enforcer: Enforcer,
    step: str,
    serves: tuple[str, ...],
    move: tuple[str, ...],
) -> HeistTry:
    """Map what leaves the serving host, and let the watch tell of what the register lacks."""
    kernel = NftKernel(made.space("serving"))
    kernel.apply(observer())
    with tempfile.TemporaryDirectory() as folder:
        alerts = Path(folder) / "alerts.jsonl"
        watch = Watch(
            enforcer=enforcer,
            folder=Path(folder),
            clock=BootClock(),
            audit=ChainedLog(Path(folder) / "audit.jsonl"),
            grants=NoWeightGrants(),
            authorizer=RefuseAll(),
            sinks=[AlertFile(alerts)],
        )
        made.thief(*serves)
        watch.tick()
        quiet = not alerts.exists()
        began = time.time()
        moved = made.thief(*move)
        watch.tick()
        lines = alerts.read_bytes().splitlines() if alerts.exists() else []
        told = [msgspec.json.decode(one, type=Alert) for one in lines]
        edges = compare(enforcer.register, seen(kernel), _today()).undeclared
    named = [one for one in edges if one.flow.port == _ADMIN]
    # The served port must be quiet, or the alarm tells nothing; the map must name the new edge.
    times = [one.time for one in told if one.flow == "undeclared"] if quiet and named else []
    return _noticed(step, "lat-06", began, times if moved else [])


def extraction(made: Enclave) -> Iterator[HeistTry]:
    """The thief sends zeros out by several ways; bytes are counted in the egress box."""
    ways = (
        ("extraction by TCP", "tcp", 9001, "egr-01", PERMITTED, 0),
        ("extraction by DNS", "dns", 53, "egr-14", NAMES_OF_THE_RESOLVER, 0),
        ("extraction by ICMP", "icmp", 0, "egr-16", PINGS_OF_ONE_HOST, 0),
        ("extraction through the permitted flow", "udp", 9000, "egr-03", PERMITTED,
         BUDGET + _PACKET),
    )  # fmt: skip
    receiver = Receiver(made.both)
    try:
        bare = [(way, _send(made, receiver, way[1], way[2])) for way in ways]
        for (step, *_, bound), out in bare:
            yield HeistTry(step, "", MISSED if out > bound else PREVENTED, out=out)
        for step, channel, port, register in (
            ("extraction by DNS", "dns", 53, NAMES_ANYWHERE),
            ("extraction by ICMP", "icmp", 0, PINGS_ANYWHERE),
        ):
            # All else in force, and the row as careless hands write it: the step succeeds.
            with in_force(made, "", register):
                out = _send(made, receiver, channel, port)
            yield HeistTry(step, "", MISSED if out else PREVENTED, out=out)
        for step, channel, port, control, register, bound in ways:
            with in_force(made, "", register):
                out = _send(made, receiver, channel, port)
            outcome = PREVENTED if out <= bound else MISSED
            yield HeistTry(step, control, outcome, out=out, bound=bound)
    finally:
        receiver.close()


@contextlib.contextmanager
def in_force(
    made: Enclave, host: str, rows: str, mode: EgressMode = EgressMode.ENFORCE
) -> Iterator[Enforcer]:
    """Have the product compile a register and hold it in a host's namespace (empty: the gateway).

    Raises:
        KernelError: the kernel refused the rules.
    """
    space, device = (
        (made.space(host), "eth0") if host else (made.both.inside, made.both.inside_interface)
    )
    with tempfile.TemporaryDirectory() as folder:
        enforcer = Enforcer(
            register=parse_register(f"version = 1\n{rows}"),
            plan=EgressPlan(
                bound=Bound(weight_bytes=10**12),
                link=Link((device,), 10**9, shape=False),
                mode=mode,
            ),
            store=StateFile(Path(folder)),
            audit=ChainedLog(Path(folder) / "audit.jsonl"),
            authorizer=RefuseAll(),
            kernel=NftKernel(space),
            today=_today(),
        )
        enforcer.apply(first=True)
        try:
            yield enforcer
        finally:
            run_in(space, ["nft", "flush", "ruleset"])


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


def _soon(holds: Callable[[], bool], seconds: float = _WAIT_S) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()
