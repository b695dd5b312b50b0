"""A judge model on a loopback port that decides by words, and fails in the ways that models do."""

import asyncio
import json
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

_ID = re.compile(r'with "id": "([0-9a-f]+)"')
_DATA = re.compile(r"<exchange>\n(.*)\n</exchange>", re.DOTALL)
Answer = Callable[[str, dict[str, str]], str]
"""From the asked id and the exchange (`prompt`, `reply`) to what the model writes."""


def by_words(*words: str, clause: str = "beer-production") -> Answer:
    """Return a judge that finds restricted what holds one of the words."""

    def answer(name: str, shown: dict[str, str]) -> str:
        text = (shown["reply"] or shown["prompt"]).lower()
        hit = any(word in text for word in words)
        verdict = {
            "verdict": "restricted" if hit else "permitted",
            "clause": clause if hit else None,
        }
        return json.dumps({"id": name, **verdict, "confidence": 0.9})

    return answer


class JudgeServer:
    """Serves Chat Completions with a function as the model; use as a context manager."""

    def __init__(self, answer: Answer, *, status: int = 200, delay_s: float = 0.0) -> None:
        """Take the model, and how the server misbehaves."""
        self._answer = answer
        self.status = status
        """Of every answer; may be changed while it serves."""
        self.fails = ""
        """A request whose exchange holds this word gets status 503; empty: none does."""
        self._delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)
        self._ready = threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.url = ""

    def __enter__(self) -> Self:
        """Start and wait until requests are taken."""
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        await asyncio.sleep(self._delay_s)
        if self.status != 200:
            return web.Response(status=self.status)
        asked = body["messages"][-1]["content"]
        if self.fails and self.fails in asked:
            return web.Response(status=503)
        name, data = _ID.findall(asked)[-1], _DATA.findall(asked)[0]
        message = {"role": "assistant", "content": self._answer(name, json.loads(data))}
        return web.json_response({"choices": [{"index": 0, "message": message}]})
