"""Runs agents that people install through the gateway: a task with a tool, and both blocks.

`python bench/outside/agents/run.py URL FOLDER [CLIENT]...`; FOLDER holds `node_modules` and the
environments `agents`, `llama_index` and `aider`, which `scripts/outside agents` makes. One line
a client and case; the exit status is 1 if one of them crashed, or was not told what it should be.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
REFUSED = "I'm sorry, but I cannot assist with that request."
CLAUDE_REFUSED = "unable to respond to this request, which appears to violate"
"""How Claude Code shows `stop_reason: refusal`, with the decision id behind it."""
ASKED = {
    "greeting": ("Please say hi. MARK-hi", "Hello from the scripted model"),
    "task": ("Please do it with your tool. MARK-task", "Done:"),
    "reply": ("Please tell me. MARK-leak", REFUSED),
    "prompt": ("Explain the purple elephant protocol. MARK-hi", REFUSED),
}
PYTHON = (
    "openai_agents",
    "openai_agents_chat",
    "langchain_openai",
    "langchain_responses",
    "langchain_anthropic",
    "llama_index",
)
NODE = ("ai_sdk_responses", "ai_sdk_chat", "ai_sdk_anthropic", "openai_agents_js")
LIMIT_S = 600
CODEX = """
model = "m"
model_provider = "gateway"
[model_providers.gateway]
name = "gateway"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "GATEWAY_KEY"
"""
Command = tuple[list[str], dict[str, str]]


def command(client: str, url: str, place: Path, work: Path, prompt: str) -> Command:
    """Return how a client is started, and what its environment has beside the usual."""
    bins = place / "node_modules" / ".bin"
    home = {"HOME": str(work)}
    match client:
        case "claude_code":
            options = ["--dangerously-skip-permissions", "--model", "claude-sonnet-4-5"]
            told = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "none", "IS_SANDBOX": "1"}
            quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
            return [str(bins / "claude"), "-p", prompt, *options], home | told | quiet
        case "codex":
            (work / ".codex").mkdir(exist_ok=True)
            (work / ".codex" / "config.toml").write_text(CODEX.format(url=url))
            free = "--dangerously-bypass-approvals-and-sandbox"
            run = [str(bins / "codex"), "exec", "--skip-git-repo-check", free, prompt]
            return run, home | {"GATEWAY_KEY": "none"}
        case "aider":
            options = ["--model", "openai/m", "--yes-always", "--no-git", "--no-check-update"]
            options += ["--edit-format", "whole", "--no-show-model-warnings", "--analytics-disable"]
            told = {"OPENAI_API_BASE": f"{url}/v1", "OPENAI_API_KEY": "none"}
            run = [str(place / "aider" / "bin" / "aider"), *options, "--message", prompt]
            return [*run, "made.txt"], home | told
        case name if name in NODE:
            return ["node", str(place / "clients.mjs"), name, url, prompt], {}
        case name:
            env = "llama_index" if name == "llama_index" else "agents"
            python = str(place / env / "bin" / "python")
            return [python, str(HERE / "clients.py"), name, url, prompt], home


def once(client: str, url: str, place: Path, case: str) -> tuple[bool, str]:
    """Run one client on one case; return whether it was told right, and what it printed."""
    prompt, expected = ASKED[case]
    work = place / "work" / f"{client}-{case}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run, more = command(client, url, place, work, prompt)
    try:
        done = subprocess.run(
            run,
            cwd=work,
            env=os.environ | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no end within {LIMIT_S} s"
    said = done.stdout + done.stderr
    if case == "task" and client in ("claude_code", "codex", "aider"):
        made = work / "made.txt"
        right = made.is_file() and "made-by-the-tool" in made.read_text()
    else:
        told = (expected, CLAUDE_REFUSED) if expected == REFUSED else (expected,)
        if client == "llama_index" and case == "task":
            told = ("tool says: Paris-is-sunny",)  # its call answers with what the tool said
        right = any(text in said for text in told)
    leaked = "elephant protocol is old" in said
    ended = done.returncode == 0 or CLAUDE_REFUSED in said
    return right and ended and not leaked, said


def versions(place: Path) -> dict[str, str]:
    """Return the version of every package that is tried."""
    found: dict[str, str] = {}
    names = ("@anthropic-ai/claude-code", "@openai/codex", "ai", "@ai-sdk/openai")
    for name in (*names, "@ai-sdk/anthropic", "@openai/agents"):
        file = place / "node_modules" / name / "package.json"
        if file.is_file():
            found[name] = json.loads(file.read_text())["version"]
    for env in ("agents", "llama_index", "aider"):
        bins = place / env / "bin"
        shown = subprocess.run(
            [bins / "uv", "pip", "list", "--format", "json", "-q", "--python", bins / "python"],
            capture_output=True,
            text=True,
            check=False,
        )
        wanted = ("openai-agents", "langchain", "langchain-openai", "langchain-anthropic")
        wanted += ("llama-index-core", "aider-chat")
        for package in json.loads(shown.stdout or "[]"):
            if package["name"] in wanted:
                found[package["name"]] = package["version"]
    return found


def main(url: str, folder: str, *only: str) -> int:
    """Run every client, or those named."""
    place = Path(folder).resolve()
    shutil.copy(HERE / "clients.mjs", place / "clients.mjs")
    for name, version in versions(place).items():
        print(f"{name} {version}")
    failed = 0
    show: Callable[[str], str] = lambda text: " | ".join(text.split("\n"))[-600:]  # noqa: E731
    for client in only or ("claude_code", "codex", "aider", *PYTHON, *NODE):
        for case in ASKED:
            right, said = once(client, url, place, case)
            twice = said.count(REFUSED) if case in ("reply", "prompt") else 0
            print(
                f"{client:22} {case:9} {'ok' if right else 'FAILED'} refusals={twice}", flush=True
            )
            if not right:
                failed += 1
                print(f"    {show(said)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
