"""Provenance, rebuilds and the list of parts: who built what from what, said so that it counts."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

import safehold
from safehold.canonical import canonical
from safehold.secure.change.git_policy import ChangeError
from safehold.secure.change.provenance import (
    BuiltFile,
    envelope,
    provenance,
    sbom,
    to_sign,
    verify_provenance,
)
from safehold.secure.change.rebuild import RebuiltFolder, rebuild, rebuild_folder
from safehold.testing.builds import committed
from safehold.testing.trust import Enclave, SoftSsh
from safehold.trust.people.sshsig import armour, sign_sshsig
from safehold.trust.released.vouching import NAMESPACE

WHEEL = BuiltFile("safehold-1.whl", "1" * 64)


def statement(*subjects: BuiltFile) -> dict[str, Any]:
    """Return a statement about files."""
    return provenance(
        subjects or (WHEEL,),
        source="git+https://example.org/safehold",
        commit="c" * 40,
        builder="https://example.org/people/ana",
        parameters={"command": "pip wheel"},
        dependencies={"locks/test.txt": "2" * 64},
    )


def signed(told: dict[str, Any], *keys: SoftSsh, namespace: str = NAMESPACE) -> bytes:
    """Return the envelope with somebody's signatures."""
    return envelope(
        told,
        {
            key.key.key_id: armour(sign_sshsig(key.private, to_sign(told), namespace=namespace))
            for key in keys
        },
    )


def soft(enclave: Enclave, name: str) -> SoftSsh:
    """Return somebody's key."""
    key = enclave.keys[name]
    assert isinstance(key, SoftSsh)
    return key


@pytest.fixture
def enclave(tmp_path: Path) -> Enclave:
    """Return people."""
    return Enclave(tmp_path / "log")


def test_two_rebuilders_vouch_for_a_file(enclave: Enclave) -> None:
    """Two humans signed the statement about exactly this file."""
    data = signed(statement(), soft(enclave, "dev-one"), soft(enclave, "sec-one"))
    persons, told = verify_provenance(data, enclave.desk.state.roster, WHEEL)
    assert {one.name for one in persons} == {"dev-one", "sec-one"}
    assert told == statement()


@pytest.mark.parametrize(
    "names", [(), ("dev-one",), ("dev-one", "robot"), ("dev-one", "keyd"), ("dev-one", "stranger")]
)
def test_fewer_than_two_humans_do_not_vouch(enclave: Enclave, names: tuple[str, ...]) -> None:
    """One, an agent, a service or a stranger in the second place: refused."""
    keys = [SoftSsh(b"stranger") if name == "stranger" else soft(enclave, name) for name in names]
    with pytest.raises(ChangeError, match="2 persons"):
        verify_provenance(signed(statement(), *keys), enclave.desk.state.roster, WHEEL)


def test_a_signature_of_another_statement_or_purpose_counts_nothing(enclave: Enclave) -> None:
    """Signatures moved from another file's statement, or made for another namespace."""
    roster = enclave.desk.state.roster
    two = (soft(enclave, "dev-one"), soft(enclave, "sec-one"))
    other = statement(BuiltFile("other.whl", "3" * 64))
    moved = {
        key.key.key_id: armour(sign_sshsig(key.private, to_sign(other), namespace=NAMESPACE))
        for key in two
    }
    with pytest.raises(ChangeError, match="2 persons"):
        verify_provenance(envelope(statement(), moved), roster, WHEEL)
    with pytest.raises(ChangeError, match="2 persons"):
        verify_provenance(signed(statement(), *two, namespace="git"), roster, WHEEL)


@pytest.mark.parametrize("file", [BuiltFile("safehold-1.whl", "4" * 64), BuiltFile("x", "1" * 64)])
def test_another_file_has_no_provenance(enclave: Enclave, file: BuiltFile) -> None:
    """An altered file, and another file with the same bytes."""
    data = signed(statement(), soft(enclave, "dev-one"), soft(enclave, "sec-one"))
    with pytest.raises(ChangeError, match="another file"):
        verify_provenance(data, enclave.desk.state.roster, file)
    with pytest.raises(ChangeError, match="canonical"):
        verify_provenance(data + b" ", enclave.desk.state.roster, WHEEL)


def test_a_statement_that_says_nothing_is_not_made() -> None:
    """An empty digest or no file at all would be true of everything."""
    for bad in ((BuiltFile("x", ""),), (BuiltFile("x", "ab"),)):
        with pytest.raises(ChangeError):
            statement(*bad)
    with pytest.raises(ChangeError):
        provenance((), source="s", commit="c", builder="b", parameters={}, dependencies={})


LOCK = f"""# made by a tool
--index-url https://example.org/simple
Left_Pad==1.0 \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
other[extra]==2.1.0 ; python_version > "3" \\
    --hash=sha256:{"c" * 64}
"""


def test_every_package_of_a_lock_is_in_the_list() -> None:
    """Names, versions and digests, in an order that does not depend on the lock's."""
    found = sbom(LOCK, name="safehold", version="1")
    assert [one["purl"] for one in found["components"]] == [
        "pkg:pypi/left-pad@1.0",
        "pkg:pypi/other@2.1.0",
    ]
    assert [len(one["hashes"]) for one in found["components"]] == [2, 1]
    assert canonical(found) == canonical(sbom(LOCK, name="safehold", version="1"))


def test_the_projects_own_locks_are_listed_whole() -> None:
    """Each pinned line of the locks that are shipped is a component."""
    locks = Path(safehold.__file__).parents[2] / "locks"
    if not locks.is_dir():  # an installed package has no locks
        assert "site-packages" in str(locks)
        return
    text = (locks / "test.txt").read_text()
    count = sum(1 for line in text.splitlines() if line[:1].isalnum())
    assert len(sbom(text, name="safehold", version="1")["components"]) == count


@pytest.mark.parametrize("line", ["left-pad", "left-pad==1.0", "left-pad>=1 --hash=sha256:x", ""])
def test_a_lock_that_pins_nothing_is_refused(line: str) -> None:
    """No version, no hash, a range, or nothing at all."""
    with pytest.raises(ChangeError):
        sbom(line + "\n", name="safehold", version="1")


def test_in_toto_reads_the_statement() -> None:
    """The judge from outside: in-toto's own bindings take it, and refuse an empty digest set."""
    found = json_format.ParseDict(statement(), statement_pb2.Statement())
    Statement.copy_from_pb(found).validate()
    empty = statement()
    empty["subject"][0]["digest"] = {}
    with pytest.raises(ValueError, match="digest"):
        Statement.copy_from_pb(json_format.ParseDict(empty, statement_pb2.Statement())).validate()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_sound_build_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    """The commit is built, not the work tree: what lies there uncommitted changes nothing."""
    root = committed(tmp_path / "sound", '""')
    (root / "tiny.py").write_text("evil = 1\n")
    found = rebuild(root, "HEAD", tmp_path / "out", isolated=False)
    assert found.same
    assert (tmp_path / "out" / found.name).exists()
    assert json.loads(json.dumps({"sha256": found.sha256}))["sha256"] == found.again


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_build_that_depends_on_its_place_is_found(tmp_path: Path) -> None:
    """The folder gets into the wheel; the soak tries the zone, the umask and the order too."""
    root = committed(tmp_path / "unsound", "os.getcwd()")
    assert not rebuild(root, "HEAD", tmp_path / "out", isolated=False).same


def test_a_build_that_fails_says_so(tmp_path: Path) -> None:
    """An error of the build is one line."""
    root = committed(tmp_path / "broken", "undefined_name")
    with pytest.raises(ChangeError, match="build failed"):
        rebuild(root, "HEAD", tmp_path / "out", isolated=False)


_MAKES = "import pathlib; p = pathlib.Path('made'); p.mkdir(); (p / 'x').write_text({what})"


def _twice(tmp_path: Path, what: str) -> RebuiltFolder:
    """Make a folder in two places by a program that writes something."""
    command = [sys.executable, "-c", "import os, time; " + _MAKES.format(what=what)]
    (tmp_path / "given").write_text("given")
    out = tmp_path / "out"
    return rebuild_folder([command], {"input": tmp_path / "given"}, out, made="made")


def test_a_folder_made_from_its_inputs_alone_is_the_same_twice(tmp_path: Path) -> None:
    """The inputs are there, the result is kept, and another published one is told by its files."""
    found = _twice(tmp_path, "open('input').read()")
    assert found.same
    assert (tmp_path / "out" / "x").read_text() == "given"
    assert found.against(tmp_path / "out") == ()
    (tmp_path / "out" / "x").write_text("changed")
    (tmp_path / "out" / "y").write_text("more")
    assert found.against(tmp_path / "out") == ("x", "y")


@pytest.mark.parametrize(
    "what", ["time.tzname[0]", "str(hash('x'))", "os.getcwd()", "oct(os.umask(0))"]
)
def test_a_folder_that_depends_on_its_place_is_found(tmp_path: Path, what: str) -> None:
    """The zone, the order of hashes, the folder, the umask."""
    assert not _twice(tmp_path, what).same


@pytest.mark.parametrize("what", ["1 / 0", "exit(1)"])
def test_a_step_that_fails_says_so(tmp_path: Path, what: str) -> None:
    """No digest is told of what was not made."""
    with pytest.raises(ChangeError):
        _twice(tmp_path, what)
