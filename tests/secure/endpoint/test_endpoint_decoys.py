"""Decoys: written over nothing true, rotated, and every touch told with who it was."""

import hashlib
import json
import os
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from safehold.secure.endpoint.decoys import (
    Decoy,
    DecoyError,
    DecoyWatch,
    Lure,
    Touch,
    content,
    leaf,
    read_book,
    store_book,
    write,
)
from safehold.secure.fanotify.group import Group

NOW = 1_790_000_000


@pytest.mark.parametrize("lure", list(Lure))
def test_decoy_has_the_form_and_never_the_same_content(lure: Lure) -> None:
    """Two decoys of a kind differ; weights parse as a safetensors file does."""
    first, second = content(lure), content(lure)
    assert first != second
    if lure is Lure.WEIGHTS:
        (length,) = struct.unpack_from("<Q", first)
        head = json.loads(first[8 : 8 + length])
        assert head["model.embed_tokens.weight"]["data_offsets"][1] == len(first) - 8 - length


def test_decoy_is_never_written_over_something_true(tmp_path: Path) -> None:
    """A file that is there stays, also when it was changed since it was our decoy."""
    true = tmp_path / "id"
    true.write_text("a true key")
    with pytest.raises(DecoyError, match="no decoy of ours"):
        write(true, Lure.KEY, NOW)
    made = write(tmp_path / "decoy", Lure.KEY, NOW)
    (tmp_path / "decoy").write_text("somebody's own by now")
    with pytest.raises(DecoyError, match="no decoy of ours"):
        write(tmp_path / "decoy", Lure.KEY, NOW, made)
    assert true.read_text() == "a true key"


def test_rotated_decoy_is_a_new_one_in_the_book(tmp_path: Path) -> None:
    """Rotation changes the content and the digest; the book is for root alone."""
    made = write(tmp_path / "decoy", Lure.CREDENTIALS, NOW)
    again = write(tmp_path / "decoy", Lure.CREDENTIALS, NOW + 1, made)
    assert made.sha256 != again.sha256
    assert hashlib.sha256((tmp_path / "decoy").read_bytes()).hexdigest() == again.sha256
    store_book(tmp_path / "book", [again])
    assert read_book(tmp_path / "book") == (again,)
    assert (tmp_path / "book").stat().st_mode & 0o077 == 0


def test_touch_is_told_with_its_program_and_the_neighbour_is_not(tmp_path: Path) -> None:
    """Reading the decoy is told once a minute, and works; reading its neighbour is not told."""
    if os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    decoy = write(tmp_path / "model.safetensors", Lure.WEIGHTS, NOW)
    (tmp_path / "neighbour").write_text("true")
    touches: list[Touch] = []
    watch = DecoyWatch([decoy], touches.append, lambda: NOW)
    stop = threading.Event()
    with Group() as group:
        watch.mark(group)

        def loop() -> None:
            while not stop.is_set():
                watch.answer(group, 0.05)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            for name in ("model.safetensors", "neighbour", "model.safetensors"):
                subprocess.run(["/bin/cat", tmp_path / name], capture_output=True, check=True)
            time.sleep(0.1)
        finally:
            stop.set()
            thread.join(5)
    (touch,) = touches
    assert (touch.lure, touch.uid) == (Lure.WEIGHTS, 0)
    assert touch.exe.endswith("/cat")
    record = leaf(touch, "gpu-1")
    assert record.facts["event"] == "decoy-touched"
    assert str(tmp_path) not in str(record)


def test_watch_of_nothing_or_of_a_missing_decoy_is_an_error(tmp_path: Path) -> None:
    """An empty list, or a decoy that was removed, does not count as watched."""
    with pytest.raises(DecoyError, match="at least one"):
        DecoyWatch([], lambda _: None, lambda: NOW)
    gone = Decoy(str(tmp_path / "gone"), Lure.KEY, "ab" * 32, NOW)
    with pytest.raises(DecoyError, match="gone"):
        DecoyWatch([gone], lambda _: None, lambda: NOW)
