"""Drivers of a flow, and the one place where a scorer's failure is caught.

A flow is written once, without I/O; `drive` runs it with a synchronous stage 2, `drive_async` with
an asynchronous one. `guarded` and `contained` hold the product's only broad `except`s: whatever
breaks inside a scorer becomes `Failed`, which the session turns into the configured fail mode, and
whatever breaks around it ends the exchange, with a row.
"""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from safehold.errors import SafeholdError, ScorerError
from safehold.guard.interface import Escalation, Failed, Scored, ScoringFlow

P = ParamSpec("P")
T = TypeVar("T")
Answer = Scored | Failed


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


def drive(flow: ScoringFlow[T], stage2: Callable[[Escalation], Answer]) -> T:
    """Run a flow to its end, answering its escalations with a function."""
    try:
        request = next(flow)
        while True:
            request = flow.send(guarded(stage2, request))
    except StopIteration as stop:
        result: T = stop.value
        return result


async def drive_async(flow: ScoringFlow[T], stage2: Callable[[Escalation], Awaitable[Answer]]) -> T:
    """Run a flow to its end, awaiting the answers to its escalations.

    `stage2` must itself answer `Failed` rather than raise, as `batching.Stage2` does.
    """
    try:
        request = next(flow)
        while True:
            request = flow.send(await stage2(request))
    except StopIteration as stop:
        result: T = stop.value
        return result
