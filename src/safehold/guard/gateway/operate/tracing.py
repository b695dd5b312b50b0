"""OpenTelemetry traces (extra `otel`) with GenAI semantic conventions, made when an exchange ends.

One span per exchange, with a child for the prompt's verdict, and one `gen_ai.evaluation.result`
event per score. No content is recorded.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from safehold.errors import ConfigError, DependencyError
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.operate.metrics import Metrics
from safehold.guard.gateway.relaying.relay import Watcher
from safehold.guard.gateway.relaying.run_state import RunState
from safehold.guard.interface import Block
from safehold.guard.ledger.interface import LedgerVerdict, Outcome

_SYSTEMS = {
    Surface.CHAT: "openai",
    Surface.RESPONSES: "openai",
    Surface.MESSAGES: "anthropic",
    Surface.EMBEDDINGS: "openai",
    Surface.COMPLETIONS: "openai",
    Surface.MODERATIONS: "openai",
}
_OPERATIONS = {Surface.EMBEDDINGS: "embeddings", Surface.COMPLETIONS: "text_completion"}
_NS = 1_000_000_000
_EXPORT_S = 2
_FAREWELL_S = 2.0


class Both:
    """Counts in the metrics, and traces."""

    def __init__(self, metrics: Metrics, tracer: "Tracer") -> None:
        self._metrics = metrics
        self._tracer = tracer

    def finished(self, state: RunState, outcome: Outcome, judged: LedgerVerdict) -> None:
        """Take note of a finished exchange in both."""
        self._metrics.finished(state, outcome, judged)
        self._tracer.finished(state, outcome, judged)

    def ledger_failed(self, surface: Surface) -> None:
        """Count a row that could not be kept."""
        self._metrics.ledger_failed(surface)

    async def close(self) -> None:
        """Let the tracer send what is left."""
        await asyncio.to_thread(self._tracer.close)


class Tracer:
    """Makes spans with an OpenTelemetry tracer."""

    def __init__(self, tracer: Any, shutdown: Callable[[], object] = lambda: None) -> None:
        self._tracer = tracer
        self._shutdown = shutdown

    def close(self) -> None:
        """Send what is left, for a moment at most: a collector that is dead holds up nobody."""
        thread = threading.Thread(target=self._shutdown, name="otlp-farewell", daemon=True)
        thread.start()
        thread.join(_FAREWELL_S)

    def finished(self, state: RunState, outcome: Outcome, judged: LedgerVerdict) -> None:
        """Record the span of a finished exchange, from its own times."""
        timing, ask = state.timing, state.ask
        offset = time.time() - time.perf_counter()
        start = int((timing.started_at + offset) * _NS)
        operation = _OPERATIONS.get(ask.surface, "chat")
        attributes: dict[str, str | int | float | bool] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _SYSTEMS[ask.surface],
            "gen_ai.request.model": ask.call.model,
            "safehold.decision_id": ask.decision_id,
            "safehold.surface": str(ask.surface),
            "safehold.action": str(state.action),
            "safehold.outcome": str(outcome),
            "safehold.bundle": state.bundle_digest,
            "safehold.delivered_bytes": state.out.text_bytes,
            "safehold.scored_bytes": state.bytes_fed,
        }
        if state.tokens.read is not None:
            attributes["gen_ai.usage.input_tokens"] = state.tokens.read
        if state.tokens.written is not None:
            attributes["gen_ai.usage.output_tokens"] = state.tokens.written
        if state.response_id is not None:
            attributes["gen_ai.response.id"] = state.response_id
        if state.error is not None:
            attributes["error.type"] = state.error
        span = self._tracer.start_span(
            f"{operation} {ask.surface}", start_time=start, attributes=attributes
        )
        report = state.report()
        prompt = "block" if isinstance(state.verdict, Block) else "allow"
        self._score(span, "safehold.prompt", report.prompt_score, prompt)
        self._score(span, "safehold.reply", report.reply_score, str(judged))
        ended = timing.ended_at if timing.ended_at is not None else timing.started_at
        span.end(int((ended + offset) * _NS))

    @staticmethod
    def _score(span: Any, name: str, value: float, label: str) -> None:
        span.add_event(
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": name,
                "gen_ai.evaluation.score.value": value,
                "gen_ai.evaluation.score.label": label,
            },
        )


def watchers(metrics: Metrics, endpoint: str | None) -> Watcher:
    """Return the metrics alone, or with a tracer that exports to an OTLP endpoint.

    Raises:
        DependencyError: The extra `otel` is not installed.
    """
    if endpoint is None:
        return metrics
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise DependencyError("otlp: install safehold[otel]") from error
    # Its own atexit hook would wait for a dead collector; ours is bounded.
    provider = TracerProvider(
        resource=Resource.create({"service.name": "safehold-gateway"}), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Both(metrics, Tracer(provider.get_tracer("safehold.gateway"), provider.shutdown))


def traces_url(endpoint: str) -> str:
    """Return where spans are posted: a collector's base URL gets the standard path.

    Raises:
        ConfigError: It is no http(s) URL.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError("otlp: expected a URL such as http://collector:4318")
    path = parts.path if parts.path.strip("/") else "/v1/traces"
    return parts._replace(path=path).geturl()
