"""LiteLLM's proxy and NeMo Guardrails' server, each from PyPI in an environment of its own.

Environments are made once below `.bench/peers` (about 0.5 and 0.2 GB). Whoever can't be installed
is left out, with a word on stderr.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from bench.contestants.leaks import MARKER
from bench.contestants.server import ROOT, Server, on_free_port, start

HERE = Path(__file__).resolve().parent
PLACE = ROOT / ".bench" / "peers"
LITELLM = "litellm[proxy]==1.106.2"
NEMO = "nemoguardrails[server]==0.24.1"


class Peer(msgspec.Struct, frozen=True):
    """A peer in one configuration."""

    name: str
    package: str
    guarded: bool
    serve: Callable[[Path, str, Path], Server]
    leaks_only: bool = False


def environment(package: str) -> Path | None:
    """Return the environment of a package, made if need be; None where it can't be."""
    place = PLACE / package.partition("[")[0].replace("guardrails", "")
    if (place / ".made").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    python = place / "bin" / "python"
    steps = [
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", "uv"],
        [str(place / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(python), package],
    ]
    for step in steps:
        if subprocess.run(step, stdout=sys.stderr, check=False).returncode:
            print(f"{package}: could not be installed; left out", file=sys.stderr)
            return None
    (place / ".made").touch()
    return place


def size_mb(place: Path) -> float:
    """Return what an environment's packages weigh; tools of installing and bytecode left out."""
    site = next((place / "lib").glob("python*")) / "site-packages"
    tools = ("pip", "setuptools", "uv", "_distutils_hack")
    return (
        sum(
            path.stat().st_size
            for path in site.rglob("*")
            if path.is_file()
            and path.suffix != ".pyc"
            and not path.relative_to(site).parts[0].startswith(tools)
        )
        / 1e6
    )


def litellm(place: Path, upstream: str, folder: Path, *, options: str | None) -> Server:
    """Start LiteLLM's proxy; `options` are those of its guardrail, None for no guardrail."""
    folder.mkdir(parents=True)
    text = (
        "model_list:\n"
        '  - {model_name: "*", litellm_params: '
        f'{{model: "openai/*", api_base: "{upstream}", api_key: sk-none}}}}\n'
        "litellm_settings: {telemetry: false}\n"
    )
    if options is not None:
        shutil.copy(HERE / "litellm_rule.py", folder)
        text += (
            "guardrails:\n  - {guardrail_name: rule, litellm_params: {guardrail: litellm_rule.Rule,"
            f" mode: post_call, default_on: true{options}}}}}\n"
        )
    (folder / "config.yaml").write_text(text)
    command = [str(place / "bin" / "litellm"), "--config", str(folder / "config.yaml")]
    command += ["--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False"]
    return on_free_port(
        "litellm",
        command,
        "--port",
        {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
    )


def nemo(place: Path, upstream: str, folder: Path, *, rails: str) -> Server:
    """Start NeMo Guardrails' server; `rails` are its output rails, empty for none."""
    (folder / "it").mkdir(parents=True)
    (folder / "it" / "config.yml").write_text(
        "models: [{type: main, engine: openai, model: mock, "
        f'parameters: {{base_url: "{upstream}", api_key: sk-none}}}}]\npassthrough: true\n{rails}'
    )
    python = str(place / "bin" / "python")
    return start("nemo", [python, str(HERE / "nemo_server.py"), str(folder), "it"])


_WINDOW = (
    ", streaming_buffer_until_moderated: true, streaming_buffer_release_on_scan: true, "
    "streaming_sampling_rate: 5"
)
_RAILS = f"""
rails:
  config: {{regex_detection: {{output: {{patterns: ["{MARKER}"], case_insensitive: true}}}}}}
  output:
    flows: [regex check output]
    streaming: {{enabled: true, chunk_size: 5, context_size: 5, stream_first: false}}
"""


def _litellm(options: str | None) -> Callable[[Path, str, Path], Server]:
    return lambda place, upstream, folder: litellm(place, upstream, folder, options=options)


def _nemo(rails: str) -> Callable[[Path, str, Path], Server]:
    return lambda place, upstream, folder: nemo(place, upstream, folder, rails=rails)


PEERS = (
    Peer("LiteLLM 1.106.2, no guard", LITELLM, guarded=False, serve=_litellm(None)),
    # What it lets out is all that this one is asked for.
    Peer("LiteLLM, its default", LITELLM, guarded=True, serve=_litellm(""), leaks_only=True),
    Peer("LiteLLM, one regex rule, windows of 5", LITELLM, guarded=True, serve=_litellm(_WINDOW)),
    Peer("NeMo Guardrails 0.24.1, no rails", NEMO, guarded=False, serve=_nemo("")),
    Peer("NeMo, one regex rail, chunks of 5, withheld", NEMO, guarded=True, serve=_nemo(_RAILS)),
)
