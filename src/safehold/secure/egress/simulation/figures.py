"""Pictures of a simulation, with matplotlib (the extra `report`)."""

from pathlib import Path

import numpy as np

from safehold.errors import DependencyError
from safehold.secure.egress.simulation.report import SimulationReport

_GB = 1e9


def plot_simulation(report: SimulationReport, path: Path) -> None:
    """Write a picture: delays, bytes taken by unsigned thieves, and mimicry.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("pictures need matplotlib: pip install 'safehold[report]'") from error
    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    delays, taken, mimic = figure.subplots(1, 3)
    for delay, colour in ((report.volume.delay, "#2563eb"), (report.reconciled, "#059669")):
        hours = np.sort([h for h in delay.hours if np.isfinite(h)])
        share = np.arange(1, len(hours) + 1) / len(delay.hours)
        label = f"{delay.detector} (aim {delay.limit_hours:g} h)"
        delays.step(hours, share, color=colour, label=label)
        delays.axvline(delay.limit_hours, color=colour, linestyle=":")
    delays.set(
        xscale="log",
        xlabel="hours to the alarm",
        ylabel="share of runs",
        title=f"thief at {report.volume.delay.share:.0%}, one false alarm a year",
    )
    delays.legend(loc="lower right")
    rates = [theft.rate / report.setup.traffic.level for theft in report.contained.thefts]
    stolen = [max(theft.stolen, 1.0) / _GB for theft in report.contained.thefts]
    taken.loglog(rates, stolen, ".", markersize=3, color="#7c3aed")
    taken.axhline(report.contained.allowed / _GB, color="#dc2626")
    taken.set(
        xlabel="thief's rate / traffic",
        ylabel="GB taken before the block",
        title=f"{len(stolen)} unsigned thieves; red: alpha of S*c",
    )
    shares = [item.share * 100 for item in report.mimicry]
    gone = [item.bytes_by_alarm / _GB for item in report.mimicry]
    mimic.plot(shares, gone, "o-", color="#d97706", label="gone by the alarm (median)")
    whole = report.setup.plan.bound.stolen_bytes / _GB
    mimic.axhline(whole, color="#dc2626", label="all of S*c")
    mimic.set(xlabel="% of the flow", ylabel="GB", title="mimicry: the thief signs its bytes")
    mimic.legend()
    figure.savefig(path, dpi=110)
