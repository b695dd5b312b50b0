"""What a simulation showed, in words: every rate with its n and exact bound."""

import math

import msgspec

from safehold.secure.egress.detectors.recorded_series import SeriesResult
from safehold.secure.egress.simulation.by_volume import VOLUME_HOURS, VolumeStudy
from safehold.secure.egress.simulation.delay import Delay
from safehold.secure.egress.simulation.simulate import Containment, Mimicry, Setup
from safehold.secure.egress.units import human_bytes
from safehold.stats import Rate


class SimulationReport(msgspec.Struct, frozen=True):
    """All parts of one simulation."""

    setup: Setup
    seed: int
    volume: VolumeStudy
    reconciled: Delay
    contained: Containment
    mimicry: tuple[Mimicry, ...]
    series: tuple[SeriesResult, ...] = ()

    def summary(self) -> dict[str, object]:
        """The figures for machines."""
        return {
            "seed": self.seed,
            "alarms_per_year": self.setup.alarms_per_year,
            "volume": _volume(self.volume),
            "reconciled": _delay(self.reconciled),
            "contained": {
                "runs": self.contained.exceeded.n,
                "exceeded_alpha": self.contained.exceeded.events,
                "upper_bound": self.contained.exceeded.upper,
                "worst_bytes": self.contained.worst,
                "allowed_bytes": self.contained.allowed,
                "honest_hosts_blocked": self.contained.honest_blocked.at_most(),
            },
            "mimicry": [msgspec.to_builtins(_finite(item)) for item in self.mimicry],
            "series": [msgspec.to_builtins(_finite(item)) for item in self.series],
        }


def _finite(item: Mimicry | SeriesResult) -> dict[str, object]:
    plain: dict[str, object] = msgspec.structs.asdict(item)
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in plain.items()
    }


def _volume(found: VolumeStudy) -> dict[str, object]:
    ratio = found.ratio
    return {
        **_delay(found.delay),
        "weeks_learned": found.weeks,
        "in_time_lower_over_hosts": found.lower,
        "optimum_mean_hours": found.optimum.mean_hours,
        "optimum_cusum_in_time": _pair(found.optimum.cusum_in_time),
        "optimum_window_in_time": _pair(found.optimum.window_in_time),
        "mean_over_optimum": ratio if math.isfinite(ratio) else None,
        "years_with_false_alarm_upper": found.upper,
        "false_alarms_per_year": _plain(found.alarms_per_year),
        "false_alarms_per_year_upper": _plain(found.alarms_per_year_upper),
        "found_in_time_by_share": {f"{size:g}": _pair(rate) for size, rate in found.restored.found},
        "share_found_in_time": (
            found.restored.share if math.isfinite(found.restored.share) else None
        ),
        "budget_left": found.restored.factor,
    }


def _pair(rate: Rate) -> list[int]:
    return [rate.events, rate.n]


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _study_lines(report: SimulationReport) -> list[str]:
    found, level = report.volume, report.setup.traffic.level * 24
    lines = [
        (
            f"  {'':<11} {found.alarms_per_year:.2f} false alarms a year (at most "
            f"{found.alarms_per_year_upper:.2f}, 95 % over hosts); mean delay {found.ratio:.2f} "
            f"times the {found.optimum.mean_hours:.0f} h of an optimum that is told everything"
        ),
        (
            f"  {'':<11} in time at least {found.lower:.1%} (95 % over hosts), learned from "
            f"{found.weeks} weeks"
        ),
        *(
            f"  {'':<11} told everything, {rule}: {rate.at_least()} in time"
            for rule, rate in (
                ("the CUSUM of shortest mean delay", found.optimum.cusum_in_time),
                (f"the sum over {VOLUME_HOURS} h", found.optimum.window_in_time),
            )
        ),
    ]
    if found.restored.factor >= 1:
        return lines
    if found.restored.factor <= 0:
        return [*lines, f"  {'':<11} no budget that was tried restores {VOLUME_HOURS} h"]
    return [
        *lines,
        (
            f"  {'':<11} 90 % within {VOLUME_HOURS} h again at {found.restored.factor:.0%} of the "
            f"budget: {human_bytes(level * found.restored.factor)} a day, of which the same bytes "
            f"are {found.restored.share:.0%}"
        ),
    ]


def _delay(delay: Delay) -> dict[str, object]:
    return {
        "share": delay.share,
        "median_hours": delay.median if math.isfinite(delay.median) else None,
        "mean_hours": delay.mean if math.isfinite(delay.mean) else None,
        "limit_hours": delay.limit_hours,
        "in_time": delay.in_time.events,
        "runs": delay.in_time.n,
        "lower_bound": delay.in_time.lower,
        "lost_bytes": delay.lost_bytes,
        "years_with_false_alarm": delay.no_thief_alarm.events,
        "years": delay.no_thief_alarm.n,
        "fitted_hosts": delay.hosts,
    }


def simulation_text(report: SimulationReport) -> str:
    """Say what happened, for a person."""
    level = report.setup.traffic.level * 24
    found = report.contained
    kinds: dict[tuple[str, str], int] = {}
    for theft in found.thefts:
        key = (theft.thief, theft.stopped_by)
        kinds[key] = kinds.get(key, 0) + 1
    lines = [
        (
            f"host: {human_bytes(level)} a day, noise {report.setup.traffic.cv:.0%} an hour, "
            f"correlation {report.setup.traffic.phi:g}; seed {report.seed}"
        ),
        "",
        f"a thief at {report.volume.delay.share:.1%} of the traffic, at one false alarm a year:",
        *_delay_lines(report.volume.delay),
        *_study_lines(report),
        *_delay_lines(report.reconciled),
        "",
        f"unsigned thieves between two reviews ({found.exceeded.n} scenarios):",
        (
            f"  got more than alpha of S*c ({human_bytes(found.allowed)}) before the block: "
            f"{found.exceeded.at_most()}"
        ),
        (
            f"  worst {human_bytes(found.worst)}; residual line {human_bytes(found.line)}, lag "
            f"{human_bytes(found.lag)}, slack {human_bytes(found.slack)}"
        ),
        f"  honest hosts blocked in the same time: {found.honest_blocked.at_most()}",
        *(
            f"  {thief:<24}{stopped:<28}{count:>5}"
            for (thief, stopped), count in sorted(kinds.items())
        ),
        "",
        "where mimicry wins (the thief owns the signing sender; only volume is left):",
        *(_mimicry_line(item) for item in report.mimicry),
    ]
    if report.series:
        lines += [
            "",
            f"recorded series, a thief at {report.volume.delay.share:.0%} of their level:",
        ]
        lines += [_series_line(item) for item in report.series]
        within = Rate(
            sum(item.volume_hours <= report.volume.delay.limit_hours for item in report.series),
            len(report.series),
        )
        day = Rate(
            sum(item.reconciled_hours <= report.reconciled.limit_hours for item in report.series),
            len(report.series),
        )
        lines.append(f"  within 110 h by volume alone: {within.at_least()}")
        lines.append(f"  within 24 h with reconciliation: {day.at_least()}")
    return "\n".join(lines)


def _delay_lines(delay: Delay) -> list[str]:
    return [
        (
            f"  {delay.detector:<11} median {_hours(delay.median)}, mean {_hours(delay.mean)}, "
            f"lost {human_bytes(delay.lost_bytes)}; within {delay.limit_hours:g} h: "
            f"{delay.in_time.at_least()}"
        ),
        (
            f"  {'':<11} years with a false alarm: {delay.no_thief_alarm.at_most()} "
            f"({delay.hosts} fitted hosts; 63 % is one a year)"
        ),
    ]


def _hours(value: float) -> str:
    return f"{value:.0f} h" if math.isfinite(value) else "never"


def _mimicry_line(item: Mimicry) -> str:
    return (
        f"  {item.share:>5.0%} of the flow: found within 30 days {item.found.at_least()}, median "
        f"{_hours(item.median_hours)}, {human_bytes(item.bytes_by_alarm)} gone by then; all "
        f"of S*c in {item.budget_days_to_all:.3g} days if nobody stops it"
    )


def _series_line(item: SeriesResult) -> str:
    mark = "alarm without a thief" if item.quiet_alarm else "quiet"
    labelled = ", has labelled anomalies" if item.anomalous else ""
    return (
        f"  {item.name:<40} noise {item.cv:>5.0%}  volume {_hours(item.volume_hours):>6}  "
        f"reconciled {_hours(item.reconciled_hours):>6}  {mark}{labelled}"
    )
