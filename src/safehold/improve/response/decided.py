"""The text of a decision in the ledger: of a prompt that was refused, or let through."""

from safehold.guard.ledger.interface import FinalRow, LedgerVerdict, PromptRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.improve.response.interface import IncidentKind, ResponseError, checked


def decided(url: str, decision_id: str, kind: IncidentKind) -> str:
    """Return what was said last in the prompt of a decision.

    Raises:
        ResponseError: There is no such decision, it holds no prompt, or is not what `kind` says: a
            false alarm is a prompt that was refused, a miss one that was not.
        LedgerError: The ledger can't be read.
    """
    rows = [entry.row for entry in LedgerReader.open(url).decision(decision_id)]
    asked = [row for row in rows if isinstance(row, PromptRow)]
    if not asked or asked[0].exchange is None:
        raise ResponseError(f"{decision_id}: the ledger holds no prompt of this decision")
    prompt, exchange = asked[0], asked[0].exchange
    refused = prompt.verdict is LedgerVerdict.BLOCK
    if kind is IncidentKind.FALSE_ALARM and not refused:
        ended = [row for row in rows if isinstance(row, FinalRow)]
        stopped = any(row.verdict is LedgerVerdict.BLOCK for row in ended)
        why = "its reply was stopped, not its prompt" if stopped else "nothing of it was refused"
        raise ResponseError(f"{decision_id}: {why}; a warm start answers prompts")
    if kind is IncidentKind.MISS and refused:
        raise ResponseError(f"{decision_id}: its prompt was refused, so it is no miss")
    last = type(exchange)(exchange.turns[-1:])
    return checked("\n".join(part.text for part in last.texts()))
