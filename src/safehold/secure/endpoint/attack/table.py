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
_MACHINE_LIMIT_S = 3000


def measure(engine: str, only: str = "", *, whole: bool = False) -> Column:
    """Return what one engine stops of the attacks whose name contains `only`; needs root.

    `whole` takes this machine itself, which must be one that is thrown away.

    Raises:
        EndpointError: the stage or the engine failed.
    """
    with tempfile.TemporaryDirectory(
        prefix="safehold-stage-", dir="/var/tmp" if whole else None
    ) as base:
        command = [sys.executable, "-m", "safehold.secure.endpoint.attack.bench", engine, base]
        command.append(only)
        if whole:
            command.append("--machine")
        else:
            command[:0] = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        limit = _MACHINE_LIMIT_S if whole else _LIMIT_S
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=limit)
        except OSError as error:
            raise EndpointError(f"attack {engine}: did not start ({error.strerror})") from error
        except subprocess.TimeoutExpired as error:
            raise EndpointError(f"attack {engine}: did not end within {limit} s") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise EndpointError(f"attack {engine}: {last[0] if last else 'no output'}")
    return msgspec.json.decode(done.stdout, type=Column)


def stopped_of(column: Column, known: frozenset[str] | None = None) -> tuple[int, int]:
    """Return how many of the counted attacks were stopped, and how many there are.

    `known` are those that this kernel runs when no engine is there; None: all of them.
    """
    ran = {row.attack for row in column.rows if row.ran}
    counted = [one.name for one in COUNTED if known is None or one.name in known]
    return sum(name not in ran for name in counted), len(counted)


def left_over(column: Column) -> list[str]:
    """Return the attacks that ran, benign ones left out."""
    ran = {row.attack for row in column.rows if row.ran}
    return [one.name for one in ATTACKS if not one.benign and one.name in ran]


def markdown(
    columns: Sequence[Column], known: frozenset[str] | None = None, *, reasons: bool = True
) -> str:
    """Return the table, and one line for each attack that a combination leaves.

    `known` are the attacks that run without an engine; the others are marked `n/a`. None: all.
    """
    ran = {column.engine: {row.attack for row in column.rows if row.ran} for column in columns}
    names = [column.engine for column in columns]
    lines = ["| attack | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for attack in ATTACKS:
        absent = known is not None and not attack.benign and attack.name not in known
        cells = [
            "n/a" if absent else "RAN" if attack.name in ran[name] else "stop" for name in names
        ]
        mark = " (must run)" if attack.benign else " (more)" if attack.extra else ""
        lines.append(f"| {attack.name}{mark} | " + " | ".join(cells) + " |")
    kills = {None: "no daemon", True: "RAN", False: "stop"}
    lines.append(
        "| worker killed, then an unknown program | "
        + " | ".join(kills[column.after_kill] for column in columns)
        + " |"
    )
    counts = [stopped_of(column, known) for column in columns]
    totals = [f"**{stopped}/{count}**" for stopped, count in counts]
    of = 35 if known is None else counts[0][1] if counts else 0
    lines.append(f"| **stopped, of the {of}** | " + " | ".join(totals) + " |")
    return "\n".join([*lines, *(_left(columns) if reasons else [])]) + "\n"


def _left(columns: Sequence[Column]) -> list[str]:
    lines = ["", "What the combinations leave, and why:", ""]
    for column in columns:
        if "+" in column.engine or column.engine == "all":
            rest = left_over(column)
            said = "; ".join(f"{name} ({REASONS[name]})" for name in rest) or "nothing"
            lines.append(f"* `{column.engine}`: {said}.")
    return lines
