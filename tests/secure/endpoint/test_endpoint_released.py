"""`endpoint guard --releases`: only the policy that was released is guarded, also after SIGHUP."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.change import change
from safehold.cli.endpoint import endpoint
from safehold.errors import EndpointError, TrustError
from safehold.secure.endpoint.heartbeat import Heart, listen, read_pulse
from safehold.secure.endpoint.interface import GuardState
from safehold.secure.endpoint.policy import Mode, parse_policy
from safehold.secure.fanotify.mounts import markable, parse_mountinfo
from safehold.testing.released import RELEASE_RULES, ReleaseChannel, settings_artefact
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.trust.release.interface import ArtefactKind, ReleaseError


class Site:
    """A host's folder: its policy, which is released, and the file that says where releases are."""

    def __init__(self, root: Path, text: str) -> None:
        self.root = root
        # Whatever this machine has: the guard refuses a policy that would stop the guard itself.
        self.text = text.replace('"enforce"', '"audit"').replace('"/usr/**"', '"/**"')
        self.policy = root / "endpoint.toml"
        self.policy.write_text(self.text)
        enclave = Enclave(root / "log", policy=POLICY + GOVERNING + RELEASE_RULES,
                          now=int(time.time()))  # fmt: skip
        self.channel = ReleaseChannel(enclave, root / "releases", channel="gpu-1")
        artefact = settings_artefact(ArtefactKind.ENDPOINT, parse_policy(self.text))
        self.channel.publish(self.channel.next(artefact))
        members = ("log", "log_keys", "channel", "documents", "memory")
        self.releases = root / "releases.toml"
        self.releases.write_text(
            "".join(f'{one} = "{getattr(self.channel.settings, one)}"\n' for one in members)
        )

    def words(self, *more: str) -> list[str]:
        """Return the command's words."""
        return ["guard", "--policy", str(self.policy), "--releases", str(self.releases),
                "--records", str(self.root / "records"), "--socket", str(self.root / "sock"),
                *more]  # fmt: skip

    def loosen(self) -> None:
        """Allow more than was released."""
        row = self.text.split("[[allow]]")[1].replace("system", "more")
        self.policy.write_text(f"{self.text}\n[[allow]]{row}")


@pytest.fixture
def site(tmp_path: Path, base_text: str) -> Site:
    """A host whose policy is released."""
    return Site(tmp_path, base_text)


@pytest.fixture
def guarded_site(tmp_path: Path, base_text: str) -> Site:
    """The same, with a row for what the guard itself needs, wherever it is installed.

    A row of paths takes only what root alone can change, so not a checkout below /tmp.
    """
    (tmp_path / "first").mkdir()
    first = Site(tmp_path / "first", base_text)
    asked = [*first.words("--dry-run", "--json")]
    command = [sys.executable, "-m", "safehold", "endpoint", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    paths = [one.partition(" needs ")[2].rpartition(" (")[0] for one in _stopped(done.stdout)]
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    if not digests:
        return Site(tmp_path, base_text)
    row = (
        f'[[allow]]\nname = "guard"\nkinds = ["elf", "library", "script"]\n'
        f"sha256 = {json.dumps(sorted(set(digests)))}\n"
        'owner = "platform"\nreason = "the guard itself"\nticket = "OPS-1"\n'
    )
    return Site(tmp_path, base_text + row)


def _stopped(said: str) -> list[str]:
    """Return the lines of a dry run; each ends with the row and the reason."""
    lines: list[str] = json.loads(said)["stopped"]
    return [line.partition("): ")[0] for line in lines]


def test_policy_that_was_not_released_is_not_guarded(site: Site) -> None:
    """One row more than was released, and the guard does not start."""
    site.loosen()
    found = CliRunner().invoke(endpoint, site.words())
    assert isinstance(found.exception, ReleaseError)
    assert "endpoint-policy" in str(found.exception)
    assert not (site.root / "sock").exists()


def test_released_policy_gets_past_the_check(site: Site) -> None:
    """The same command with the released policy fails only at what comes after it."""
    words = site.words()
    words[words.index("--records") + 1] = str(site.root / "nowhere" / "records")
    found = CliRunner().invoke(endpoint, words)
    assert isinstance(found.exception, EndpointError), found.output
    assert "endpoint-policy" not in str(found.exception)


def test_lost_memory_of_releases_stops_the_guard(site: Site) -> None:
    """Without the memory of what was accepted nobody knows what is old: nothing starts."""
    Path(site.channel.settings.memory).unlink()
    found = CliRunner().invoke(endpoint, site.words())
    assert isinstance(found.exception, TrustError)
    assert not (site.root / "sock").exists()


def _beats(socket: Path) -> None:
    """Wait until the guard's worker gives a sign of life."""
    for _ in range(600):
        try:
            read_pulse(socket)
        except EndpointError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the guard gave no sign of life")


@pytest.mark.skipif(os.geteuid() != 0, reason="fanotify needs root")
def test_sighup_takes_no_policy_that_was_not_released(guarded_site: Site) -> None:
    """A running guard keeps the released policy, and says why it did not take the other."""
    site = guarded_site
    # Every file system is left alone: the guard runs, and asks nothing of this machine.
    # It sees those of now alone: what others mount and unmount meanwhile is not its own.
    mounts = markable(parse_mountinfo(Path("/proc/self/mountinfo").read_text()))
    leave = [word for one in mounts for word in ("--leave", one.point)]
    private = ("unshare", "--mount", "--propagation", "private")
    command = [*private, sys.executable, "-m", "safehold", "endpoint"]
    command += site.words(*leave, "--json")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            line = child.stdout.readline()
            assert line, child.stderr.read()
            started = json.loads(line)
            _beats(site.root / "sock")
            site.loosen()
            child.send_signal(signal.SIGHUP)
            said = child.stderr.readline()
            assert "the policy was not taken" in said
            assert "endpoint-policy" in said
            assert read_pulse(site.root / "sock").policy == started["policy"]
            site.policy.write_text(site.text)
            child.send_signal(signal.SIGHUP)
            assert started["policy"] in child.stderr.readline()
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(20)


@pytest.mark.skipif(os.geteuid() != 0, reason="who answers must be root")
def test_drift_of_marks_is_found_and_a_guard_of_the_released_policy_is_none(site: Site) -> None:
    """No marks, another policy at work, and silence are findings; the released one is not."""
    state = GuardState(round=time.monotonic(), marks=3)
    sha256 = hashlib.sha256(site.policy.read_bytes()).hexdigest()
    socket = site.root / "sock"
    words = ["drift", "--releases", str(site.releases), "--policy", str(site.policy),
             "--socket", str(socket)]  # fmt: skip

    def said() -> tuple[int, str]:
        state.round = time.monotonic()
        found = CliRunner().invoke(change, words)
        return found.exit_code, found.stderr

    code, silent = said()
    assert (code, "silent" in silent) == (1, True)
    for policy, marks, want in ((sha256, 3, ""), (sha256, 0, "no marks"), ("0" * 64, 3, "policy")):
        ended = threading.Event()
        state.marks = marks
        with listen(socket) as listener:
            heart = Heart(listener, policy, Mode.AUDIT, "gpu-1")
            thread = threading.Thread(target=heart.beat, args=(state, ended))
            thread.start()
            code, told = said()
            ended.set()
            thread.join(5)
        assert (code, want in told) == (int(bool(want)), True), told
    site.loosen()
    with listen(socket) as listener:
        ended = threading.Event()
        state.marks = 3
        loose = hashlib.sha256(site.policy.read_bytes()).hexdigest()
        heart = Heart(listener, loose, Mode.AUDIT, "gpu-1")
        thread = threading.Thread(target=heart.beat, args=(state, ended))
        thread.start()
        code, told = said()
        ended.set()
        thread.join(5)
    assert (code, "another one runs than was released" in told) == (1, True), told
