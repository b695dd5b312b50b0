"""Steps that run something foreign, each on a stage of its own with the real execution guard."""

from collections.abc import Iterator

from safehold.demo.heist.enclave import Enclave
from safehold.demo.heist.table import HeistOutcome, HeistTry
from safehold.secure.endpoint.attack.table import measure

PREVENTED, _, MISSED = HeistOutcome
STEPS = (
    ("an unknown program runs", "unknown ELF", (("bin-01", "guard"), ("bin-06", "noexec"))),
    ("a foreign library is loaded", "LD_PRELOAD", (("bin-04", "guard"),)),
    ("a foreign script runs", "sh x.sh", (("bin-05", "guard"),)),
)
"""Step, the attack's name on the bench, and for each control the engine that it is there."""


def foreign_programs(made: Enclave) -> Iterator[HeistTry]:
    """The thief brings a program, a library and a script of his own."""
    del made
    for step, attack, alone in STEPS:
        for control, engine in (("", "none"), *alone):
            rows = {one.attack: one.ran for one in measure(engine, attack).rows}
            yield HeistTry(step, control, MISSED if rows[attack] else PREVENTED)
