"""What judges share: drills out of the log, and their own way to say what is missing."""

from collections.abc import Collection, Iterator

from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import DAY, HostFacts, Judge, need


def drilled(name: str, *, days: int, seconds: float | None = None) -> Judge:
    """Return a judge of a drill: the newest leaf of that drill is young, passed, and fast."""

    def judge(facts: HostFacts) -> Iterator[str]:
        yield from drill_faults(facts, name, days=days, seconds=seconds)

    return judge


def drill_faults(
    facts: HostFacts, name: str, *, days: int, seconds: float | None = None
) -> Iterator[str]:
    """Yield what is wrong with the newest drill of a name."""
    log = facts.of(LogReading)
    runs = [one for one in log.of_kind("drill") if one.facts.get("drill") == name]
    if not runs:
        yield f"the log holds no drill {name}"
        return
    last = runs[-1]
    age = facts.at - last.time
    yield from need(0 <= age <= days * DAY, f"drill {name} is {age // DAY} days old, not {days}")
    yield from need(last.facts.get("outcome") == "passed", f"drill {name} did not pass")
    if seconds is not None:
        took = last.facts.get("seconds", "")
        quick = took.replace(".", "", 1).isdigit() and float(took) <= seconds
        yield from need(quick, f"drill {name} took {took or '?'} s, not {seconds:g}")


def some(things: Collection[object], what: str) -> Iterator[str]:
    """Yield a fault when there is nothing to judge."""
    yield from need(things, f"there is no {what} to judge")
