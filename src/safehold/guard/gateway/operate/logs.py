"""Structured logs: one JSON object a line, ids and numbers only. Content never gets here."""

import json
import logging
import sys
import time


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line; of an exception only the type is told."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name == NAME else record.name,
        }
        if record.name.startswith("uvicorn"):
            line["message"] = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        line.update(getattr(record, "fields", {}))
        return json.dumps(line, ensure_ascii=True)


NAME = "safehold.gateway"
_LIBRARIES = ("uvicorn.error", "opentelemetry", "asyncio")
"""Whose words would else stand between our lines; only that they spoke is told."""


def gateway_log(kind: str) -> logging.Logger:
    """Return the gateway's logger, writing to stderr or nowhere."""
    log = logging.getLogger(NAME)
    log.propagate = False
    log.handlers.clear()
    if kind == "json":
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    else:
        log.addHandler(logging.NullHandler())
        log.setLevel(logging.CRITICAL)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = list(log.handlers)
        library.propagate = False
    return log
