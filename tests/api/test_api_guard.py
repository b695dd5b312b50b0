"""The public names of the package: what `import safehold` promises."""

import asyncio
import doctest
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

import safehold
import safehold.api.guarding
from safehold.exchange import Channel, Exchange, Role, TextPart, Turn

RESTRICTED = "Give me a full recipe for brewing five gallons of ale from malt, hops and yeast."
RECIPE = (
    "Mash 4 kg of pale malt at 66 C for an hour, boil the wort with 30 g of hops for 60 minutes, "
    "cool it to 20 C, pitch 11 g of ale yeast and let it ferment for ten days. "
) * 4


@pytest.fixture(scope="module")
def guard() -> safehold.LoadedGuard:
    """The stock guard."""
    return safehold.load_guard()


def test_the_examples_of_the_help_run() -> None:
    """What `help(safehold)` shows is what happens."""
    flags = doctest.ELLIPSIS
    for module in (safehold, safehold.api.guarding):
        result = doctest.testmod(module, optionflags=flags)
        assert result.failed == 0
        assert result.attempted > 0


def test_every_public_name_is_there_and_told_of() -> None:
    """`__all__`, `dir` and the names themselves agree; nothing else is public."""
    assert set(dir(safehold)) == set(safehold.__all__)
    for name in safehold.__all__:
        assert getattr(safehold, name).__doc__
    with pytest.raises(AttributeError, match="no public name"):
        safehold.gateway  # noqa: B018 - the access is the test


def test_importing_the_package_imports_none_of_its_parts() -> None:
    """`import safehold` is for every program, so it loads nothing heavy."""
    code = (
        "import sys, safehold; heavy = {'numpy', 'msgspec', 'aiohttp', 'onnxruntime'};"
        "sys.exit(bool(heavy & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_restricted_request_is_blocked_and_its_neighbour_passes(
    guard: safehold.LoadedGuard,
) -> None:
    """The two verdicts, sync and async, on text and on messages."""
    blocked = guard.check_prompt(RESTRICTED)
    assert isinstance(blocked, safehold.Block)
    messages = [{"role": "user", "content": RESTRICTED}]
    assert guard.check_prompt(messages) == blocked
    assert asyncio.run(guard.acheck_prompt(messages)) == blocked
    assert isinstance(guard.check_prompt("How do I proof bread dough?"), safehold.Allow)


def test_a_reply_is_judged_whole_streamed_and_async_alike(guard: safehold.LoadedGuard) -> None:
    """One text, one verdict and one cut, however it is given."""
    prompt = "Please continue."
    verdict = guard.check(prompt, RECIPE)
    assert isinstance(verdict, safehold.Block)
    assert asyncio.run(guard.acheck(prompt, RECIPE)) == verdict
    cuts = {
        _cut(guard, prompt, [RECIPE[i : i + n] for i in range(0, len(RECIPE), n)])
        for n in (1, 7, 50, len(RECIPE))
    }
    assert len(cuts) == 1
    assert asyncio.run(_acut(guard, prompt, RECIPE)) in cuts
    assert len(cuts.pop()) < len(RECIPE)


def _cut(guard: safehold.LoadedGuard, prompt: str, deltas: list[str]) -> str:
    out: list[str] = []
    with pytest.raises(safehold.BlockedError):
        out.extend(guard.stream(prompt, deltas))
    return "".join(out)


async def _acut(guard: safehold.LoadedGuard, prompt: str, reply: str) -> str:
    async def deltas() -> AsyncIterator[str]:
        for char in reply:
            yield char

    out: list[str] = []

    async def read() -> None:
        async for text in guard.astream(prompt, deltas()):
            out.append(text)  # noqa: PERF401 - what came before the block counts

    with pytest.raises(safehold.BlockedError):
        await read()
    return "".join(out)


def test_a_permitted_reply_comes_out_whole(guard: safehold.LoadedGuard) -> None:
    """The benign twin: nothing is lost, in every mode."""
    reply = "Knead the dough for ten minutes and let it rest under a cloth. " * 8
    for mode in safehold.DeliveryMode:
        policy = safehold.SessionPolicy(mode=mode)
        assert "".join(guard.stream("How is bread made?", [reply], policy=policy)) == reply


def test_a_blocked_request_never_begins_the_reply(guard: safehold.LoadedGuard) -> None:
    """The model is not asked: its iterator stays untouched."""
    begun = []

    def model() -> list[str]:
        begun.append(True)
        return ["text"]

    deltas = (text for _ in (0,) for text in model())
    with pytest.raises(safehold.BlockedError) as caught:
        list(guard.stream(RESTRICTED, deltas))
    assert not begun
    assert caught.value.clause


def test_tool_calls_and_results_in_messages_are_scored(guard: safehold.LoadedGuard) -> None:
    """Whatever the model will read counts, not only what the user typed."""
    messages: list[dict[str, object]] = [
        {"role": "user", "content": "Read the page."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "read", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": RESTRICTED},
    ]
    assert isinstance(guard.check_prompt(messages), safehold.Block)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user"}, 3],
        [{"role": "judge", "content": "hello"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": object()}],
    ],
)
def test_messages_that_no_scorer_reads_are_refused(
    guard: safehold.LoadedGuard, messages: list[dict[str, object]]
) -> None:
    """An unreadable part is an error of one line, never a pass."""
    with pytest.raises(safehold.SafeholdError) as caught:
        guard.check_prompt(messages)
    assert "\n" not in str(caught.value)


def test_an_exchange_is_taken_as_it_is(guard: safehold.LoadedGuard) -> None:
    """The package's own type needs no detour."""
    said = Turn(role=Role.USER, parts=(TextPart(text=RESTRICTED, channel=Channel.TEXT),))
    assert isinstance(guard.check_prompt(Exchange(turns=(said,))), safehold.Block)


def test_a_bundle_without_trust_is_refused(tmp_path: object) -> None:
    """A folder is not a guard because somebody put it there."""
    with pytest.raises(safehold.SafeholdError):
        safehold.load_guard(str(tmp_path), sha256="0" * 64)
