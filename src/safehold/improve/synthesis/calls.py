"""Every paid call on disk, as it comes: no call is ever paid for twice.

`calls.jsonl` holds each answer with the prompt that it answers, its digest and what it cost in
tokens. The key of a call is the SHA-256 of all that decides the answer, so a run that was killed,
or one with more rounds, asks only for what is new.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.errors import DataError, DiskError, told_by_system
from safehold.record_file import RecordFile

CALLS = "calls.jsonl"
_ANY_ERROR = "refused"
"""How earlier versions ended what may be an error of the request, and no refusal of the prompt."""


class GeneratorCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked of a model. `cell` and `kind` say what for and decide nothing."""

    cell: str
    kind: str
    model: str
    messages: tuple[dict[str, str], ...]
    temperature: float
    max_tokens: int
    seed: int

    @property
    def key(self) -> str:
        """The digest of what decides the answer."""
        asked = [
            self.model,
            [dict(message) for message in self.messages],
            f"{self.temperature:g}",
            self.max_tokens,
            self.seed,
        ]
        return sha256_hex(canonical(asked))


class GeneratorAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One answer: `refused` is the HTTP status of a server that would not answer this prompt."""

    text: str
    finish: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refused: int = 0


class Paid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of the file; `sha256` is that of the answer's text."""

    key: str
    call: GeneratorCall
    answer: GeneratorAnswer
    sha256: str


class CallStore(Protocol):
    """Where answers are kept once they are paid."""

    def find(self, call: GeneratorCall) -> GeneratorAnswer | None:
        """Return the answer of a call that was paid for."""
        ...

    def keep(self, call: GeneratorCall, answer: GeneratorAnswer) -> None:
        """Write an answer down before anything is made of it."""
        ...


class CallBook:
    """The answers of a folder, one writer at a time; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Take the dataset's folder; it is made where it is missing."""
        self._path = folder / CALLS
        self._answers: dict[str, GeneratorAnswer] = {}
        self._record: RecordFile
        self._running: ExitStack
        self.repeated = 0
        """Calls that were answered from the file."""
        self.new: list[Paid] = []
        """What this run paid for."""

    def __enter__(self) -> Self:
        """Open and check the file; a torn last line is asked for again.

        Raises:
            BusyError: Another run writes it.
            DataError: A line is not one of ours.
        """
        with ExitStack() as running:
            self._record = running.enter_context(RecordFile(self._path))
            self._read(self._record.lines)
            self._running = running.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file.

        Raises:
            DiskError: What was done with the answers could not be written; it says what is kept.
        """
        self._running.close()
        if isinstance(error, OSError):
            raise DiskError(
                f"{told_by_system(error, self._path.parent)}; the {len(self):,} answers in "
                f"{self._path} are kept: set that right and start the same command again"
            ) from error

    def __len__(self) -> int:
        """Return how many answers there are."""
        return len(self._answers)

    def answers(self) -> Mapping[str, GeneratorAnswer]:
        """Return every answer by the key of its call."""
        return self._answers

    @property
    def exists(self) -> bool:
        """Whether there is a file of answers."""
        return self._path.is_file()

    def has(self, call: GeneratorCall) -> bool:
        """Say whether a call was paid for."""
        return call.key in self._answers

    def find(self, call: GeneratorCall) -> GeneratorAnswer | None:
        """Return the answer of a call that was paid for."""
        found = self._answers.get(call.key)
        self.repeated += found is not None
        return found

    def keep(self, call: GeneratorCall, answer: GeneratorAnswer) -> None:
        """Write an answer down before anything is made of it.

        Raises:
            OSError: It can't be written; it is not kept.
        """
        paid = Paid(key=call.key, call=call, answer=answer, sha256=_digest(answer.text))
        self._record.append(msgspec.json.encode(paid))
        self._record.sync()
        self._answers[paid.key] = answer
        self.new.append(paid)

    def _read(self, lines: Sequence[bytes]) -> None:
        decoder = msgspec.json.Decoder(Paid)
        for number, line in enumerate(lines, 1):
            try:
                paid = decoder.decode(line)
            except (msgspec.ValidationError, msgspec.DecodeError) as error:
                raise DataError(f"{self._path} line {number}: {error}") from error
            if paid.sha256 != _digest(paid.answer.text) or paid.key != paid.call.key:
                raise DataError(f"{self._path} line {number}: the answer differs from its digest")
            if paid.answer.finish == _ANY_ERROR:
                continue
            self._answers[paid.key] = paid.answer


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
