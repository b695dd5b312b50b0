"""Prometheus and OpenTelemetry metrics of egress: one set of numbers, two ways to read it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from safehold.secure.egress.enforcement.state import write_durably

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation


class TickReading(msgspec.Struct, frozen=True):
    """The numbers of one tick."""

    passed: Mapping[str, int]
    dropped: Mapping[str, int]
    remaining: Mapping[str, Mapping[str, int]]
    residual: Mapping[str, float]
    rung: Mapping[str, int]
    undeclared: int
    line: int

    def values(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Every number as (metric, labels, value)."""
        for name, value in self.passed.items():
            yield "safehold_egress_passed_bytes", {"flow": name}, value
        for name, value in self.dropped.items():
            yield "safehold_egress_dropped_bytes", {"flow": name}, value
        for name, windows in self.remaining.items():
            for window, left in windows.items():
                labels = {"flow": name, "window": window}
                yield "safehold_egress_remaining_bytes", labels, left
        for name, size in self.residual.items():
            yield "safehold_egress_unexplained_bytes", {"flow": name}, size
        for name, level in self.rung.items():
            yield "safehold_egress_ladder_level", {"flow": name}, level
        yield "safehold_egress_undeclared_bytes", {}, self.undeclared
        yield "safehold_egress_residual_line_bytes", {}, self.line


_METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "safehold_egress_passed_bytes": ("Bytes that left, by flow", ("flow",)),
    "safehold_egress_dropped_bytes": ("Bytes that a budget or block dropped", ("flow",)),
    "safehold_egress_remaining_bytes": ("Bytes a window still lets pass", ("flow", "window")),
    "safehold_egress_unexplained_bytes": ("Residual odometer since the review", ("flow",)),
    "safehold_egress_ladder_level": ("0 none, 1 warn, 2 throttle, 3 block, 4 seal", ("flow",)),
    "safehold_egress_undeclared_bytes": ("Bytes that no row declares", ()),
    "safehold_egress_residual_line_bytes": ("Where the residual odometer blocks", ()),
}


def prometheus_text(reading: TickReading) -> bytes:
    """Return one tick in Prometheus' text format."""
    registry = CollectorRegistry()
    gauges = {
        name: Gauge(name, text, labels, registry=registry)
        for name, (text, labels) in _METRICS.items()
    }
    for name, labels, value in reading.values():
        gauge = gauges[name].labels(**labels) if labels else gauges[name]
        gauge.set(value)
    return generate_latest(registry)


def write_textfile(reading: TickReading, path: Path) -> None:
    """Write the metrics where node_exporter's textfile collector finds them."""
    write_durably(path, prometheus_text(reading))


class OtelMetrics:
    """Observable gauges on an OpenTelemetry meter; `latest` is what they show."""

    def __init__(self, meter: "Meter", first: TickReading) -> None:
        self.latest = first
        for name, (text, _) in _METRICS.items():
            meter.create_observable_gauge(
                name.removesuffix("_bytes").replace("_", "."),
                callbacks=[self._observer(name)],
                unit="By" if name.endswith("_bytes") else "1",
                description=text,
            )

    def _observer(self, wanted: str) -> "Observer":
        return Observer(self, wanted)


class Observer:
    """Reads one metric of the latest tick."""

    def __init__(self, source: OtelMetrics, name: str) -> None:
        self._source = source
        self._name = name

    def __call__(self, options: "CallbackOptions") -> "Iterable[Observation]":
        """Return the observations of this metric."""
        from opentelemetry.metrics import Observation

        del options
        return [
            Observation(value, dict(labels))
            for name, labels, value in self._source.latest.values()
            if name == self._name
        ]
