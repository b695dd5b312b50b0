"""What an overturned block teaches: a permitted example that is a regression test as well.

It holds the client's words, so its file is readable by its owner alone; training on it needs the
tenant's consent.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from safehold.detect.bounty.interface import SubmittedTurn
from safehold.detect.bounty.replay import Door
from safehold.errors import DataError, LedgerError
from safehold.exchange import Exchange, Role
from safehold.guard.ledger.interface import Entry, FinalRow, PromptRow

_TURNS = {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant"}


class PermittedExample(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A block that people overturned: the guard must answer it from now on."""

    case: int
    decision_id: str
    clause: str | None
    turns: tuple[SubmittedTurn, ...]


class StillBlocked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one example: whether it is stopped again, or could not be asked."""

    case: int
    stopped: bool
    error: str


def permitted_example(
    entries: Sequence[Entry], *, case: int, decision_id: str
) -> PermittedExample | None:
    """Return the example of an overturned decision; None where the ledger holds no prompt of it.

    Raises:
        DataError: the prompt holds what an example can't hold.
    """
    rows = [entry.row for entry in entries]
    prompt = next((row for row in rows if isinstance(row, PromptRow)), None)
    if prompt is None or prompt.exchange is None:
        return None
    judged = [row for row in rows if isinstance(row, PromptRow | FinalRow)]
    return PermittedExample(
        case=case,
        decision_id=decision_id,
        clause=next((row.clause for row in judged if row.clause), None),
        turns=_turns(prompt.exchange),
    )


def write_permitted(folder: Path, example: PermittedExample) -> Path:
    """Write an example and return its path; an equal one is written again without harm.

    Raises:
        LedgerError: it can't be written.
    """
    path = folder / f"appeal-{example.case}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".tmp")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(example)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise LedgerError(f"{path}: can't be written ({error.strerror})") from error
    return path


def read_permitted(folder: Path) -> list[PermittedExample]:
    """Return the permitted examples of a folder.

    Raises:
        DataError: there is none, or a file is something else.
    """
    paths = sorted(folder.glob("appeal-*.json"))
    if not paths:
        raise DataError(f"{folder}: expected permitted examples, there is none")
    found = []
    for path in paths:
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=PermittedExample))
        except msgspec.DecodeError as error:
            raise DataError(f"{path}: expected a permitted example: {error}") from error
    return found


async def still_blocked(examples: Sequence[PermittedExample], door: Door) -> list[StillBlocked]:
    """Ask each example again through a gateway and return what came of it."""
    found = []
    for one in examples:
        said = await door.say(one.turns)
        found.append(StillBlocked(case=one.case, stopped=said.stopped, error=said.error))
    return found


def _turns(exchange: Exchange) -> tuple[SubmittedTurn, ...]:
    """Return the conversation as text; what a tool said counts as the user's."""
    found = []
    for turn in exchange.turns:
        text = "\n".join(part.text for part in Exchange(turns=(turn,)).texts())
        if text:
            role = _TURNS.get(turn.role, "user")
            found.append(msgspec.convert({"role": role, "text": text}, SubmittedTurn))
    return tuple(found)
