"""Inside the machine: run the task that the kernel's command line names, write its answer.

The answer is one JSON document at the start of the disk that is given; it is written anew after
each part, so that a machine that hangs still says what came before.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from safehold.secure.endpoint.attack.bench import MACHINE
from safehold.secure.endpoint.attack.machine import require_throwaway
from safehold.secure.endpoint.attack.programs import static_program
from safehold.secure.endpoint.attack.table import measure
from safehold.secure.endpoint.heartbeat import StaleGuardError, read_pulse
from safehold.secure.endpoint.lsm import program
from safehold.secure.endpoint.records import read_records

POLICY = Path("/etc/safehold/endpoint.toml")
RECORDS = Path("/var/lib/safehold/endpoint/denials.jsonl")
SOCKET = Path("/run/safehold/endpoint.sock")
PACKAGES = Path("/srv/packages")
_ENDED_S = 5
_WHEN = frozenset("0123456789*")
_CRON_S = 75
"""Cron looks at each full minute; its jobs take a little longer."""


def _said(*command: str, limit_s: float = 1800) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, f"{command[0]}: {error}"
    return done.returncode, (done.stdout + done.stderr).strip()


def columns(names: tuple[str, ...], answer: Callable[[dict[str, object]], None]) -> None:
    """Run the attacks against each engine, on this machine itself."""
    found: dict[str, object] = {}
    for name in names:
        began = time.monotonic()
        try:
            found[name] = msgspec.to_builtins(measure(name, whole=True))
        except Exception as error:  # noqa: BLE001 - the answer says what broke, and the next goes on
            found[name] = {"broken": str(error)}
        if program.PINS.exists():
            program.remove()
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        answer({"columns": found})


def _apt() -> dict[str, int]:
    """Install, use and remove packages; return each step's exit status."""
    files = sorted(str(one) for one in PACKAGES.glob("*.deb"))
    steps = {
        "install": ("apt-get", "-y", "-q", "install", *files),
        "hello": ("hello",),
        "file": ("file", "/bin/true"),
        "reinstall": ("apt-get", "-y", "-q", "--reinstall", "install", *files),
        "remove": ("apt-get", "-y", "-q", "purge", "hello", "file", "less"),
        "simulate": ("apt-get", "-s", "-q", "upgrade"),
        "audit": ("dpkg", "--audit"),
    }
    statuses = {}
    for name, command in steps.items():
        statuses[name], text = _said(*command)
        if statuses[name]:
            print(f"{name}: {text[-400:]}", flush=True)
    return statuses


def _timers() -> None:
    """Start what would come only by the clock."""
    listed = _said("systemctl", "list-timers", "--all", "--plain", "--no-legend")[1]
    for line in listed.splitlines():
        _said("systemctl", "start", line.split()[-1])
    _said("sync")


def every_minute(crontab: str) -> str:
    """Return a system's crontab with each of its jobs at every minute."""
    jobs = [row.split(None, 5)[5] for row in crontab.splitlines() if row[:1] in _WHEN]
    return "".join(f"* * * * * {job}\n" for job in jobs)


def _cron() -> None:
    """Have cron run now what it runs by the hour, the day, the week and the month."""
    now = Path("/etc/cron.d/now")
    jobs = every_minute(Path("/etc/crontab").read_text(encoding="utf-8"))
    now.write_text(jobs, encoding="utf-8")
    time.sleep(_CRON_S)
    now.unlink()


def _used() -> dict[str, object]:
    """Boot, timers, cron, apt, and the timers again: a backup that has changed is packed."""
    found: dict[str, object] = {"host": _host()}
    _cron()
    found["apt"] = _apt()
    _timers()
    found["notes"] = _notes()
    time.sleep(_ENDED_S)
    return found


def _host() -> dict[str, object]:
    """Say how the boot went, after what its timers start has run once."""
    _timers()
    return {
        "state": _said("systemctl", "is-system-running", "--wait", limit_s=900)[1],
        "failed": _said("systemctl", "list-units", "--failed", "--plain", "--no-legend")[1],
        "kernel": os.uname().release,
    }


def _notes() -> list[str]:
    """Return what the guard's holder told since the boot: each end of a worker, above all."""
    unit = ("-u", "safehold-guard.service")
    status, text = _said("journalctl", "-b", "-q", "--no-pager", "-o", "cat", *unit)
    return text.splitlines() if status == 0 else [f"no notes of the worker: {text}"]


def _pulse() -> object:
    try:
        return msgspec.to_builtins(read_pulse(SOCKET))
    except StaleGuardError as error:
        return {"silent": str(error)}


def learn(answer: Callable[[dict[str, object]], None]) -> None:
    """The boot was learned; so is apt. Make the policy of it that is enforced next time."""
    found = _used()
    seen = list(read_records(RECORDS))
    found["seen"] = len(seen)
    duty = ("--owner", "bench", "--reason", "learned over boot and apt", "--ticket", "VM-1")
    command = (sys.executable, "-m", "safehold", "endpoint", "suggest", "--essentials")
    status, rows = _said(*command, "--policy", str(POLICY), "--records", str(RECORDS), *duty)
    found["suggest"] = status if status == 0 else rows
    head = POLICY.read_text(encoding="utf-8").replace('mode = "learn"', 'mode = "enforce"')
    POLICY.write_text(head + "\n" + rows, encoding="utf-8")
    status, text = _said(*command[:4], "guard", "--policy", str(POLICY), "--dry-run")
    found["dry_run"] = text if status else 0
    found["rows"] = rows.count("[[allow]]")
    found["pulse"] = _pulse()
    RECORDS.rename(RECORDS.with_name("learned.jsonl"))
    answer(found)


def enforce(answer: Callable[[dict[str, object]], None]) -> None:
    """The boot was enforced; so is apt. Whatever was refused was refused in error."""
    found = _used()
    refused = [
        f"{one.kind} {one.path} by {one.exe}: {one.reason} ({one.count})"
        for one in (read_records(RECORDS) if RECORDS.exists() else ())
    ]
    found["refused"] = refused
    found["pulse"] = _pulse()
    answer(found)
    # The attack's twin: what was not learned does not run, on disk and on tmpfs.
    ran = []
    for place in ("/srv/unknown", "/run/unknown", "/root/unknown"):
        path = Path(place)
        path.write_bytes(static_program())
        path.chmod(0o755)
        text = _said(place, limit_s=60)[1]
        ran += [place] if "RAN" in text else []
    found["unknown_ran"] = ran
    answer(found)


def main(disk: Path) -> None:
    """Run the task; whatever breaks is part of the answer."""
    require_throwaway()
    words = Path("/proc/cmdline").read_text(encoding="utf-8").split()
    (task,) = [one.partition("=")[2] for one in words if one.startswith("safehold.task=")]
    name, _, rest = task.partition(":")
    began = time.monotonic()

    def answer(found: dict[str, object]) -> None:
        text = json.dumps({"task": task, "seconds": round(time.monotonic() - began), **found})
        with disk.open("r+b") as file:
            file.write(text.encode() + b"\0")
            file.flush()
            os.fsync(file.fileno())

    answer({"broken": "it did not end"})
    try:
        if name == "columns":
            columns(tuple(rest.split(",")) if rest else MACHINE, answer)
        elif name == "learn":
            learn(answer)
        else:
            enforce(answer)
    except Exception as error:
        answer({"broken": f"{type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
