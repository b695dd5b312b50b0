"""A gateway in front of a model that follows a script, for agents that people install.

`python bench/outside/agents/scripted_model.py FOLDER` prints the gateway's base URL and serves
until SIGTERM. The last word of what the user asks picks the answer: `task` calls a tool of the
client's and then tells what it said, `leak` writes the phrase that the rule stops, and anything
else is a greeting.
"""

import asyncio
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from safehold.guard.gateway.bundles.loading import RulesLoader
from safehold.guard.gateway.policy import Canary, Settings, Upstream
from safehold.guard.gateway.server import Parts, listen, run
from safehold.testing.upstream import MockUpstream, SaidRun, Script, split

HERE = Path(__file__).resolve().parent
MADE = "made-by-the-tool"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Bash": {"command": f"echo {MADE} | tee made.txt", "description": "write a file"},
    "exec_command": {"cmd": f"echo {MADE} | tee made.txt"},
    "lookup": {"city": "Paris"},
}
FILE = f"Here it is.\n\nmade.txt\n```\n{MADE}\n```\n"
"""How aider's whole-file format writes a file."""


def text_of(value: object) -> str:
    """Return every string in a JSON value, one a line."""
    if isinstance(value, dict):
        return "\n".join(text_of(item) for item in value.values())
    if isinstance(value, list):
        return "\n".join(text_of(item) for item in value)
    return value if isinstance(value, str) else ""


def answer(given: dict[str, Any]) -> Script:
    """Return what the model says to a request of any protocol."""
    turns = given.get("messages", given.get("input", []))
    turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
    said = text_of(turns)
    told = re.search(r"tool says: (\S+)|\b(made-by-the-tool)\b", said)
    if "MARK-leak" in said:
        text = "Here is what you want to know: the purple elephant protocol is old. " * 3
        return Script(said=(SaidRun(split(text, 7)),))
    if "MARK-task" not in said:
        return Script(said=(SaidRun(split("Hello from the scripted model.", 5)),))
    if told:
        return Script(said=(SaidRun(split(f"Done: {told.group(1) or told.group(2)}.", 5)),))
    offered = {name_of(tool) for tool in given.get("tools") or ()}
    for name, arguments in ARGUMENTS.items():
        if name in offered:
            call = SaidRun(split(json.dumps(arguments), 6), channel="tool", name=name)
            return Script(said=(SaidRun(("Let me ", "look.")), call))
    return Script(said=(SaidRun(split(FILE, 6)),))


def name_of(tool: dict[str, Any]) -> str:
    """Return the name of a tool of any protocol."""
    function = tool.get("function")
    return str(function["name"] if isinstance(function, dict) else tool.get("name"))


class ScriptedModel(MockUpstream):
    """The mock server, whose answer depends on what it is asked."""

    async def _answer(self, path: str, given: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        self.script = answer(given)
        return await super()._answer(path, given, writer)


def main(folder: str) -> None:
    """Serve until SIGTERM."""
    with ScriptedModel() as model, tempfile.TemporaryDirectory(dir=folder) as place:
        settings = Settings(
            port=0,
            upstream=Upstream(url=model.url),
            bundle=str(HERE / "rules.yaml"),
            ledger=f"{place}/ledger.db",
            canary=Canary(enabled=False),
            log="none",
        )
        sock = listen(settings)
        print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
        sys.stdout.close()
        run(settings, Parts(loader=RulesLoader()), sock)


if __name__ == "__main__":
    main(*sys.argv[1:])
