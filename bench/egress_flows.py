"""Egress with many flows: the register's check, a block, a look, and a day of the timeline.

Run `python -m bench --only egress_flows`. The kernel's part runs in network namespaces of its own
(root). A block is timed until the kernel has it, and until the command is done.
"""

import os
import tempfile
import time
from pathlib import Path

from bench.tables import Table

from safehold.secure.egress.declare.plan import Bound
from safehold.secure.egress.declare.register import parse_register
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import StateFile
from safehold.secure.egress.interface import RefuseAll
from safehold.secure.egress.kernel.netns import pair
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.watch.timeline_files import TimelineFile, timeline_rows
from safehold.secure.egress.watch.timeline_rows import TimelineRow
from safehold.testing.egress import TODAY, plan, row

LOOK_S = 10
_BEGINS = 1_795_000_000
_WINDOWS = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_419_200}
_SAMPLE_S = {"hour": 60, "day": 600, "week": 3_600, "month": 3_600}


def register_text(flows: int) -> str:
    """Return a register of so many flows to apart networks."""
    nets = (f'["10.{n // 256}.{n % 256}.0/24"]' for n in range(flows))
    return "version = 1\n" + "".join(row(f"f{n}", destination=net) for n, net in enumerate(nets))


def look(at: int, flows: int) -> TimelineRow:
    """Return a look at which every flow has sent since the last one, and every budget moved."""
    passed = {
        f"f{n}": at * 100_003 * (1 + n % 97) + at * at * 7_919 * (n + 1) % 65_521
        for n in range(flows)
    }

    def left(name: str, window: str) -> int:
        # What is left goes down with what passed, and up when an odometer's sample slides out.
        out = max(0, at - _WINDOWS[window] // LOOK_S) * LOOK_S // _SAMPLE_S[window]
        return 10**12 - passed[name] + out * 60_000

    return TimelineRow(
        time=_BEGINS + at * LOOK_S,
        passed=passed,
        remaining={name: {window: left(name, window) for window in _WINDOWS} for name in passed},
        residual={name: size * 0.013 for name, size in passed.items()},
        undeclared=at // 100,
        line=10**9,
        budgets={name: dict.fromkeys(_WINDOWS, 10**12) for name in passed},
        headers={name: size // 20 for name, size in passed.items()},
    )


def day(folder: Path, flows: int, looks: int = 86_400 // LOOK_S) -> tuple[float, float, float]:
    """Write a day; return its megabytes on disk, CPU ms a look, and CPU s to read it all."""
    path = folder / f"timeline{flows}.jsonl"
    file, spent = TimelineFile(path), 0.0
    for at in range(looks):
        one = look(at, flows)
        began = time.process_time()
        file.append(one)
        spent += time.process_time() - began
    size = sum(one.stat().st_size for one in folder.glob(f"timeline{flows}*"))
    began = time.process_time()
    count = sum(1 for _ in timeline_rows(path))
    if count < looks / 60:
        raise RuntimeError("the timeline lost rows")
    return size / 1e6, spent / looks * 1e3, time.process_time() - began


def check(flows: int) -> float:
    """Return the CPU seconds of the register's check."""
    text = register_text(flows)
    began = time.process_time()
    parse_register(text)
    return time.process_time() - began


def blocked(flows: int, folder: Path) -> tuple[float, float, float]:
    """Apply a register of so many flows in a namespace; return CPU s of a look and two of a block.

    The first of a block is until the kernel drops, the second until all is written.
    """
    register = parse_register(register_text(flows))
    with pair("sfbench") as both:
        kernel = _Timed(both.inside)
        enforcer = Enforcer(
            register=register,
            plan=plan(bound=Bound(weight_bytes=10**15)),
            store=StateFile(folder / f"state{flows}"),
            audit=ChainedLog(folder / f"audit{flows}.jsonl"),
            authorizer=RefuseAll(),
            kernel=kernel,
            today=TODAY,
        )
        enforcer.apply(first=True)
        enforcer.tick()
        began = _cpu()
        enforcer.tick()
        looked = _cpu() - began
        began = kernel.began = _cpu()
        kernel.first = 0.0
        enforcer.block("f1", "bench")
        return looked, kernel.first, _cpu() - began


class _Timed(NftKernel):
    """Notes when the kernel took the first transaction."""

    began = first = 0.0

    def apply(self, transaction: dict[str, object]) -> None:
        """Apply it, and note the CPU seconds so far."""
        super().apply(transaction)
        self.first = self.first or _cpu() - self.began


def _cpu() -> float:
    """Return the CPU seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure 100 and 1,000 flows, and the check of 10,000; `quick` takes fewer."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="she-") as name:
        folder = Path(name)
        for flows in (10, 50) if quick else (100, 1_000):
            looks = 400 if quick else 86_400 // LOOK_S
            looked, dropped, done = blocked(flows, folder)
            size, each, read = day(folder, flows, looks)
            rows.append(
                (
                    f"{flows:,}",
                    f"{check(flows):.2f}",
                    f"{looked:.2f}",
                    f"{dropped:.2f}",
                    f"{done:.2f}",
                    f"{size:.1f}",
                    f"{each:.1f}",
                    f"{read:.1f}",
                )
            )
            print(*rows[-1], sep="  ", flush=True)
        if not quick:
            rows.append(("10,000", f"{check(10_000):.2f}", *("-",) * 6))
    return [
        Table(
            title="Egress with many flows",
            columns=(
                "flows",
                "check, CPU s",
                "a look, CPU s",
                "block: kernel, CPU s",
                "block: done, CPU s",
                "a day of timeline, MB",
                "a row, CPU ms",
                "the day read, CPU s",
            ),
            rows=tuple(rows),
            note="Every flow sends between all looks, ten seconds apart; nft's CPU is counted.",
        )
    ]
