"""fapolicyd itself, from Debian, in a stage, with what we compile for it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safehold.errors import DependencyError, EndpointError
from safehold.secure.endpoint.engines.fapolicyd import compile_files
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.inventory.scan import scan
from safehold.secure.endpoint.policy import EndpointPolicy

_START_S = 120
_ETC = Path("/etc/fapolicyd")


def roots() -> tuple[str, ...]:
    """Return the folders whose files go into the trust file: code of system and Python."""
    base = Path(os.path.realpath(sys.base_prefix))
    library = base / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return (
        "/usr/bin",
        "/usr/sbin",
        "/usr/lib/x86_64-linux-gnu",
        str(base / "bin"),
        str(library),
    )


def listed() -> list[Item]:
    """Return what lies there; packages of Python's own users are left out."""
    items = scan(roots(), {}, {})[0]
    return [item for item in items if "/site-packages/" not in item.path]


def start(policy: EndpointPolicy, own: list[Item], refuses: Callable[[], bool]) -> int:
    """Install the compiled files in the stage, start fapolicyd, wait until it refuses.

    Raises:
        DependencyError: it is not installed.
        EndpointError: it ended, or refused nothing.
    """
    program = shutil.which("fapolicyd", path="/usr/sbin:/usr/bin")
    if program is None:
        raise DependencyError("fapolicyd is missing: apt-get install fapolicyd")
    files = compile_files(policy, [*listed(), *own])
    for name, text in files.items():
        # A stage is no machine on which it could give up root.
        here = text.replace("id = fapolicyd", "id = root")
        (_ETC / name).write_text(here, encoding="utf-8")
    (_ETC / "fapolicyd.rules").unlink(missing_ok=True)
    shutil.rmtree(_ETC / "trust.d", ignore_errors=True)
    for folder in ("/run/fapolicyd", "/var/lib/fapolicyd", "/var/log"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    for folder in ("/run/fapolicyd", "/var/lib/fapolicyd"):
        shutil.chown(folder, "fapolicyd", "fapolicyd")
    log = Path("/run/fapolicyd.log").open("wb")  # noqa: SIM115 - the child's
    daemon = subprocess.Popen([program, "--debug-deny"], stdout=log, stderr=subprocess.STDOUT)
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if daemon.poll() is not None:
            said = Path("/run/fapolicyd.log").read_text(errors="replace")[-300:]
            raise EndpointError(f"fapolicyd ended: {said}")
        if refuses():
            return daemon.pid
        time.sleep(0.5)
    said = Path("/run/fapolicyd.log").read_text(errors="replace")[-300:]
    raise EndpointError(f"fapolicyd refused nothing within {_START_S} s: {said}")
