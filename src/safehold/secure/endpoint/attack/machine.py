"""Engines that need a machine of their own: a kernel started for them, systemd as PID 1.

What is done here can't be undone (IMA's policy holds until the next boot), so it is refused on a
machine that does not carry the mark of one that is thrown away.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from safehold.errors import EndpointError
from safehold.secure.endpoint.attack.stage import ACTS
from safehold.secure.endpoint.engines.labels import bpf, ima
from safehold.secure.endpoint.engines.places import drop_in, profile
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.lsm.keys import FileKeys, read_rows
from safehold.secure.endpoint.lsm.program import ENFORCE, LsmProgram
from safehold.secure.endpoint.policy import EndpointPolicy

THROWAWAY = Path("/etc/safehold-throwaway")
PRODUCT = "/opt/safehold"
_ROOTS = ("/usr", PRODUCT, ACTS)
_POLICY = Path("/sys/kernel/security/ima/policy")
_READY_S = 600
_PROFILE = "safehold"
Scan = Callable[[str], list[Item]]


def require_throwaway() -> None:
    """Refuse a machine that somebody needs.

    Raises:
        EndpointError: the mark is not there.
    """
    if not THROWAWAY.exists():
        raise EndpointError(f"expected {THROWAWAY}: only a machine that is thrown away is taken")


def items(scan: Scan) -> list[Item]:
    """Return everything on the machine that may run."""
    return [item for root in _ROOTS if os.path.isdir(root) for item in scan(root)]


def start_lsm(policy: EndpointPolicy, scan: Scan) -> int:
    """Put the BPF LSM program into force for the whole machine; return the loader's process."""
    file = Path("/run/allow.jsonl")
    file.write_text(bpf(policy, items(scan))["allow.jsonl"], encoding="utf-8")
    ready = Path("/run/lsm-ready")
    loader = os.fork()
    if loader == 0:
        try:
            keys = FileKeys(read_rows(file))
            program = LsmProgram()
            program.update(keys)
            program.configure(ENFORCE)
            program.pin()
            ready.touch()
            while True:
                if program.poll():
                    program.update(keys)
        finally:
            os._exit(1)
    until = time.monotonic() + _READY_S
    while not ready.exists():
        if os.waitpid(loader, os.WNOHANG)[0] or time.monotonic() > until:
            raise EndpointError("the BPF LSM loader ended before the program was in force")
        time.sleep(0.2)
    return loader


def start_ima(policy: EndpointPolicy, scan: Scan) -> None:
    """Label what may run, and load the kernel's policy: it holds until the machine ends.

    Raises:
        EndpointError: no label could be set, or the kernel refuses the policy.
    """
    install_ima(policy, items(scan))
    try:
        _POLICY.write_text("/run/ima-policy", encoding="utf-8")
    except OSError as error:
        raise EndpointError(f"IMA's policy: {error.strerror}") from error


def install_ima(policy: EndpointPolicy, listed: Sequence[Item]) -> None:
    """Set the labels and leave the policy in /run.

    Raises:
        EndpointError: no label could be set.
    """
    files = ima(policy, listed)
    for name, text in files.items():
        Path("/run", name).write_text(text, encoding="utf-8")
    _run("setfattr", "--restore=/run/labels", cwd="/")


def start_apparmor(policy: EndpointPolicy) -> None:
    """Load the compiled profile."""
    file = Path("/etc/apparmor.d", _PROFILE)
    file.write_text(profile(policy, ())["safehold"], encoding="utf-8")
    _run("apparmor_parser", "-r", str(file))


def enter_apparmor() -> None:
    """Have the next exec of this process be confined."""
    for name in ("apparmor/exec", "exec"):
        path = Path("/proc/self/attr", name)
        if path.exists():
            path.write_text(f"exec {_PROFILE}", encoding="utf-8")
            return
    raise EndpointError("this kernel has no AppArmor")


def in_unit(policy: EndpointPolicy, unit: str, text: str, limit_s: int) -> list[str]:
    """Return the command that runs a shell text in a unit with the compiled drop-in."""
    program = shutil.which("systemd-run") or "/usr/bin/systemd-run"
    lines = drop_in(policy, ())["50-safehold.conf"].splitlines()
    settings = [line for line in lines if "=" in line and line[0] not in "#["]
    words = [program, "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit}"]
    words += [f"--property={line}" for line in (*settings, f"RuntimeMaxSec={limit_s}")]
    return [*words, "/bin/bash", "-c", text.replace("$", "$$")]


def _run(*command: str, cwd: str | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise EndpointError(f"{command[0]}: {done.stderr.strip()[-200:]}")
