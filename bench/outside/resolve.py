"""Whether Safehold installs beside what people run with it, on each Python: a resolver says so.

`resolve.py PLACE`: uv resolves what pyproject.toml asks for, extras included, together with each
neighbour, from wheels alone, as it would on a machine of that Python. Nothing is installed but
the oldest rich that we allow; our progress bars and tables are drawn with it.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("redis", "postgres", "otel", "export", "console", "trust")
# The oldest that is asked for: a resolver would else go back to years-old ones that ask for less.
NEIGHBOURS = {
    "alone": (),
    "LiteLLM's proxy": ("litellm[proxy]>=1.108",),
    "vLLM": ("vllm>=0.33",),
    "LangChain": ("langchain>=1.5", "langchain-openai>=1.1", "langchain-anthropic>=1.3"),
}
OLDEST_RICH = "13.9.4"
LIMIT_S = 900


def resolved(python: str, neighbours: tuple[str, ...]) -> str:
    """Return uv's answer: the pins, one a line.

    Raises:
        SystemExit: There is no set of versions that fits all of them.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = [*project["dependencies"]]
    for extra in EXTRAS:
        ours += project["optional-dependencies"][extra]
    asked = "\n".join([*ours, *neighbours])
    command = ["uv", "pip", "compile", "--quiet", "--python-version", python, "--no-header"]
    command += ["--no-annotate", "--only-binary", ":all:", "-"]
    done = subprocess.run(
        command, input=asked, text=True, capture_output=True, timeout=LIMIT_S, check=False
    )
    if done.returncode:
        raise SystemExit(f"Python {python}, {neighbours}: no versions fit\n{done.stderr[-2000:]}")
    return done.stdout


def version(pins: str, name: str) -> str:
    """Return the version that a package was pinned to."""
    lines = (line.partition("==") for line in pins.splitlines())
    return next((pin for head, _, pin in lines if head == name), "-")


def oldest_rich(place: Path) -> None:
    """Run the tests that draw with rich on the oldest version that we allow."""
    target = place / f"rich-{OLDEST_RICH}"
    if not target.exists():
        install = ["uv", "pip", "install", "--quiet", "--target", str(target)]
        subprocess.run([*install, f"rich=={OLDEST_RICH}"], check=True, timeout=LIMIT_S)
    path = os.pathsep.join([str(target), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path}
    probe = "import importlib.metadata as m; print(m.version('rich'))"
    found = subprocess.run(
        [sys.executable, "-c", probe], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()
    if found != OLDEST_RICH:
        raise SystemExit(f"expected rich {OLDEST_RICH}, came {found}")
    drawn = [sys.executable, "-m", "safehold", "constitution", "show", "homebrewing"]
    subprocess.run(drawn, env=environment, check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
    run = [sys.executable, "-m", "pytest", "-q", "tests/demo/test_demo_outcomes.py"]
    subprocess.run(run, env=environment, cwd=ROOT, check=True, timeout=LIMIT_S)
    print(f"rich {OLDEST_RICH}: our bars and tables are drawn")


if __name__ == "__main__":
    for python in PYTHONS:
        for name, neighbours in NEIGHBOURS.items():
            pins = resolved(python, neighbours)
            shown = ", ".join(f"{one} {version(pins, one)}" for one in ("rich", "uvicorn", "click"))
            print(f"Python {python}, {name}: {len(pins.splitlines())} packages, {shown}")
    oldest_rich(Path(sys.argv[1]))
