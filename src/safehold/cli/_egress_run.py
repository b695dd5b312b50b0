"""The loop of `safehold egress run`: look, tell, write what others read, read the files anew."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.errors import DependencyError
from safehold.secure.egress.watch.metrics import TickReading

if TYPE_CHECKING:
    from safehold.secure.egress.declare.plan import EgressPlan
    from safehold.secure.egress.watch.alerts import AlertSink
    from safehold.secure.egress.watch.response import Step
    from safehold.secure.egress.watch.watch import Watch

After = Callable[[TickReading], None]
_PID = "watch.pid"
_PAGE_S = 60.0


def keep_watch(
    watch: "Watch",
    *,
    interval: float,
    ticks: int | None,
    as_json: bool,
    sinks: "Sequence[AlertSink]",
    after: Sequence[After],
    state_dir: Path,
) -> None:
    """Look again and again, until `ticks` looks are done or somebody ends it.

    SIGHUP starts the program anew with the same arguments, so that it reads its files again.

    Raises:
        StateError: The last of `ticks` looks failed.
    """
    from safehold.secure.egress.enforcement.state import write_durably
    from safehold.secure.egress.interface import StateError
    from safehold.secure.egress.watch.alerts import tell
    from safehold.secure.egress.watch.response import Rung, Step

    wake = threading.Event()
    previous = signal.signal(signal.SIGHUP, lambda *_: wake.set())
    pid_file = state_dir / _PID
    write_durably(pid_file, f"{os.getpid()}\n".encode())
    count, told = 0, ""
    try:
        while ticks is None or count < ticks:
            begin = time.monotonic()
            try:
                reading, steps = watch.tick()
                told = ""
                for step in steps:
                    _say(step, as_json=as_json)
                for act in after:
                    act(reading)
            except StateError as error:
                # The rules hold and no line moves; a full disk gains nothing for whoever filled it.
                if count + 1 == ticks:
                    raise
                if str(error) != told:
                    told = str(error)
                    click.echo(f"safehold: error: {told}; trying again", err=True)
                    tell([Step(Rung.WARN, "watch", told)], time.time(), sinks)
            count += 1
            left = max(0.0, interval - (time.monotonic() - begin))
            if (ticks is None or count < ticks) and wake.wait(left):
                os.execv(sys.executable, [sys.executable, "-m", "safehold", *sys.argv[1:]])  # noqa: S606 - ourselves
    finally:
        signal.signal(signal.SIGHUP, previous)
        pid_file.unlink(missing_ok=True)


def _say(step: "Step", *, as_json: bool) -> None:
    text = {"level": step.level.name.lower(), "flow": step.flow, "reason": step.reason}
    click.echo(msgspec.json.encode(text).decode() if as_json else " ".join(text.values()))


def tell_to_reload(state_dir: Path) -> int:
    """Tell the running watch to read its files again; return its process, or 0 when none runs."""
    try:
        pid = int((state_dir / _PID).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0
    if b"egress" not in words or b"run" not in words:
        return 0
    os.kill(pid, signal.SIGHUP)
    return pid


def to_textfile(path: Path) -> After:
    """Write the metrics for node_exporter."""
    from safehold.secure.egress.watch.metrics import write_textfile

    return lambda reading: write_textfile(reading, path)


def to_page(path: Path, timeline: Path, plan: "EgressPlan") -> After:
    """Draw the timeline's newest part anew, at most once a minute."""
    from safehold.secure.egress.enforcement.state import write_durably
    from safehold.secure.egress.watch.timeline import newest_rows, render

    drawn = [-_PAGE_S]

    def draw(reading: TickReading) -> None:
        del reading
        now = time.monotonic()
        rows = newest_rows(timeline) if now - drawn[0] >= _PAGE_S else []
        if len(rows) > 1:
            drawn[0] = now
            text = render(rows, stolen_bytes=plan.bound.stolen_bytes, refresh_s=int(_PAGE_S))
            write_durably(path, text.encode())

    return draw


def to_otlp() -> After:
    """Export metrics by OpenTelemetry's own settings (OTEL_EXPORTER_OTLP_ENDPOINT and others).

    Raises:
        DependencyError: OpenTelemetry is not installed.
    """
    from safehold.secure.egress.watch.metrics import OtelMetrics

    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    except ImportError as error:
        raise DependencyError("--otlp needs: pip install 'safehold[otel]'") from error
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    meter = MeterProvider(metric_readers=[reader]).get_meter("safehold.egress")
    shown: list[OtelMetrics] = []

    def export(reading: TickReading) -> None:
        if shown:
            shown[0].latest = reading
        else:
            shown.append(OtelMetrics(meter, reading))

    return export
