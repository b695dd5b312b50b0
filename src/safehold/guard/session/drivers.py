"""Drivers of a flow, and the one place where a scorer's failure is caught.

A flow is written once, without I/O; `drive` runs it with a synchronous stage 2 (training,
evaluation, tests), `run_flow` on the event loop (serving and its benchmark). `guarded`,
`sheltered` and `contained` hold the product's only broad `except`s: whatever breaks inside a scorer
becomes `Failed`, which the session turns into the configured fail mode, and so does a class in
shadow that breaks; whatever breaks around them ends the exchange, with a row.
"""

import asyncio
import contextvars
import functools
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, ParamSpec, TypeVar

from safehold.errors import SafeholdError, ScorerError
from safehold.guard.interface import Escalation, Failed, Scored, ScoringFlow

P = ParamSpec("P")
T = TypeVar("T")
Answer = Scored | Failed
StageTwo = Callable[[Escalation], Awaitable[Answer]]


def guarded(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Failed:
    """Call a scorer; return its answer, or the name of the error it raised, never its text."""
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - a scorer that breaks must end in the fail mode
        return Failed(reason=type(error).__name__)


async def contained(work: Awaitable[T]) -> T:
    """Await the work on one exchange; a defect in it becomes an error that a row can tell of.

    Raises:
        ScorerError: Something broke that is no error of ours; nothing more may be released.
    """
    try:
        return await work
    except (SafeholdError, TimeoutError):
        raise
    except Exception as error:
        reason = type(error).__name__  # never its text, which may hold content
        raise ScorerError(f"the guard broke ({reason}); nothing more is released") from error


def sheltered(flow: ScoringFlow[T]) -> ScoringFlow[T | Failed]:
    """Run a flow that must not end what runs beside it; a defect in it becomes `Failed`."""
    try:
        return (yield from flow)
    except Exception as error:  # noqa: BLE001 - what only watches may break alone
        return Failed(reason=type(error).__name__)


def drive(flow: ScoringFlow[T], stage2: Callable[[Escalation], Answer]) -> T:
    """Run a flow to its end, answering its escalations with a function."""
    try:
        request = next(flow)
        while True:
            request = flow.send(guarded(stage2, request))
    except StopIteration as stop:
        result: T = stop.value
        return result


async def no_stage2(request: Escalation) -> Answer:
    """Answer for a guard without a stage 2: an escalation is a failure, never a pass."""
    del request
    return Failed(reason="NoStage2")


async def run_flow(flow: ScoringFlow[T], stage2: StageTwo, *, offload: bool = False) -> T:
    """Run a flow to its end on the event loop; this is the driver that serves.

    `stage2` must itself answer `Failed` rather than raise, as `batching.Stage2` does. `offload`
    moves the flow's own computation to a thread, for texts that would hold up other exchanges.
    """
    if offload:
        return await _run_offloaded(flow, stage2)
    try:
        request = next(flow)
    except StopIteration as stop:
        result: T = stop.value
        return result
    return await go_on(flow, request, stage2)


async def go_on(flow: ScoringFlow[T], request: Escalation, stage2: StageTwo) -> T:
    """Run a flow that asked for a score to its end, on the event loop."""
    try:
        while True:
            request = flow.send(await stage2(request))
    except StopIteration as stop:
        result: T = stop.value
        return result


_HANDED_OVER_S = 0.0005
"""How long a thread that scores may keep the interpreter while the event loop waits for it."""


@functools.cache
def hand_over() -> None:
    """Let the event loop and the threads that score take turns soon; once for the process.

    Each waits for the interpreter until the other is interrupted: stage 2's after every text.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _HANDED_OVER_S))


_AT_ONCE = 8
"""Texts that are scored off the event loop at once; more of them wait."""


@functools.cache
def _scoring_threads() -> ThreadPoolExecutor:
    """Return the threads for long texts alone, once for the process.

    The event loop's own are those of the store and the ledger: a few long prompts would fill them,
    and then nobody's key could be looked at.
    """
    return ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="scoring")


async def _run_offloaded(flow: ScoringFlow[T], stage2: StageTwo) -> T:
    hand_over()
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    answer: Answer | None = None
    while True:
        work = functools.partial(context.run, _advance, flow, answer)
        step = await loop.run_in_executor(_scoring_threads(), work)
        if not isinstance(step, Escalation):
            return step.value
        answer = await stage2(step)


class _Ended(NamedTuple, Generic[T]):
    """What a flow returned; `StopIteration` itself can't cross a thread."""

    value: T


def _advance(flow: ScoringFlow[T], answer: Answer | None) -> Escalation | _Ended[T]:
    try:
        return next(flow) if answer is None else flow.send(answer)
    except StopIteration as stop:
        return _Ended(stop.value)
