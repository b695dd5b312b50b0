"""A training that ended early goes on, and its bundle has the bytes of one that nothing ended."""

import os
import subprocess
import sys
from collections import UserDict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.training.checkpoints import (
    Checkpoints,
    KeptCheckpoints,
    discard,
    kept_beside,
    unfinished,
)
from safehold.improve.training.multilingual import MultilingualShape
from safehold.improve.training.stage2 import MultilingualHeadSettings
from safehold.improve.training.train import Provenance, TrainingSettings, record_of, train
from safehold.progress import Progress

MADE = Provenance("b", "c", "0" * 64, "0" * 64, ("g",), ("c",), ("g",), "safehold train")
SETTINGS = TrainingSettings(threads=1, alpha=(0.3, 0.3), stage2=False)
BOTH = msgspec.structs.replace(
    SETTINGS,
    stage2=True,
    shape=MultilingualShape(layers=1, vocabulary=3_000),
    exchange_head=MultilingualHeadSettings(trained=1, epochs=2, batch_rows=24),
)
WORDS = ("wheel", "spoke", "chain", "brake", "hub"), ("poem", "price", "museum", "chain", "hub")


def example(number: int, split: Split, side: Side) -> Example:
    """An example whose words tell its side."""
    one, two = (WORDS[side is Side.PERMITTED][(number + add) % 5] for add in (0, 1))
    return Example(
        id=f"{split}-{side}-{number}",
        family=f"{split}-{side}-{number}",
        split=split,
        side=side,
        clause="c" if side is Side.RESTRICTED else "g",
        exchange=user_says(f"say what the {one} has to do with a {two}, case {number}"),
        reply=f"The {one} goes with the {two} in {number} ways, and the {two} with the {one}.",
        ask=side is Side.RESTRICTED,
        lineage=Lineage(constitution="c", generator="g", seed=1),
    )


ROWS = [example(n, split, side) for n in range(12) for split in Split for side in Side]


class Killed(BaseException):
    """Ends a training where a kill would."""


class Dying(Checkpoints):
    """Keeps one part more than there is, and dies."""

    def __init__(self, kept: KeptCheckpoints) -> None:
        self.kept = kept
        self.last = ""

    def read(self, name: str) -> bytes | None:
        """Return what is kept."""
        return self.kept.read(name)

    def keep(self, name: str, content: bytes) -> None:
        """Keep it and die."""
        self.kept.keep(name, content)
        self.last = name
        raise Killed

    def forget(self, name: str) -> None:
        """Forget it."""
        self.kept.forget(name)

    def due(self) -> bool:
        """Keep every step."""
        return True

    def clear(self) -> None:
        """Clear."""
        self.kept.clear()


def content(folder: Path) -> dict[str, bytes]:
    """The bundle's files, and the float weights beside it."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"floats": (folder.with_name("b.training") / "weights.safetensors").read_bytes()}


def killed_after_each_part(folder: Path, settings: TrainingSettings) -> list[str]:
    """Train, dying after every part that is kept; return the parts in their order."""
    record = record_of(ROWS, MADE, settings)
    died: list[str] = []
    for _ in range(60):
        with kept_beside(folder, record) as kept:
            dying = Dying(kept)
            try:
                train(ROWS, MADE, settings, folder, None, Progress(), kept=dying)
            except Killed:
                died.append(dying.last)
                assert not folder.exists()
                continue
        return died
    raise AssertionError(died)


def test_a_first_stage_killed_after_each_part_gives_the_same_bundle(tmp_path: Path) -> None:
    """Each of the phases is kept, nothing is kept twice, and nothing is left at the end."""
    whole, broken = tmp_path / "whole" / "b", tmp_path / "broken" / "b"
    train(ROWS, MADE, SETTINGS, whole, None, Progress())
    died = killed_after_each_part(broken, SETTINGS)
    assert died == ["stage1.prompt", "stage1.reply", "calibration.1.0", "test.0", "golden"]
    assert content(broken) == content(whole)
    assert not unfinished(broken).exists()


def test_sides_that_stage_one_tells_apart_alone_are_trained_all_the_same(tmp_path: Path) -> None:
    """Where no permitted example reaches stage 2, its weights can't be fitted; training ends."""
    far = [
        msgspec.structs.replace(row, exchange=user_says("zebra " * 9), reply="lion " * 30)
        if row.side is Side.PERMITTED
        else row
        for row in ROWS
    ]
    train(far, MADE, BOTH, tmp_path / "b", None, Progress())
    assert (tmp_path / "b" / "stage2.onnx").is_file()


def test_a_second_stage_killed_after_each_step_gives_the_same_bundle(tmp_path: Path) -> None:
    """Weights, rates and draws are those of an unbroken training after a kill in any pass."""
    whole, broken = tmp_path / "whole" / "b", tmp_path / "broken" / "b"
    train(ROWS, MADE, BOTH, whole, None, Progress())
    died = killed_after_each_part(broken, BOTH)
    assert died.count("stage2.passes") > BOTH.exchange_head.epochs
    assert died[-5:] == ["stage2", "calibration.1.0", "calibration.2.0", "test.0", "golden"]
    assert content(broken) == content(whole)
    assert not unfinished(broken).exists()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (record_of(ROWS[1:], MADE, SETTINGS), "data"),
        (record_of(ROWS, MADE, msgspec.structs.replace(SETTINGS, seed=2)), "seed"),
        (record_of(ROWS, MADE, BOTH), "settings"),
        (record_of(ROWS, MADE, SETTINGS) | {"code": "0" * 64}, "code"),
        (record_of(ROWS, MADE, SETTINGS) | {"packages": "torch 1"}, "packages"),
        (
            record_of(ROWS, msgspec.structs.replace(MADE, constitution_digest="1"), SETTINGS),
            "constitution",
        ),
    ],
)
def test_parts_of_another_training_are_refused(
    tmp_path: Path, other: dict[str, str], named: str
) -> None:
    """One line names what differs and what to do; `anew` removes them, the same record keeps."""
    bundle, record = tmp_path / "b", record_of(ROWS, MADE, SETTINGS)
    with kept_beside(bundle, record) as kept:
        kept.keep("stage1.prompt", b"1")
    with pytest.raises(DataError, match=f"other {named}: .*rm -r") as caught:
        kept_beside(bundle, other)
    assert "\n" not in str(caught.value)
    with kept_beside(bundle, record) as kept:
        assert kept.names() == ("stage1.prompt",)
    with kept_beside(bundle, other, anew=True) as kept:
        assert kept.names() == ()


def test_a_beginning_that_is_interrupted_leaves_no_lock(tmp_path: Path) -> None:
    """Ctrl-C while the record is read: the next training of that process may begin."""

    class Interrupted(UserDict[str, str]):
        """A record whose reader is stopped."""

        def keys(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_beside(tmp_path / "b", Interrupted())
    with kept_beside(tmp_path / "b", {}) as kept:
        assert kept.names() == ()


def test_parts_that_are_not_what_was_written_are_refused(tmp_path: Path) -> None:
    """A cut, changed or foreign part, and one of another form, is one line, never a result."""
    record = record_of(ROWS, MADE, SETTINGS)
    for broken in (b"", b"x" * 10, b"y" * 64):
        with kept_beside(tmp_path / "b", record, anew=True) as kept:
            kept.keep("stage1.prompt", b"1")
            (unfinished(tmp_path / "b") / "stage1.prompt.part").write_bytes(broken)
            with pytest.raises(DataError, match="rm -r"):
                train(ROWS, MADE, SETTINGS, tmp_path / "b", None, Progress(), kept=kept)
            kept.keep("stage1.prompt", msgspec.msgpack.encode([1]))
            with pytest.raises(DataError, match="not what training keeps"):
                train(ROWS, MADE, SETTINGS, tmp_path / "b", None, Progress(), kept=kept)


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """Whoever could put weights there would have them signed; a link is refused too."""
    bundle, record = tmp_path / "b", {"data": "1"}
    unfinished(bundle).mkdir()
    unfinished(bundle).chmod(0o777)
    with pytest.raises(DataError, match="only you may write"):
        kept_beside(bundle, record)
    unfinished(bundle).rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    unfinished(bundle).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="only you may write"):
        kept_beside(bundle, record)
    discard(bundle)
    assert (tmp_path / "elsewhere").is_dir()


def test_two_trainings_of_one_bundle_are_refused(tmp_path: Path) -> None:
    """The second process is told of the first, whose parts stay; afterwards it may go on."""
    bundle, record = tmp_path / "b", {"data": "1"}
    script = (
        "import sys; from pathlib import Path\n"
        "from safehold.errors import DataError\n"
        "from safehold.improve.training.checkpoints import discard, kept_beside\n"
        "for attempt in (discard, lambda bundle: kept_beside(bundle, {'data': '1'})):\n"
        "    try: attempt(Path(sys.argv[1]))\n"
        "    except DataError as error: print(error)\n"
    )
    with kept_beside(bundle, record) as kept:
        kept.keep("one", b"1")
        said = subprocess.run(
            [sys.executable, "-c", script, str(bundle)],
            capture_output=True, check=True, timeout=120, env=dict(os.environ), text=True,
        )  # fmt: skip
        assert said.stdout.count("is being trained by another process") == 2
        assert kept.read("one") == b"1"
    with kept_beside(bundle, record) as kept:
        assert kept.read("one") == b"1"
