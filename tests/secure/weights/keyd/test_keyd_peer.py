"""The loader that asks is the loader that was measured, and it alone reads the answer."""

import os
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from safehold.secure.weights.keyd.binding import Binding, new_bind, seal_answer
from safehold.secure.weights.keyd.client import ask_once
from safehold.secure.weights.keyd.interface import (
    Alive,
    Bind,
    BindProof,
    KeydError,
    KeyRefusal,
    Keys,
    Load,
    SealedAnswer,
    receive,
    send,
)
from safehold.secure.weights.keyd.peer import (
    Image,
    Peer,
    check_code,
    peer_of,
    tree_sha256,
    workload_sha256,
)
from safehold.testing.keyd import Vaulted


def connected(vaulted: Vaulted) -> socket.socket:
    """Return a connection of this process to the key service."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(vaulted.socket))
    return connection


def in_child(work: "object") -> None:
    """Run a callable in a forked process that shares every descriptor, and wait."""
    child = os.fork()
    if child == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def test_the_measured_process_gets_its_keys(vaulted: Vaulted) -> None:
    """The near miss: the process that connected answers for itself and reads its answer."""
    request = vaulted.granted()
    ask = Load(grant=request.sha256, header=vaulted.text(), parts=("*",))
    keys = ask_once(vaulted.socket, ask, Keys).keys
    assert set(keys) == {shard.name for shard in vaulted.header.shards}


def test_a_child_that_shares_the_connection_gets_no_key(vaulted: Vaulted) -> None:
    """Connect, fork, let the child speak (custodia#128): refused, and no use is spent."""
    request = vaulted.granted()
    with connected(vaulted) as connection:

        def speak() -> None:
            send(connection, Load(grant=request.sha256, header=vaulted.text(), parts=("*",)))
            bind = receive(connection, Bind)
            send(connection, Binding(bind).bound)

        in_child(speak)
        answer = receive(connection, SealedAnswer | KeyRefusal)
    assert isinstance(answer, KeyRefusal)
    assert "another process" in answer.reason
    assert vaulted.enclave.desk.state.case(request.sha256).uses == 0


def test_a_nonce_that_was_not_given_is_refused(vaulted: Vaulted) -> None:
    """An answer prepared before the measurement is worth nothing."""
    request = vaulted.granted()
    with connected(vaulted) as connection:
        send(connection, Load(grant=request.sha256, header=vaulted.text(), parts=("*",)))
        receive(connection, Bind)
        send(connection, Binding(new_bind()).bound)
        answer = receive(connection, SealedAnswer | KeyRefusal)
    assert isinstance(answer, KeyRefusal)
    assert vaulted.enclave.desk.state.case(request.sha256).uses == 0


def test_who_shares_the_connection_can_not_read_the_answer() -> None:
    """An answer opens with the key in the measured process's memory, and with no other."""
    bind = new_bind()
    loader, thief = Binding(bind), Binding(bind)
    sealed = seal_answer(Alive(), loader.bound)
    assert loader.open(sealed) == Alive()
    with pytest.raises(KeydError, match="sealed to this process"):
        thief.open(sealed)
    altered = sealed.box[:-1] + bytes([sealed.box[-1] ^ 1])
    with pytest.raises(KeydError, match="sealed to this process"):
        loader.open(SealedAnswer(public=sealed.public, box=altered))


def test_a_key_that_every_secret_agrees_with_is_refused() -> None:
    """The all-zero point would give everybody the same secret (RFC 7748 section 6.1)."""
    with pytest.raises(KeydError, match="agreed"):
        seal_answer(Alive(), BindProof(nonce=bytes(32), public=bytes(32)))


def test_a_loader_that_becomes_another_program_is_refused(tmp_path: Path) -> None:
    """Exec after the measurement, of the very same file, is seen (systemd#30189)."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("pass\n")
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        script = (
            "import os, socket, sys\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.set_inheritable(True)\n"
            "sys.stdin.readline()\n"
            "again = 'import sys; print(1, flush=True); sys.stdin.readline()'\n"
            "os.execv(sys.executable, [sys.executable, '-c', again])\n"
        )
        loader = subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert loader.stdin is not None
        assert loader.stdout is not None
        try:
            listener.settimeout(30)
            connection, _ = listener.accept()
            with connection, peer_of(connection, [code]) as (peer, check):
                assert peer.pid == loader.pid
                check()
                loader.stdin.write(b"\n")
                assert select.select([loader.stdout], [], [], 30)[0]
                with pytest.raises(KeydError, match="another program"):
                    check()
        finally:
            loader.kill()
            loader.communicate()


def test_code_that_changes_after_the_measurement_is_refused(tmp_path: Path) -> None:
    """The digest is taken again when the answer leaves."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("pass\n")
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs, peer_of(ours, [code]) as (peer, check):
        assert peer.workload_sha256 == workload_sha256(Path("/proc/self/exe"), [code])
        check()
        (code / "a.py").write_text("evil\n")
        with pytest.raises(KeydError, match="code changed"):
            check()


def test_the_log_names_the_process_in_one_line() -> None:
    """Numbers, and as much of the digest as `keyd` prints elsewhere: sixteen letters."""
    peer = Peer(pid=7, uid=1, gid=2, workload_sha256="0123456789abcdef" * 4)
    assert peer.words == "uid 1 pid 7 workload 0123456789abcdef"


def test_one_process_has_one_image() -> None:
    """The same program, looked at twice, is the same."""
    assert Image.of(os.getpid()) == Image.of(os.getpid())
    with pytest.raises(KeydError, match="ended"):
        Image.of(2**22 + 1)


@pytest.mark.parametrize("name", ["__pycache__/a.cpython-311.pyc", "a.pyc", "sub/b.pyo"])
def test_a_byte_code_cache_is_refused(tmp_path: Path, name: str) -> None:
    """Python would run it instead of the source that was measured (SkillSpector#356)."""
    (tmp_path / "a.py").write_text("pass\n")
    before = tree_sha256(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"evil")
    with pytest.raises(KeydError, match="byte-code cache"):
        tree_sha256(tmp_path)
    shutil.rmtree(file.parent) if file.parent != tmp_path else file.unlink()
    assert tree_sha256(tmp_path) == before


def test_a_link_out_of_the_measured_folder_is_refused(tmp_path: Path) -> None:
    """What a link leads to can change without the folder."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("pass\n")
    (tmp_path / "else").mkdir()
    (code / "more").symlink_to(tmp_path / "else")
    with pytest.raises(KeydError, match="link"):
        tree_sha256(code)


@pytest.mark.parametrize(
    ("mode", "taken"), [(0o755, True), (0o775, False), (0o757, False), (0o700, True)]
)
def test_code_that_a_group_or_others_may_write_is_refused(
    tmp_path: Path, mode: int, *, taken: bool
) -> None:
    """Write bits for group and others, on a folder or above it, are refused."""
    code = tmp_path / "above" / "code"
    code.mkdir(parents=True)
    (code / "a.py").write_text("pass\n")
    for one in (code, code.parent, code / "a.py"):
        one.chmod(mode)
        if taken:
            check_code([code], [12_345])
        else:
            with pytest.raises(KeydError, match="changed by loaders"):
                check_code([code], [12_345])
        one.chmod(0o755)
