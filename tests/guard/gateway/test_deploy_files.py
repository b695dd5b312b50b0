"""What operators copy from deploy/: read by the real tools, and true of this gateway."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from safehold.guard.gateway.operate.metrics import Metrics
from safehold.guard.gateway.operate.worker_life import LAST_RESORT_S
from safehold.guard.gateway.policy import Limits, Settings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd/safehold-gateway.service"


def tool(name: str) -> str:
    """Return a program that scripts/system-packages installs."""
    found = shutil.which(name)
    assert found, f"{name} is missing: run scripts/system-packages"
    return found


def test_unit_is_hardened_and_read_by_systemd() -> None:
    """Systemd's own analysis gives the unit an exposure of at most 2."""
    command = [tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure.group(1)) <= 2
    assert done.returncode == 0
    assert "Unknown" not in done.stderr


def unit_value(name: str) -> str:
    """Return a directive's value."""
    return re.search(rf"^{name}=(.+)$", UNIT.read_text(), re.MULTILINE).group(1)


def test_unit_waits_for_the_drain_and_reloads_by_the_signal_we_take() -> None:
    """Systemd kills nobody who drains, and reloads by SIGHUP."""
    assert float(unit_value("TimeoutStopSec")) >= Limits().drain_timeout_s + LAST_RESORT_S + 5
    assert unit_value("ExecReload").split()[1:] == ["-HUP", "$MAINPID"]
    assert unit_value("Type") == "notify"
    socket = (DEPLOY / "systemd/safehold-gateway.socket").read_text()
    assert "ListenStream=127.0.0.1:8400" in socket
    assert unit_value("Requires") == "safehold-gateway.socket"


@pytest.mark.parametrize(
    "arguments", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]]
)
def test_alert_rules_are_read_and_fire_as_they_say(arguments: list[str]) -> None:
    """Promtool reads the rules, and its tests of them pass."""
    done = subprocess.run(
        [tool("promtool"), *arguments],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def known() -> set[str]:
    """Return the names under which the gateway's metrics are scraped."""
    names = set()
    for family in Metrics().registry.collect():
        names |= {family.name, f"{family.name}_total", f"{family.name}_bucket"}
    return names


@pytest.mark.parametrize("file", ["prometheus/alerts.yaml", "grafana/safehold.json"])
def test_every_metric_that_is_watched_exists(file: str) -> None:
    """An alert on a name that nobody exports would never fire."""
    named = set(re.findall(r"\bsafehold_[a-z_]+", (DEPLOY / file).read_text()))
    assert named
    assert named <= known()


def test_every_alert_has_its_place_in_the_runbook() -> None:
    """Whoever is woken finds the heading that the alert names."""
    heads = re.findall(r"^## (.+)$", (ROOT / "docs/running.md").read_text(), re.MULTILINE)
    anchors = {head.lower().replace(" ", "-").replace(",", "") for head in heads}
    named = re.findall(r"running\.md#([a-z-]+)", (DEPLOY / "prometheus/alerts.yaml").read_text())
    alerts = (DEPLOY / "prometheus/alerts.yaml").read_text().count("- alert:")
    assert len(named) == alerts
    assert set(named) <= anchors


def test_dashboard_has_distinct_panels() -> None:
    """The dashboard is JSON with one query a panel, each panel its own id and place."""
    panels = json.loads((DEPLOY / "grafana/safehold.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["targets"][0]["expr"] for panel in panels)


def manifests() -> list[dict]:
    """Return the documents of the manifest."""
    text = (DEPLOY / "kubernetes/gateway.yaml").read_text()
    return [msgspec.yaml.decode(part) for part in text.split("\n---\n")]


def test_manifests_settings_are_the_gateways() -> None:
    """The configuration in the manifest is read, key by key, and a pod may drain to the end."""
    by_kind = {one["kind"]: one for one in manifests()}
    settings = msgspec.convert(
        msgspec.yaml.decode(by_kind["ConfigMap"]["data"]["gateway.yaml"]), Settings
    )
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = settings.limits.drain_timeout_s
    assert pod["terminationGracePeriodSeconds"] >= drain + slept + LAST_RESORT_S + 5
    assert container["ports"][0]["containerPort"] == settings.port
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert settings.store is not None
    assert by_kind["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_container_runs_as_nobody_special_and_ends_by_the_signal_that_drains() -> None:
    """No root, the signal that we drain on, and the configuration's place."""
    lines = (DEPLOY / "container/Containerfile").read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM"))
    run = "\n".join(lines[last:])
    assert "USER 10001:10001" in run
    assert "STOPSIGNAL SIGTERM" in run
    assert "/readyz" in run


def test_proxy_never_repeats_a_request_that_was_taken() -> None:
    """Nginx buffers no stream, and tries another gateway only where none accepted."""
    text = (DEPLOY / "nginx/safehold.conf").read_text()
    assert "proxy_buffering off;" in text
    assert re.findall(r"^\s+proxy_next_upstream ([^;]+);", text, re.MULTILINE) == ["error"]
    assert "location /admin" not in text
