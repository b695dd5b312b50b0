"""Run it: reload, access log, a page that is fed live, units, and closures that responders read."""

import configparser
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safehold.cli._egress_run import tell_to_reload
from safehold.secure.egress.enforcement.log_adapter import DeskAudit
from safehold.secure.egress.kernel.attribution import Connection
from safehold.secure.egress.watch.access_log import AccessLog
from safehold.secure.egress.watch.timeline import newest_rows, render
from safehold.secure.egress.watch.timeline_rows import TimelineRow
from safehold.testing.egress import World, register, row
from safehold.trust.log.closures import EgressClosure, closure_of, closures
from safehold.trust.log.log_entries import Record

UNITS = Path(__file__).parents[3] / "examples" / "systemd"
PLAN = 'version = 1\n[weights]\nsize = "1 TB"\n[link]\ninterfaces = ["up0"]\nrate = "100 Mbit/s"\n'
SERVE = row("served", port=8443, destination='["0.0.0.0/0"]').replace(
    "purpose =", 'direction = "serve"\npurpose ='
)


def safehold(world: World, *arguments: str) -> list[str]:
    """A command on the world's state."""
    folder = world.folder
    where = ["--register", str(folder / "egress.toml"), "--plan", str(folder / "plan.toml")]
    where += ["--state", str(folder / "state"), "--netns", world.pair.inside]
    return [sys.executable, "-m", "safehold", "egress", *arguments, *where]


def until(path: Path, word: str) -> str:
    """Wait until a file holds a word, however busy the machine is."""
    for _ in range(600):
        if path.exists() and word in (text := path.read_text()):
            return text
        time.sleep(0.1)
    pytest.fail(f"{word} never came")


def test_reload_is_taken_by_the_running_watch(world: World) -> None:
    """A tightened register is applied, and the watch goes on with it, in the same process."""
    folder = world.folder
    (folder / "plan.toml").write_text(PLAN)
    (folder / "egress.toml").write_text("version = 1\n" + row(uid=12345, hour=3_000_000))
    subprocess.run(safehold(world, "apply", "--first"), check=True, timeout=120)
    page = folder / "page.html"
    files = ["--metrics", str(folder / "egress.prom"), "--page", str(page)]
    files += ["--access-log", str(folder / "access.log")]
    with subprocess.Popen(safehold(world, "run", "--interval", "0.2", *files)) as running:
        try:
            until(folder / "egress.prom", 'window="hour"} 3e+06')
            world.send("tcp", 5_000, uid=12345)
            (folder / "egress.toml").write_text("version = 1\n" + row(uid=12345, hour=2_000_000))
            done = subprocess.run(
                safehold(world, "reload"), check=True, timeout=120, capture_output=True, text=True
            )
            assert f"process {running.pid} reads its files again" in done.stderr
            until(folder / "egress.prom", 'window="hour"} 1.99')
            assert running.poll() is None
            assert "http-equiv=refresh" in until(page, "Egress timeline")
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(timeout=60)


def test_loosened_register_is_not_reloaded(world: World) -> None:
    """Reload asks for the grant that apply asks for; then nothing is told."""
    folder = world.folder
    (folder / "plan.toml").write_text(PLAN)
    (folder / "egress.toml").write_text("version = 1\n" + row(uid=12345, hour=2_000_000))
    subprocess.run(safehold(world, "apply", "--first"), check=True, timeout=120)
    (folder / "egress.toml").write_text("version = 1\n" + row(uid=12345, hour=3_000_000))
    done = subprocess.run(
        safehold(world, "reload"), check=False, timeout=120, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "egress.raise" in done.stderr
    assert "reads its files" not in done.stderr


def test_process_that_took_the_number_is_not_signalled(tmp_path: Path) -> None:
    """A stale file that names another program's process ends nobody."""
    (tmp_path / "watch.pid").write_text(f"{os.getpid()}\n")
    assert tell_to_reload(tmp_path) == 0
    (tmp_path / "watch.pid").write_text("x")
    assert tell_to_reload(tmp_path) == 0


def test_ended_connections_are_logged_once(world: World) -> None:
    """A real connection is one line with its flow and its bytes."""
    path = world.folder / "access.log"
    flows = register(row(uid=12345))
    world.enforcer(flows).apply(first=True)
    log = AccessLog(path, flows, world.pair.inside)
    log.look(1_795_000_000.0)
    world.send("tcp", 50_000, uid=12345)
    log.look(1_795_000_010.0)
    log.note([], 1_795_000_020.0)
    (line,) = path.read_text().splitlines()
    assert line.startswith("2026-11-18T")
    assert " replies tcp 10.231.7.1:" in line
    assert " > 10.231.7.2:8443 sent " in line
    assert 50_000 < int(line.split(" sent ")[1].split()[0]) < 60_000


def test_served_connection_is_logged_from_our_side(tmp_path: Path) -> None:
    """What a client opened shows our end first, and our bytes as sent; loopback is left out."""
    path = tmp_path / "access.log"
    log = AccessLog.__new__(AccessLog)
    log._path, log._register, log._netns, log._open = path, register(SERVE), None, {}
    client = Connection("tcp", "192.0.2.7", "10.0.0.1", 40_000, 8443, 900, 120_000)
    home = Connection("tcp", "127.0.0.1", "127.0.0.1", 40_000, 8443, 900, 120_000)
    other = Connection("udp", "10.0.0.1", "192.0.2.9", 5_000, 53, 80, 0)
    log.note([client, home, other], 0.0)
    log.note([], 0.0)
    assert path.read_text().splitlines() == [
        "1970-01-01T00:00:00Z served tcp 10.0.0.1:8443 > 192.0.2.7:40000 sent 120000 received 900",
        "1970-01-01T00:00:00Z - udp 10.0.0.1:5000 > 192.0.2.9:53 sent 80 received 0",
    ]


def test_page_is_drawn_from_the_newest_whole_rows(tmp_path: Path) -> None:
    """A row on its way is left out, and the browser is told to come again."""
    path = tmp_path / "timeline.jsonl"
    one = b'{"time":1,"passed":{"a":1},"remaining":{},"residual":{},"undeclared":0,"line":1}\n'
    path.write_bytes(one + one.replace(b'"time":1', b'"time":2') + one[:20])
    rows = newest_rows(path)
    assert [r.time for r in rows] == [1, 2]
    assert isinstance(rows[0], TimelineRow)
    assert "content=60" in render(rows, stolen_bytes=10, refresh_s=60)
    assert "refresh" not in render(rows, stolen_bytes=10)


class Desk:
    """A desk that keeps records."""

    def __init__(self) -> None:
        self.kept: list[Record] = []

    def now(self) -> int:
        """The time."""
        return 7

    def record(self, leaf: Record) -> int:
        """Keep it."""
        self.kept.append(leaf)
        return len(self.kept) - 1


def test_closures_are_read_from_the_log_by_their_type() -> None:
    """Responders read each closure with flow, reason and host; warnings and releases are none."""
    desk = Desk()
    audit = DeskAudit(desk, "gpu-7")  # type: ignore[arg-type]
    audit.append("egress.warn", {"flow": "replies", "reason": "half the line"})
    audit.append("egress.block", {"flow": "replies", "reason": "the line"})
    audit.append("egress.cut", {"flow": "*", "reason": "300000 bytes left past the rules"})
    audit.append("egress.release", {"flow": "*", "reason": "reviewed", "grant": "g"})
    found = dict(closures(dict(enumerate(desk.kept))))
    assert found == {
        1: EgressClosure(7, "block", "replies", "the line", "gpu-7"),
        2: EgressClosure(7, "cut", "*", "300000 bytes left past the rules", "gpu-7"),
    }
    other = Record(time=7, kind="note", facts={"event": "egress-cut"}, digests={})
    assert closure_of(other) is None


def unit(name: str) -> configparser.ConfigParser:
    """A unit file, read without interpolation."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


def test_hardened_unit_takes_away_what_the_judge_fears() -> None:
    """No capability, no packet or XDP socket, no namespace, no program for the kernel."""
    service = unit("served-model.service.d-hardened.conf")["Service"]
    assert service["CapabilityBoundingSet"] == ""
    assert set(service["RestrictAddressFamilies"].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert service["RestrictNamespaces"] == service["NoNewPrivileges"] == "yes"
    assert "bpf" in service["SystemCallFilter"]
    assert "holders --refuse" in service["ExecStartPre"]


def test_rules_come_before_the_network_and_the_watch_comes_back() -> None:
    """The rules' unit is ordered before the network; the watch restarts for ever and reloads."""
    rules, watch = unit("safehold-egress-rules.service"), unit("safehold-egress.service")
    assert "network-pre.target" in rules["Unit"]["Before"]
    assert watch["Service"]["Restart"] == "always"
    assert " egress reload " in watch["Service"]["ExecReload"]
    assert watch["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.parametrize("path", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_commands_of_units_exist_with_their_options(path: Path) -> None:
    """Every command line of a unit names a command and options that there are."""
    from safehold.cli.egress import egress  # noqa: PLC0415 - one use

    for line in path.read_text().splitlines():
        key, _, command = line.partition("=")
        if key.startswith("Exec"):
            _, group, name, *rest = command.lstrip("+").split()
            options = {word for word in rest if word.startswith("--")}
            known = {text for param in egress.commands[name].params for text in param.opts}
            assert group == "egress"
            assert options <= known, options - known
