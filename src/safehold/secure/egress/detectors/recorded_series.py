"""The detectors on recorded series: what they do on traffic that no model made.

Each line of a file is a JSON object with `id`, `values` (counts at even steps) and optionally
`anomaly_windows`. The first 60 % of a series trains, the rest is watched with and without a thief
of a tenth of its level. Series that recordings show are no byte counts; they only lend their shape.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.random import Generator

from safehold.errors import DataError
from safehold.secure.egress.detectors.baseline import Floats, fit
from safehold.secure.egress.detectors.calibration import calibrate
from safehold.secure.egress.detectors.detectors import Detector, first_alarm
from safehold.secure.egress.detectors.traffic_model import HOUR_S

STEP_S = 300
_MAX_LINE = 64 * 2**20
_TRAIN = 0.6
LEVEL = 1e9
"""Every series is scaled to a mean of a gigabyte an hour; only its shape is of use."""


class Series(msgspec.Struct, frozen=True):
    """A recorded series in hourly sums."""

    name: str
    hourly: tuple[float, ...]
    anomalous: bool


class SeriesResult(msgspec.Struct, frozen=True):
    """What happened on one series; hours are infinite when nothing alarmed while it lasted."""

    name: str
    anomalous: bool
    hours_watched: int
    cv: float
    quiet_alarm: bool
    volume_hours: float
    reconciled_hours: float


class _Line(msgspec.Struct, frozen=True):
    id: str
    values: list[float]
    series: str = ""
    label: str = ""
    anomaly_windows: list[list[str]] = []


def load_series(path: Path) -> Iterator[Series]:
    """Read the series of a file.

    Raises:
        DataError: The file is missing or a line is no series.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if len(line) > _MAX_LINE:
                    raise DataError(f"{path.name}: line {number} is too long")
                try:
                    raw = msgspec.json.decode(line, type=_Line)
                except (msgspec.DecodeError, msgspec.ValidationError) as error:
                    raise DataError(f"{path.name}: line {number} is no series") from error
                values = np.maximum(0.0, np.asarray(raw.values, dtype=float))
                each = HOUR_S // STEP_S
                hourly = values[: len(values) // each * each].reshape(-1, each).sum(axis=1)
                name = Path(raw.series or raw.id).stem
                yield Series(name, tuple(map(float, hourly)), bool(raw.anomaly_windows))
    except OSError as error:
        raise DataError(f"{path.name}: can't be read ({error.strerror})") from error


def evaluate(
    series: Series,
    *,
    share: float,
    rng: Generator,
    alarms_per_year: float = 1.0,
    noise: float = 0.003,
) -> SeriesResult:
    """Train on the first part, watch the rest with and without a thief."""
    hourly = np.asarray(series.hourly)
    hourly = hourly / max(float(hourly.mean()), 1e-12) * LEVEL
    cut = int(len(hourly) * _TRAIN)
    train, watch = hourly[:cut], hourly[cut:]
    theft = share * float(train.mean())
    detector = calibrate(fit(train.tolist(), HOUR_S), alarms_per_year=alarms_per_year, rng=rng)

    def residual(explained: Floats) -> Floats:
        return np.maximum(0.0, explained * (noise * rng.standard_normal(len(explained)) + 0.001))

    honest = calibrate(
        fit(residual(train).tolist(), HOUR_S),
        alarms_per_year=alarms_per_year / 2,
        rng=rng,
        design=1.0,
    )
    level = max(float(train.mean()), 1e-9)
    return SeriesResult(
        name=series.name,
        anomalous=series.anomalous,
        hours_watched=len(watch),
        cv=float((train - np.asarray(detector.baseline.expected(np.arange(cut)))).std() / level),
        quiet_alarm=first_alarm(detector, watch) is not None,
        volume_hours=_hours(detector, watch + theft),
        reconciled_hours=_hours(honest, residual(watch) + theft),
    )


def _hours(detector: Detector, values: Floats) -> float:
    found = first_alarm(detector, values)
    return math.inf if found is None else found + 1.0
