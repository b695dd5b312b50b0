"""A run that was stopped goes on where it was: each sample is kept before the next is asked.

Nothing is asked twice: a sample that is kept stands, a failed one too, so that nobody stops and
begins again until an answer pleases.
"""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from safehold.govern.capability.interface import CapabilityError, TaskSample
from safehold.record_file import RecordFile

_PLAN, _SAMPLES = "run-plan.json", "samples.jsonl"
SampleKey = tuple[str, str, int]


class RunPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a folder's run is of; another run needs another folder."""

    suite_sha256: str
    model: str
    model_name: str
    elicitations: tuple[str, ...]
    attempts: int
    max_tokens: int
    started: int


class RunFolder:
    """The samples of one run, which one process at a time takes; use as a context manager."""

    def __init__(self, folder: Path, plan: RunPlan) -> None:
        """Begin a run in a folder, or go on with the one that is there.

        Raises:
            BusyError: another process runs in it.
            CapabilityError: the folder holds another run, or can't be written.
            DataError: its samples can't be read or locked.
        """
        self._path = folder / _SAMPLES
        self.done: dict[SampleKey, TaskSample] = {}
        with ExitStack() as running:
            # Held before the plan is read: of two that begin at once, one writes it.
            self._record = running.enter_context(RecordFile(self._path))
            try:
                self.plan = self._planned(folder / _PLAN, plan)
                for line in self._record.lines:
                    one = msgspec.json.decode(line, type=TaskSample)
                    self.done[(one.task, one.elicitation, one.attempt)] = one
            except OSError as error:
                raise CapabilityError(f"can't write {folder}: {error.strerror}") from error
            except msgspec.DecodeError as error:
                raise CapabilityError(f"{folder}: expected a run of ours: {error}") from error
            self._running = running.pop_all()

    def __enter__(self) -> Self:
        """Return the folder, which is held."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the folder free."""
        self._running.close()

    def _planned(self, about: Path, plan: RunPlan) -> RunPlan:
        if about.exists():
            kept = msgspec.json.decode(about.read_bytes(), type=RunPlan)
            if msgspec.structs.replace(plan, started=kept.started) == kept:
                return kept
        elif not self._record.lines:
            draft = about.with_name(f".{about.name}.draft")
            draft.write_bytes(msgspec.json.encode(plan))
            draft.replace(about)
            return plan
        raise CapabilityError(
            f"{about.parent} holds a run of another suite, model or way: take a new folder"
        )

    def keep(self, sample: TaskSample) -> None:
        """Append a sample.

        Raises:
            CapabilityError: it can't be written.
        """
        try:
            self._record.append(msgspec.json.encode(sample))
        except OSError as error:
            raise CapabilityError(f"can't write {self._path}: {error.strerror}") from error
        self.done[(sample.task, sample.elicitation, sample.attempt)] = sample
