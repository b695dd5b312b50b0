"""A key service that names a log of releases starts with the released configuration alone."""

import time
from pathlib import Path

import pytest

from safehold.errors import TrustError
from safehold.secure.weights.keyd.config import UNRELEASED, admit, declared
from safehold.testing.released import RELEASE_RULES, ReleaseChannel, settings_artefact
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.trust.release.interface import ArtefactKind

TEXT = """
socket = "keyd.sock"
log = "log"
log_keys = "log.json"
log_key = "log.key"
emitter_key = "keyd.key"
memory = "memory"
publisher = "public"
providers = ["provider.toml"]
host = "gpu-1"
host_sha256 = "{host}"
loaders = [1000]
code = ["code"]
"""


@pytest.fixture
def channel(tmp_path: Path) -> ReleaseChannel:
    """Return a channel whose release holds this key service's configuration."""
    enclave = Enclave(
        tmp_path / "log", policy=POLICY + GOVERNING + RELEASE_RULES, now=int(time.time())
    )
    made = ReleaseChannel(enclave, tmp_path / "releases", "keyd-1")
    members = "".join(
        f'{name} = "{getattr(made.settings, name)}"\n'
        for name in ("log", "log_keys", "channel", "documents", "memory")
    )
    text = TEXT.format(host="ab" * 32)
    (tmp_path / "keyd.toml").write_text(f"{text}[releases]\n{members}")
    (tmp_path / "plain.toml").write_text(text)
    config = declared(tmp_path / "keyd.toml")
    made.publish(made.next(settings_artefact(ArtefactKind.KEY_SERVICE, config)))
    return made


def now() -> int:
    """Return the time."""
    return int(time.time())


def test_the_released_configuration_starts(channel: ReleaseChannel, tmp_path: Path) -> None:
    """What was released is admitted, and says that it enforces."""
    assert admit(tmp_path / "keyd.toml", now) == "enforcing, channel keyd-1"
    assert channel.releases


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("loaders = [1000]", "loaders = [1000, 1001]"),
        ("ab" * 32, "cd" * 32),
        ('code = ["code"]', "code = []"),
        ('host = "gpu-1"', 'host = "gpu-1"\nsocket_mode = 0o666'),
    ],
)
def test_any_other_configuration_does_not_start(
    channel: ReleaseChannel, tmp_path: Path, old: str, new: str
) -> None:
    """A loader more, another host, less code, a wider socket: refused."""
    path = tmp_path / "keyd.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TrustError, match="not in release 1"):
        admit(path, now)
    assert channel.releases


def test_without_the_part_it_says_so(channel: ReleaseChannel, tmp_path: Path) -> None:
    """A key service that no release was asked for is marked as such."""
    assert admit(tmp_path / "plain.toml", now) == UNRELEASED
    assert channel.releases
