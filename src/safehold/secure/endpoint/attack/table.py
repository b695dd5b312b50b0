"""Run the bench for each engine and write the table: what runs, and what is left and why."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence

import msgspec

from safehold.errors import EndpointError
from safehold.secure.endpoint.attack.attacks import ATTACKS, COUNTED
from safehold.secure.endpoint.attack.bench import Column
from safehold.secure.endpoint.attack.declared import REASONS

_LIMIT_S = 300


def measure(engine: str, only: str = "") -> Column:
    """Return what one engine stops of the attacks whose name contains `only`; needs root.

    Raises:
        EndpointError: the stage or the engine failed.
    """
    with tempfile.TemporaryDirectory(prefix="safehold-stage-") as base:
        command = [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable,
            "-m", "safehold.secure.endpoint.attack.bench", engine, base, only,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EndpointError(f"attack {engine}: {type(error).__name__}") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise EndpointError(f"attack {engine}: {last[0] if last else 'no output'}")
    return msgspec.json.decode(done.stdout, type=Column)


def stopped_of(column: Column) -> tuple[int, int]:
    """Return how many of the counted attacks were stopped, and how many there are."""
    ran = {row.attack for row in column.rows if row.ran}
    return sum(one.name not in ran for one in COUNTED), len(COUNTED)


def left_over(column: Column) -> list[str]:
    """Return the attacks that ran, benign ones left out."""
    ran = {row.attack for row in column.rows if row.ran}
    return [one.name for one in ATTACKS if not one.benign and one.name in ran]


def markdown(columns: Sequence[Column]) -> str:
    """Return the table, and one line for each attack that any engine leaves."""
    ran = {column.engine: {row.attack for row in column.rows if row.ran} for column in columns}
    names = [column.engine for column in columns]
    lines = ["| attack | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for attack in ATTACKS:
        cells = ["RAN" if attack.name in ran[name] else "stop" for name in names]
        mark = " (must run)" if attack.benign else " (more)" if attack.extra else ""
        lines.append(f"| {attack.name}{mark} | " + " | ".join(cells) + " |")
    kills = {None: "no daemon", True: "RAN", False: "stop"}
    lines.append(
        "| worker killed, then an unknown program | "
        + " | ".join(kills[column.after_kill] for column in columns)
        + " |"
    )
    totals = [f"**{stopped}/{count}**" for stopped, count in map(stopped_of, columns)]
    lines.append("| **stopped, of the 35** | " + " | ".join(totals) + " |")
    lines += ["", "What the combinations leave, and why:", ""]
    for column in columns:
        if "+" in column.engine or column.engine == "all":
            rest = left_over(column)
            said = "; ".join(f"{name} ({REASONS[name]})" for name in rest) or "nothing"
            lines.append(f"* `{column.engine}`: {said}.")
    return "\n".join(lines) + "\n"
