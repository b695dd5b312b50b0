"""The programs on the page "From Python", run as they are printed."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import safehold

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BENIGN = "Knead the dough for ten minutes and let it rest under a cloth. " * 6
RECIPE = (
    "Mash 4 kg of pale malt at 66 C for an hour, boil the wort with 30 g of hops for 60 minutes, "
    "cool it to 20 C, pitch 11 g of ale yeast and let it ferment for ten days. "
) * 4


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page's first three programs define."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"print": lambda *_, **__: None}
    for block in blocks[:3]:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


class Engine:
    """An engine of vLLM's shape: the text so far, token by token, and requests to abort."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.given = 0
        self.aborted: list[str] = []

    async def generate(self, prompt: str, params: object, request_id: str) -> AsyncIterator[Any]:
        """Yield outputs with all of the text so far."""
        del prompt, params, request_id
        for end in range(5, len(self.text) + 5, 5):
            self.given = min(end, len(self.text))
            yield SimpleNamespace(outputs=[SimpleNamespace(text=self.text[:end])])
            await asyncio.sleep(0)

    async def abort(self, request_id: str) -> None:
        """Note the request."""
        self.aborted.append(request_id)


def _served(page: dict[str, Any], engine: Engine) -> str:
    async def read() -> str:
        parts = page["guarded"](engine, page["guard"], "Please continue.", None, "r1")
        return "".join([text async for text in parts])

    return asyncio.run(read())


def test_the_vllm_hook_clears_and_aborts(page: dict[str, Any]) -> None:
    """A permitted answer comes whole; a restricted one stops the engine half-way."""
    engine = Engine(BENIGN)
    assert _served(page, engine) == BENIGN
    assert engine.aborted == []
    engine = Engine(RECIPE)
    assert _served(page, engine).endswith("stopped.]")
    assert engine.aborted == ["r1"]
    assert engine.given < len(RECIPE)


def test_the_langchain_chain_clears_and_raises(page: dict[str, Any]) -> None:
    """Streamed and whole, the chain gives cleared text only."""

    def model(text: str) -> GenericFakeChatModel:
        def answers() -> Iterator[AIMessage]:
            while True:
                yield AIMessage(content=text)

        return GenericFakeChatModel(messages=answers())

    chain = page["guarded_chain"](page["guard"], model(BENIGN))
    assert "".join(chain.stream("How is bread made?")) == BENIGN
    assert chain.invoke("How is bread made?") == BENIGN
    with pytest.raises(safehold.BlockedError):
        page["guarded_chain"](page["guard"], model(RECIPE)).invoke("Please continue.")
