"""The shipped example host: 1 TB of weights behind 220 GB a day of explained traffic."""

from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link
from safehold.secure.egress.declare.register import Register, parse_register
from safehold.secure.egress.detectors.traffic_model import HOUR_S, Traffic
from safehold.secure.egress.simulation.example_flows import operating_flows
from safehold.secure.egress.simulation.simulate import Setup

REGISTER = """version = 1

[[flow]]
id = "replies"
owner = "serving team"
purpose = "answers of the model to API clients"
data_class = "model-output"
direction = "serve"
protocol = "tcp"
ports = [8443]
destination = ["0.0.0.0/0", "::/0"]
source = { user = "vllm" }
reconciled = true
peak = "200 Mbit/s"
expires = 2099-01-01
budget = { hour = "25 GB", day = "330 GB", week = "2 TB", month = "8 TB" }

""" + operating_flows()

PLAN = """version = 1
mode = "enforce"

[weights]
size = "1 TB"

[bound]
compression = 0.0625   # what the plan binds on; the proof shows 1, 1/16 and 1/100
steal_days = 30
alpha = 0.1
review_days = 7

[link]
interfaces = ["eth0"]
rate = "200 Mbit/s"
"""


def shipped_register() -> Register:
    """The register of the example."""
    return parse_register(REGISTER)


def shipped_plan(compression: float = 1 / 16) -> EgressPlan:
    """The plan of the example."""
    return EgressPlan(
        bound=Bound(weight_bytes=10**12, compression=compression),
        link=Link(interfaces=("eth0",), rate_bit_s=200_000_000),
    )


def shipped_setup(phi: float = 0.0) -> Setup:
    """The simulated host of the example."""
    return Setup(
        traffic=Traffic(level=220e9 / 86_400 * HOUR_S, phi=phi),
        plan=shipped_plan(),
        flows=shipped_register().flows,
    )
