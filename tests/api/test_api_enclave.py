"""The log and the sealed weights through the public names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import safehold
from safehold.testing.keyd import Vaulted


@pytest.fixture
def vaulted(tmp_path: Path) -> Iterator[Vaulted]:
    """A founded enclave with a sealed model and a running key service."""
    world = Vaulted(tmp_path)
    world.publisher.signer.write(tmp_path / "publisher")
    yield world
    world.stop()


def _open(world: Vaulted, grant: str) -> object:
    return safehold.open_weights(
        world.root / "sealed",
        grant=grant,
        publisher=world.root / "publisher",
        log_keys=world.root / "log" / "log.json",
        keyd=world.socket,
        unsafe_swap=True,
    )


def test_weights_open_under_a_grant_and_close_with_it(vaulted: Vaulted) -> None:
    """Plaintext is there inside `with`; a request that nobody approved opens nothing."""
    with _open(vaulted, vaulted.granted().sha256) as model:  # type: ignore[attr-defined]
        name = model.names[0]
        assert len(Path(model.path(name)).read_bytes()) == model.header.shard(name).plain_bytes
    asked = vaulted.ask(ticket="OPS-2")
    vaulted.enclave.file(asked)
    with pytest.raises(safehold.SafeholdError):
        _open(vaulted, asked.sha256)


def test_a_log_is_verified_from_a_copy(vaulted: Vaulted) -> None:
    """The copy as it is; one byte changed; a shorter one than was seen."""
    vaulted.granted()
    log, pinned = vaulted.root / "log", vaulted.root / "pinned.json"
    shutil.copy(log / "log.json", pinned)
    copy = vaulted.root / "copy"
    shutil.copytree(log, copy)
    done: list[int] = []
    found = safehold.verify_log(copy, pinned, progress=done.append)
    assert found.size == done[-1] > 0
    assert found.voids == ()
    with pytest.raises(safehold.SafeholdError, match="rollback"):
        safehold.verify_log(copy, pinned, at_least=found.size + 1)
    entries = copy / "tile" / "entries" / "000.p" / str(found.size)
    entries.write_bytes(entries.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(safehold.SafeholdError):
        safehold.verify_log(copy, pinned)
