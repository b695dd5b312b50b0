"""One reply through a guard's session, as a gateway delivers it: piece by piece, then the end."""

from collections.abc import Callable, Iterable

from safehold.exchange import Lane
from safehold.guard.interface import Block, Cleared, Escalation
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import GuardSession


def delivered(
    session: GuardSession, pieces: Iterable[str], answer: Callable[[Escalation], Answer]
) -> tuple[Block | None, str]:
    """Return what stopped the reply, if anything did, and what of it had left by then."""
    out: list[str] = []
    for piece in pieces:
        step = drive(session.feed(Lane(), piece), answer)
        if isinstance(step, Block):
            return step, "".join(out)
        out.append(step.text)
    for _, step in drive(session.finish(), answer):
        if not isinstance(step, Cleared):
            return step, "".join(out)
        out.append(step.text)
    return None, "".join(out)
