"""Self-tests of the egress detectors: what they must find, beside traffic that they must leave.

Each runs the product's own detector on synthetic traffic with a fixed seed, and returns the seconds
of that traffic until the finding (None: not found, or the honest twin alarmed too).
"""

import datetime as dt

import numpy as np

from safehold.secure.egress.bounds.budget import residual_line
from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link
from safehold.secure.egress.declare.register import Flow, parse_register
from safehold.secure.egress.detectors.baseline import fit
from safehold.secure.egress.detectors.calibration import calibrate
from safehold.secure.egress.detectors.detectors import first_alarm
from safehold.secure.egress.detectors.shape import beacon_score, limit_for
from safehold.secure.egress.detectors.traffic_model import HOUR_S, Traffic
from safehold.secure.egress.explain.accounting import Residual
from safehold.secure.egress.kernel.attribution import Owner, SocketUse
from safehold.secure.egress.watch.response import Ladder, Rung, Signals, decide
from safehold.secure.egress.watch.shape_watch import ShapeState, observe, scores, shape_alarms

_SEED = 20
_LEVEL = 1e9
_WEEK_H = 7 * 24
_TRAINED_H = 63 * 24
_YEARS = 60
_REGISTER = """version = 1
[[flow]]
id = "replies"
owner = "drill"
purpose = "replies to clients"
data_class = "model-output"
direction = "serve"
protocol = "tcp"
ports = [8443]
destination = ["0.0.0.0/0"]
source = { uid = 0 }
reconciled = true
peak = "50 Mbit/s"
expires = 2099-01-01
budget = { hour = "2 GB", day = "30 GB", week = "200 GB", month = "800 GB" }
"""


def drift() -> float | None:
    """A flow that grows by 10 % is found within the week; the week before it is quiet."""
    rng = np.random.default_rng(_SEED)
    traffic = Traffic(level=_LEVEL, cv=0.1)
    series = traffic.draw(rng, _TRAINED_H + 2 * _WEEK_H, HOUR_S)[0]
    baseline = fit(series[:_TRAINED_H].tolist(), HOUR_S)
    detector = calibrate(baseline, alarms_per_year=1.0, rng=rng, years=_YEARS)
    honest, later = series[_TRAINED_H : _TRAINED_H + _WEEK_H], series[_TRAINED_H + _WEEK_H :]
    if first_alarm(detector, honest) is not None:
        return None
    found = first_alarm(detector, later * 1.10)
    return None if found is None else (found + 1.0) * HOUR_S


def slow() -> float | None:
    """Two per cent of a flow that nobody explains are blocked before they add up to the weights."""
    flow = _flow()
    plan = EgressPlan(
        bound=Bound(weight_bytes=10**12),
        link=Link(("eth0",), 10**9, shape=False),
        trust_senders=True,
    )
    line = residual_line((flow,), plan)
    honest, stolen, ladder = Residual(), Residual(), Ladder()
    hour, leaked = 0, 0.0
    while line > 0 and leaked < plan.bound.stolen_bytes:
        hour += 1
        now, leaked = hour * float(HOUR_S), leaked + 0.02 * _LEVEL
        bank = 0.01 * line
        stolen = stolen.advance(
            kernel=1.02 * _LEVEL, expected=_LEVEL, now=now, lag_s=70.0, bank=bank
        )
        honest = honest.advance(kernel=_LEVEL, expected=_LEVEL, now=now, lag_s=70.0, bank=bank)
        if honest.odometer:
            return None
        ladder, steps = decide(ladder, Signals(now, line, residual={flow.id: stolen.odometer}))
        if any(one.flow == flow.id and one.level >= Rung.BLOCK for one in steps):
            return now
    return None


def ratio() -> float | None:
    """A flow that only pulled begins to push: its ratio passes 0, and was below before."""
    limits = {"pcr": 0.0}
    pulls = observe(ShapeState(), (_flow(),), [_use(0, sent=10_000, received=90_000)], 0.0)
    pushes = observe(pulls, (_flow(),), [_use(1, sent=900_000, received=9_000)], 600.0)
    if shape_alarms(scores(pulls), limits) or not shape_alarms(scores(pushes), limits):
        return None
    return 600.0


def beacon() -> float | None:
    """One contact a minute passes a limit that a year of honest hours passes once."""
    rng = np.random.default_rng(_SEED)
    honest = []
    for _ in range(200):
        times = np.sort(rng.uniform(0, HOUR_S, 40)).tolist()
        honest.append(beacon_score(times, rng.integers(200, 20_000, 40).tolist()))
    limit = limit_for(honest, windows_per_year=365 * 24.0, alarms_per_year=1.0)
    state, found = ShapeState(), None
    for minute in range(1, 61):
        state = observe(state, (_flow(),), [_use(minute, sent=512, received=64)], minute * 60.0)
        if found is None and shape_alarms(scores(state), {"beacon": limit}):
            found = minute * 60.0
    return found


def _flow() -> Flow:
    return parse_register(_REGISTER).live(dt.date(2026, 1, 1))[0]


def _use(number: int, *, sent: int, received: int) -> SocketUse:
    return SocketUse(
        destination="192.0.2.7",
        port=40_000 + number,
        local_port=8443,
        uid=0,
        sent=sent,
        received=received,
        owner=Owner(inode=number),
    )
