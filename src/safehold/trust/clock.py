"""How far clocks may differ, and what no clock of another host can stop.

Every leaf carries its writer's time. A fast writer must not freeze what protects, and a step back
of a second by NTP must not stop anybody.
"""

SKEW_S = 120
"""How many seconds two honest clocks may differ; a clock behind the log by less counts as the
log's newest time. A leaf that lies further ahead of a reader's clock is reported."""

CORRECT = "clock.correct"
"""The operation that sets the log's time back after a leaf from a fast clock."""
