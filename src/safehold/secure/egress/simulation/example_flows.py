"""Two rows that every example host has: metrics to a collector, and names from a resolver."""

HOST_BUDGETS = (
    '{ hour = "2 MB", day = "40 MB", week = "250 MB", month = "1 GB" }',
    '{ hour = "200 kB", day = "4 MB", week = "25 MB", month = "100 MB" }',
)
"""Of the metrics and of the names on a host that serves a model of 1 TB."""


def operating_flows(
    metrics: str = '{ user = "otel" }',
    names: str = '{ user = "resolve" }',
    *,
    peak: str = "10 Mbit/s",
    budgets: tuple[str, str] = HOST_BUDGETS,
) -> str:
    """Return both rows as a register writes them, by the TOML of their sources and budgets."""
    return f"""[[flow]]
id = "metrics"
owner = "platform team"
purpose = "metrics to the collector"
data_class = "telemetry"
protocol = "tcp"
ports = [4317]
destination = ["192.0.2.10/32"]
source = {metrics}
peak = "{peak}"
expires = 2099-01-01
budget = {budgets[0]}

[[flow]]
id = "names"
owner = "platform team"
purpose = "names of API peers, from the logging resolver"
data_class = "control"
protocol = "dns"
destination = ["192.0.2.53/32"]
source = {names}
peak = "1 Mbit/s"
expires = 2099-01-01
budget = {budgets[1]}
"""
