"""A run that was stopped goes on where it was: each sample is kept before the next is asked.

Nothing is asked twice: a sample that is kept stands, a failed one too, so that nobody stops and
begins again until an answer pleases.
"""

from pathlib import Path

import msgspec

from safehold.govern.capability.interface import CapabilityError, TaskSample

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
    """The samples of one run."""

    def __init__(self, folder: Path, plan: RunPlan) -> None:
        """Begin a run in a folder, or go on with the one that is there.

        Raises:
            CapabilityError: the folder holds another run, or can't be written.
        """
        self._path = folder / _SAMPLES
        self.done: dict[SampleKey, TaskSample] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            about = folder / _PLAN
            if about.exists():
                kept = msgspec.json.decode(about.read_bytes(), type=RunPlan)
                if msgspec.structs.replace(plan, started=kept.started) != kept:
                    raise CapabilityError(
                        f"{folder} holds a run of another suite, model or way: take a new folder"
                    )
                plan = kept
                self._read()
            else:
                about.write_bytes(msgspec.json.encode(plan))
                self._path.write_bytes(b"")
        except OSError as error:
            raise CapabilityError(f"can't write {folder}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise CapabilityError(f"{folder}: expected a run of ours: {error}") from error
        self.plan = plan

    def _read(self) -> None:
        lines = self._path.read_bytes().split(b"\n")
        # A line without its end is of a process that died while it wrote: it is asked again.
        whole = lines[:-1]
        self._path.write_bytes(b"".join(line + b"\n" for line in whole))
        for line in whole:
            one = msgspec.json.decode(line, type=TaskSample)
            self.done[(one.task, one.elicitation, one.attempt)] = one

    def keep(self, sample: TaskSample) -> None:
        """Append a sample.

        Raises:
            CapabilityError: it can't be written.
        """
        try:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(sample) + b"\n")
        except OSError as error:
            raise CapabilityError(f"can't write {self._path}: {error.strerror}") from error
        self.done[(sample.task, sample.elicitation, sample.attempt)] = sample
