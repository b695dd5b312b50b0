"""From the machine's answers to the table and figures of docs/endpoint.md, and what falls short."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from safehold.secure.endpoint.attack.attacks import ATTACKS
from safehold.secure.endpoint.attack.bench import MACHINE, Column
from safehold.secure.endpoint.attack.declared import LEAVES, MACHINE_RACES
from safehold.secure.endpoint.attack.table import left_over, markdown, stopped_of

BEGIN, END = "<!-- machine table: begin -->", "<!-- machine table: end -->"
# What the design measured by hand, of 34 attacks that this kernel knows.
WANTED = {"ima": 26, "apparmor": 28, "bpf-lsm": 29, "systemd": 29}
KNOWN = 34


class Shown(msgspec.Struct, frozen=True):
    """By engine, what it stops of the attacks that run without one; the boots; what falls short."""

    stopped: dict[str, tuple[int, int]]
    left: dict[str, list[str]]
    boot: dict[str, object]
    short: list[str]


def columns_of(answers: Mapping[str, Any]) -> list[Column]:
    """Return the columns that ended, in their order."""
    found = answers.get("columns", {})
    return [
        msgspec.convert(found[name], Column)
        for name in MACHINE
        if name in found and "broken" not in found[name]
    ]


def known_of(columns: Sequence[Column]) -> frozenset[str]:
    """Return the attacks that run on this kernel when no engine is there."""
    bare = [column for column in columns if column.engine == "none"]
    return frozenset(row.attack for column in bare for row in column.rows if row.ran)


def shown(answers: Mapping[str, Any]) -> Shown:
    """Return the figures, and each one that is not as it must be."""
    columns = columns_of(answers)
    given = answers.get("columns", {})
    short = [f"{name}: {one['broken']}" for name, one in given.items() if "broken" in one]
    if "broken" in answers.get("last", {}):
        short.append(f"the machine: {answers['last']['broken']}")
    if not columns:
        short.append("no column was measured")
    known = known_of(columns)
    stopped, left = {}, {}
    for column in columns:
        stopped[column.engine] = stopped_of(column, known)
        left[column.engine] = [name for name in left_over(column) if name in known]
        count, of = stopped[column.engine]
        wanted = WANTED.get(column.engine, 0) + (of - KNOWN)
        if known and column.engine in WANTED and count < wanted:
            short.append(f"{column.engine} stops {count} of {of}, expected {wanted}")
        declared = LEAVES.get(column.engine)
        open_ = set(left[column.engine]) - MACHINE_RACES.get(column.engine, frozenset())
        if known and declared is not None and open_ - declared:
            short.append(
                f"{column.engine} leaves, undeclared: {', '.join(sorted(open_ - declared))}"
            )
        if column.after_kill:
            short.append(f"{column.engine}: an unknown program ran after its daemon was killed")
        if column.engine == "none" and of < KNOWN:
            short.append(f"without an engine only {of} attacks run")
        if not any(row.attack == "allowed program" and row.ran for row in column.rows):
            short.append(f"{column.engine}: the allowed program did not run")
    boot = _boot(answers.get("boot", {}), short)
    return Shown(stopped, left, boot, short)


def _boot(found: Mapping[str, Any], short: list[str]) -> dict[str, object]:
    if not found:
        return {}
    learned, enforced = found.get("learn", {}), found.get("enforce", {})
    if not enforced or "broken" in enforced:
        short.append(f"boot: {enforced.get('broken') or learned.get('broken') or 'not enforced'}")
        return {}
    facts = {
        "learned": learned["seen"],
        "rows": learned["rows"],
        "state_learned": learned["host"]["state"],
        "state_enforced": enforced["host"]["state"],
        "failed_enforced": enforced["host"]["failed"],
        "apt_learned": learned["apt"],
        "apt_enforced": enforced["apt"],
        "asked": enforced["pulse"].get("asked", 0),
        "mode": enforced["pulse"].get("mode", "silent"),
        "refused": enforced["refused"],
        "times": enforced["pulse"].get("refused", 0),
        "unknown_ran": enforced.get("unknown_ran", ["not tried"]),
        "replaced": [
            f"{when}: {note}"
            for when, answer in (("learn", learned), ("enforce", enforced))
            for note in answer["notes"]
            if "worker" in note
        ],
    }
    if facts["replaced"]:
        short.append(f"boot: the guard's worker was replaced ({len(facts['replaced'])} notes)")
    if facts["refused"]:
        short.append(f"boot: {len(enforced['refused'])} things were refused in error")
    if facts["unknown_ran"]:
        short.append("boot: an unknown program ran under enforcement")
    if facts["mode"] != "enforce":
        short.append("boot: the guard did not enforce")
    if facts["state_enforced"] != facts["state_learned"]:
        short.append(f"boot: {facts['state_enforced']}, was {facts['state_learned']}")
    if any(enforced["apt"].values()):
        short.append("boot: a step of apt failed under enforcement")
    return facts


def table(answers: Mapping[str, Any]) -> str:
    """Return the table, and one line for the boots."""
    columns = columns_of(answers)
    if not columns:
        return "Not measured at this revision: `make vm` on a quiet machine, then `--docs`.\n"
    found = shown(answers)
    known = known_of(columns)
    text = markdown(columns, known, reasons=False)
    absent = [one.name for one in ATTACKS if not one.benign and one.name not in known]
    lines = [f"This kernel does not know: {', '.join(absent) or 'none'}.", ""]
    open_ = [name for name in MACHINE if name not in {one.engine for one in columns}]
    open_ += [] if found.boot else ["the guard over a boot and apt"]
    if open_:
        lines += [f"Not measured at this revision: {', '.join(open_)}.", ""]
    if found.boot:
        facts = found.boot
        things = {one.partition(": ")[0] for one in facts["refused"]}  # type: ignore[attr-defined]
        said = (
            f"Learned over a boot and apt: {facts['learned']} things, {facts['rows']} rows.",
            f"Enforced over both again: {facts['asked']} questions, {facts['times']} refused.",
            f"The system is `{facts['state_enforced']}`.",
            "What was not learned did not run.",
        )
        lines += [" ".join(said), ""]
        lines += [f"Refused in error: {'; '.join(sorted(things))}.", ""] if things else []
    return text + "\n" + "\n".join(lines)


def write(page: Path, answers: Mapping[str, Any]) -> None:
    """Replace the part of the page between the two marks."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page.name}: expected {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{table(answers)}{END}{after}", encoding="utf-8")
