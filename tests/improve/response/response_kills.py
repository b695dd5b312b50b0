"""Kills whoever writes a case, the hot rules and a trial, again and again; prints what was found.

A process of its own, so that it may fork. `python response_kills.py FOLDER ROUNDS` prints JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from safehold.guard.bundle.overlay_file import approve
from safehold.guard.gateway.bundles.trial_memory import TrialMemory, Verdicts, followed, judged
from safehold.improve.response.case import IncidentCase
from safehold.improve.response.gates import GateLimits, GateReport, GateState, GateVerdict
from safehold.improve.response.hotrule import MeasuredRule
from safehold.improve.response.interface import Variant
from safehold.improve.response.rule_book import RuleBook
from safehold.improve.response.trial_book import TrialBook
from safehold.stats import Rate
from safehold.testing.response import (
    DRESS,
    hot_rule,
    incident,
    quorum_of,
    signing_keys,
    trial_plan,
)

KEYS = signing_keys("anna", "bela")
QUORUM = quorum_of(KEYS)
INCIDENT = incident(text="t" * 5_000)
RULE = hot_rule()
PLAN = trial_plan()


def work(folder: Path, turn: int) -> None:
    """Go through every step that writes, once."""
    case = IncidentCase(folder / "case")
    case.begin(INCIDENT, DRESS)
    case.keep_variants([Variant(f"{turn} {n}", restricted=True, held_out=False) for n in range(99)])
    case.keep_rule(MeasuredRule(rule=RULE, caught=Rate(9, 10), twins=Rate(0, 10)))
    book = RuleBook(folder / "hot.json", QUORUM, "anna", KEYS["anna"])
    if not (folder / "hot.json").exists():
        book.begin(1_000)
    book.shadow(RULE, 1_000)
    for name, key in KEYS.items():
        case.keep_approval(approve(RULE, name, key))
    book.act(RULE.id, case.approvals(), 1_000)
    gate = GateVerdict("golden", GateState.PASSED, str(turn))
    case.keep_report(GateReport("a" * 64, "b" * 64, "c1", GateLimits(), (gate,)))
    trial = TrialBook(folder / "trial.json", QUORUM, "anna", KEYS["anna"])
    if not (folder / "trial.json").exists():
        trial.begin(PLAN)
    trial.excuse((f"sh_{turn}",))
    TrialBook(folder / "trial.json", QUORUM, "bela", KEYS["bela"]).approve()
    trial.take()
    memory = TrialMemory(folder / "trial.memory")
    memory.change(lambda kept: followed(kept, PLAN) if kept is None else kept)
    seen = Verdicts(f"sh_{turn}", champion=False, challenger=False)
    memory.change(lambda kept: kept if kept is None else judged(kept, (seen,)))
    book.end(RULE.id, 1_000)


def sound(folder: Path) -> str:
    """Read everything that stands there as its readers do; return what is wrong."""
    case = IncidentCase(folder / "case")
    readers = {
        "incident": case.incident,
        "dress": case.dress,
        "variants": case.variants,
        "rule": case.rule,
        "report": case.report,
        "approvals": case.approvals,
    }
    try:
        for step in case.done():
            readers[step]()
        if (folder / "hot.json").exists():
            RuleBook(folder / "hot.json", QUORUM, "anna", KEYS["anna"]).content()
        if (folder / "trial.json").exists():
            TrialBook(folder / "trial.json", QUORUM, "anna", KEYS["anna"]).plan()
        TrialMemory(folder / "trial.memory").read()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return f"{type(error).__name__}: {error}"
    return ""


def _until_worked(pid: int, seconds: float) -> None:
    """Wait until a process has had so much of a processor, however busy the machine is."""
    while time.clock_gettime((~pid << 3) | 2) < seconds:  # clock_getcpuclockid(3)
        time.sleep(0.002)


def main(folder: Path, rounds: int) -> dict[str, object]:
    """Kill so many writers; return how many were killed and what was unsound."""
    rng = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    steps: set[str] = set()
    for turn in range(rounds):
        child = os.fork()
        if child == 0:
            for n in range(1_000_000):
                work(folder, turn * 1_000 + n)
        _until_worked(child, rng.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        steps.update(IncidentCase(folder / "case").done())
        wrong += [found for found in (sound(folder),) if found]
    work(folder, rounds * 1_000)
    wrong += [found for found in (sound(folder),) if found]
    return {"killed": rounds, "wrong": wrong, "steps": sorted(steps)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
