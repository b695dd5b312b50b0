"""The steps of the container file, run in a root that debootstrap makes; then it serves and drains.

`container.py PLACE`, as root: needs debootstrap, no container engine. The base image's Python is
played by Debian's own. Every COPY, RUN, ENV, USER and WORKDIR is run as it stands, in both stages;
then the entry point serves, the health check of the file says 200, and SIGTERM ends it with 0.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy/container/Containerfile"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
PACKAGES = "python3,python3-venv,ca-certificates,passwd"
STEP_S, READY_S = 1800, 300
RULE = {"id": "m", "clause": "t/m", "pattern": "purple elephant", "example": "a purple elephant"}
PORT = 8400


class Stage(msgspec.Struct):
    """A root, and what later steps of its stage run with."""

    root: Path
    directory: str = "/"
    user: str = "0:0"
    environment: dict[str, str] = {}
    entry: list[str] = []
    command: list[str] = []
    health: list[str] = []


def instructions() -> Iterator[tuple[str, str]]:
    """Yield each instruction of the file and what it says, joined lines as one."""
    text = re.sub(r"\\\n\s*", " ", FILE.read_text(encoding="utf-8"))
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


def base(place: Path) -> Path:
    """Return a fresh Debian with a Python, kept between runs."""
    root = place / "base"
    if not (root / "usr/bin/python").exists():
        shutil.rmtree(root, ignore_errors=True)
        make = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
        subprocess.run([*make, MIRROR], check=True, timeout=STEP_S, stdout=subprocess.DEVNULL)
        (root / "usr/bin/python").symlink_to("python3")
    return root


def reachable(root: Path) -> dict[str, str]:
    """Let pip in a root reach the registry as it does here; return what it needs in its world."""
    world = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    world |= {name: os.environ[name] for name in ("SSL_CERT_FILE",) if name in os.environ}
    files = [Path("/etc/resolv.conf"), Path("/etc/pip.conf"), Path("/etc/hosts")]
    files += [Path(value) for value in world.values() if value.startswith("/")]
    for file in files:
        target = root / str(file).lstrip("/")
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        elif file.is_dir():
            shutil.copytree(file, target, dirs_exist_ok=True)
    return world


def run(stage: Stage, command: list[str], **more: str) -> "subprocess.Popen[bytes]":
    """Start a command in a stage, as its user, where it stands."""
    user, _, group = stage.user.partition(":")
    line = ["chroot", f"--userspec={user}:{group or user}", str(stage.root)]
    world = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}
    world |= more | stage.environment
    inside = f"cd {shlex.quote(stage.directory)} && exec {shlex.join(command)}"
    return subprocess.Popen([*line, "/bin/sh", "-c", inside], env=world)


def done(stage: Stage, command: list[str], **more: str) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: It failed.
    """
    if run(stage, command, **more).wait(STEP_S):
        raise SystemExit(f"container: a step failed: {shlex.join(command)[:200]}")


def copy(stage: Stage, stages: dict[str, Stage], rest: str) -> None:
    """Do one COPY: of the source tree, or out of an earlier stage."""
    *options, source, target = rest.split()
    into = stage.root / (
        target if target.startswith("/") else f"{stage.directory}/{target}"
    ).lstrip("/")
    into.mkdir(parents=True, exist_ok=True)
    if options:
        shutil.copytree(
            stages[options[0].partition("=")[2]].root / source.lstrip("/"),
            into,
            dirs_exist_ok=True,
            symlinks=True,
        )
        return
    tree = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(into)], input=tree.stdout, check=True)


def built(place: Path) -> Stage:  # noqa: C901 - one short case for each instruction
    """Run every step of the file and return the last stage."""
    stages: dict[str, Stage] = {}
    stage = Stage(place)
    for word, rest in instructions():
        print(f"container: {word} {rest[:90]}", flush=True)
        match word:
            case "FROM":
                name = rest.rpartition(" AS ")[2] if " AS " in rest else "last"
                root = place / name
                shutil.rmtree(root, ignore_errors=True)
                # Devices stay devices: read as a file, /dev/full has no end.
                subprocess.run(["cp", "-a", base(place), root], check=True, timeout=STEP_S)
                stage = stages[name] = Stage(root)
            case "WORKDIR":
                stage.directory = rest
                (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                copy(stage, stages, rest)
            case "RUN":
                done(stage, ["/bin/sh", "-c", rest], **reachable(stage.root))
            case "USER":
                stage.user = rest
            case "ENV":
                pairs = dict(one.split("=", 1) for one in shlex.split(rest))
                path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
                stage.environment |= {k: v.replace("$PATH", path) for k, v in pairs.items()}
            case "ENTRYPOINT":
                stage.entry = json.loads(rest)
            case "CMD":
                stage.command = json.loads(rest)
            case "HEALTHCHECK":
                stage.health = json.loads(rest.partition(" CMD ")[2])
            case "EXPOSE" | "VOLUME" | "STOPSIGNAL":
                continue
            case _:
                raise SystemExit(f"container: no step is known for {word}")
    return stage


def serves(stage: Stage) -> None:
    """Start what the image starts, ask its health check, and stop it as an engine does.

    Raises:
        SystemExit: It does not become healthy, or does not end with status 0.
    """
    folder = stage.root / "etc/safehold"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yaml").write_text(json.dumps({"rules": [RULE]}))
    given = {"port": PORT, "bundle": "/etc/safehold/rules.yaml", "log": "none"}
    given |= {"upstream": {"url": "http://127.0.0.1:9/v1"}}
    (folder / "gateway.yaml").write_text(json.dumps(given))
    process = run(stage, [*stage.entry, *stage.command])
    try:
        deadline = time.monotonic() + READY_S
        while run(stage, stage.health).wait(60):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("container: the gateway did not become healthy")
            time.sleep(1)
        process.send_signal(signal.SIGTERM)
        if status := process.wait(90):
            raise SystemExit(f"container: expected status 0 after SIGTERM, came {status}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    size = sum(file.lstat().st_size for file in (stage.root / "opt/safehold").rglob("*"))
    print(f"container: every step ran, it was healthy and ended with 0; {size / 1e6:.0f} MB")


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("container: chroot and debootstrap take root")
    serves(built(Path(sys.argv[1]) / "container"))
