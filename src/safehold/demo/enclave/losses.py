"""Drills of a loss: extraction by each way, what may have left, containment, revocation.

What is pushed are zeros, into a cable that ends in nothing; what truly leaves is counted by the
device at its far end.
"""

import contextlib
import datetime as dt
import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from safehold.demo.enclave.parts import ETC, VAR, enforcer
from safehold.demo.enclave.people import APPROVERS, People, part
from safehold.errors import TrustError
from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.facts.host import LocalHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.interface import Assurance
from safehold.govern.controls.library import stock_catalogue
from safehold.secure.egress.bounds.budget import total_leak
from safehold.secure.egress.declare.plan import load_plan
from safehold.secure.egress.declare.register import load_register
from safehold.secure.egress.enforcement.log_adapter import DeskWeightGrants
from safehold.secure.egress.watch.timeline_files import last_rows, timeline_rows
from safehold.secure.egress.watch.timeline_rows import TimelineRow
from safehold.trust.grants.interface import GrantRequest

_FAR = Path("/sys/class/net/out0/statistics/rx_bytes")
_RESOLVER, _STRANGER = "192.0.2.53", "192.0.2.99"
_DATAGRAMS, _EACH = 100, 1_000
_PUSHED = _DATAGRAMS * _EACH
_BUDGET = 20_000
_PACKET = 65_536
_NOISE = 2_000
"""Bytes of frames that are no packet of ours, such as a device that announces itself."""
_SAMPLE = 15
_WAIT_S = 5.0


class Losses:
    """The drills; one enclave plays each once, `exfiltration` first."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._left = 0

    def exfiltration(self) -> bool:
        """Nothing leaves undeclared by TCP, UDP, DNS or ICMP; a declared flow within its budget."""
        _neighbours()
        begun = _far()
        declared = _left(lambda: _datagrams(_RESOLVER, 53))
        undeclared = [
            _left(lambda: _datagrams(_STRANGER, 9000)),
            _left(lambda: _datagrams(_STRANGER, 53)),
            _left(_pings),
            _left(_connects),
        ]
        self._left = _far() - begun
        return 0 < declared <= _BUDGET + _PACKET and max(undeclared) <= _NOISE

    def loss_estimate(self) -> bool:
        """What truly left is between nothing and the estimate, and that within the budgets."""
        flows = load_register(ETC / "flows.toml").live(dt.datetime.now(dt.UTC).date())
        bound = total_leak(flows, load_plan(ETC / "egress.toml"), 3600)
        counted = _soon(lambda: sum(_last().passed.values()) > 0)
        estimate = sum(_last().passed.values())
        # Frames have 14 bytes of their own, which the kernel's rules do not count.
        frames = 14 * _DATAGRAMS + _NOISE
        return counted and 0 < self._left <= estimate + frames and estimate <= bound

    def incident(self) -> bool:
        """The watch tells of undeclared bytes; then every flow and every grant is closed."""
        before = _actions()
        grant = self._granted()
        _datagrams(_STRANGER, 9001)
        told = _soon(lambda: _actions() > before)
        held = enforcer()
        for flow in held.flows:
            held.block(flow.id, "the drill of an incident")
        self._revoke_all("the drill of an incident")
        self._people.record(
            "incident", {"event": "drill", "contained": "flows blocked, grants ended"}
        )
        silent = _left(lambda: _datagrams(_RESOLVER, 53)) <= _NOISE
        return told and silent and self._refused(grant)

    def mass_revocation(self) -> bool:
        """Several live grants on weights end by one act, and none of them is used after it."""
        grants = [self._granted() for _ in range(3)]
        ended = self._revoke_all("the drill of a mass revocation")
        return ended >= len(grants) and all(self._refused(one) for one in grants)

    def sample_audit(self, site: Site, seed: int) -> tuple[bool, str]:
        """Re-execute a seeded sample of the automatic controls: each says what it said before."""
        automatic = [one.id for one in stock_catalogue().controls if one.way is Assurance.AUTOMATIC]
        sample = sorted(random.Random(seed).sample(automatic, _SAMPLE))  # noqa: S311 - drawn by a seed that is told
        runs = [run_controls(stock_catalogue(), LocalHost(), site) for _ in range(2)]
        first, second = ({one.control: one.status for one in run.results} for run in runs)
        return all(first[one] is second[one] for one in sample), " ".join(sample)

    def _granted(self) -> GrantRequest:
        trust = self._people.trust
        trust.time = int(time.time())
        request = trust.ask("dev-one", "weights.load", resource=part("model-00001-of-00002"))
        trust.file(request)
        trust.approve(request, *APPROVERS)
        return request

    def _revoke_all(self, reason: str) -> int:
        self._people.trust.time = int(time.time())
        return DeskWeightGrants(self._people.trust.desk).revoke_all(reason)

    def _refused(self, request: GrantRequest) -> bool:
        trust = self._people.trust
        try:
            trust.use(request)
        except TrustError:
            trust.desk.alarm(request.sha256, "refused", "a grant that was ended")
            return True
        return False


def _neighbours() -> None:
    """Name the far machines' addresses on the cable: packets that may leave then really do."""
    for number, address in enumerate((_RESOLVER, _STRANGER)):
        words = ("neigh", "replace", address, "lladdr", f"02:00:00:00:00:{number + 16:02x}",
                 "dev", "eth0", "nud", "permanent")  # fmt: skip
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


def _far() -> int:
    return int(_FAR.read_text())


def _left(push: Callable[[], None]) -> int:
    before = _far()
    push()
    time.sleep(0.1)
    return _far() - before


def _datagrams(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for _ in range(_DATAGRAMS):
            with contextlib.suppress(OSError):
                out.sendto(bytes(_EACH), (address, port))


def _pings() -> None:
    echo = b"\x08\x00\xf7\xff\x00\x00\x00\x00" + bytes(_EACH)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as out:
        for _ in range(_DATAGRAMS):
            with contextlib.suppress(OSError):
                out.sendto(echo, (_STRANGER, 0))


def _connects() -> None:
    for port in range(9100, 9110):
        with socket.socket() as trial:
            trial.settimeout(0.05)
            trial.connect_ex((_STRANGER, port))


def _last() -> TimelineRow:
    return last_rows(VAR / "egress" / "timeline.jsonl", at_least_bytes=0)[-1]


def _actions() -> int:
    return sum(len(one.actions) for one in timeline_rows(VAR / "egress" / "timeline.jsonl"))


def _soon(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.1)
    return False
