"""The TUF export, judged by python-tuf's own client."""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.ngclient import FetcherInterface, Updater

from safehold.canonical import canonical, sha256_hex
from safehold.secure.change.git_policy import ChangeError
from safehold.secure.change.tuf_client import register
from safehold.secure.change.tuf_export import (
    NAMESPACE,
    by_desk,
    collected,
    desk_key,
    envelope,
    key_id,
    person_key,
    root,
    snapshot,
    targets,
    timestamp,
    to_sign,
    write_repository,
)
from safehold.testing.trust import Enclave, SoftSsh
from safehold.trust.people.sshsig import sign_sshsig
from safehold.trust.release.interface import Artefact, ArtefactKind, Release

NOW = dt.datetime.now(dt.UTC)
DAY, YEAR = dt.timedelta(days=1), dt.timedelta(days=365)
SIGNERS = ("dev-two", "sec-one")
PROOF = {"index": 7, "origin": "enclave.test/log"}
register()


class Folder(FetcherInterface):
    """Fetches from a folder instead of a network."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._root / url.removeprefix("https://tuf.test/")
        if not path.exists():
            raise DownloadHTTPError("no such file", 404)
        yield path.read_bytes()


class Shop:
    """Three who sign, a desk, and a repository that a client updates from."""

    def __init__(self, home: Path) -> None:
        self.home = home
        enclave = Enclave(home / "log")
        self.keys = enclave.keys
        roster = enclave.desk.state.roster
        self.persons = [
            owned[0]
            for name in ("dev-two", "sec-one", "sec-two")
            if (owned := roster.owner(enclave.keys[name].key.key_id)) is not None
        ]
        self.desk = Ed25519PrivateKey.generate()
        self.root = root(self.persons, desk_key(self.desk), version=1, expires=NOW + YEAR)
        self.root_file = collected(self.root, self.root, "root", self.signed(self.root))
        self.before: Release | None = None

    def signed(self, what: dict[str, Any], names: tuple[str, ...] = SIGNERS) -> list[str]:
        """Return signatures of persons over metadata."""
        found = []
        for name in names:
            key = self.keys[name]
            assert isinstance(key, SoftSsh)
            found.append(sign_sshsig(key.private, to_sign(what), namespace=NAMESPACE))
        return found

    def publish(
        self, files: Mapping[str, bytes], *, fresh_for: dt.timedelta = DAY, version: int = 1
    ) -> Release:
        """Write the next release as a repository."""
        artefacts = tuple(
            Artefact(path=path, kind=ArtefactKind.RULES, sha256=hashlib.sha256(data).hexdigest())
            for path, data in files.items()
        )
        made = Release(
            channel="gw", version=version, previous="" if version == 1 else "0" * 64,
            artefacts=artefacts, not_before=0, expires=2**40,
        )  # fmt: skip
        listed = targets(made, files, PROOF, expires=NOW + YEAR)
        write_repository(
            self.home / "repo",
            root_file=self.root_file,
            targets_file=collected(listed, self.root, "targets", self.signed(listed)),
            files=files,
            release=made,
            desk=self.desk,
            now=NOW,
            fresh_for=fresh_for,
        )
        return made

    def client(self) -> Updater:
        """Return python-tuf's client; what it has seen stays in its folder."""
        seen = self.home / "seen"
        seen.mkdir(exist_ok=True)
        return Updater(
            metadata_dir=str(seen),
            metadata_base_url="https://tuf.test/metadata/",
            target_dir=str(self.home),
            target_base_url="https://tuf.test/targets/",
            fetcher=Folder(self.home / "repo"),
            bootstrap=self.root_file,
        )

    def metadata(self, name: str) -> Path:
        """Return a metadata file of the repository."""
        return self.home / "repo" / "metadata" / name


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Return a shop with one release."""
    made = Shop(tmp_path)
    made.publish({"rules.toml": b"one"})
    return made


def fetched(client: Updater, path: str) -> bytes:
    """Return a target as the client verified it."""
    info = client.get_targetinfo(path)
    assert info is not None
    return Path(client.download_target(info)).read_bytes()


def test_a_client_fetches_a_release_with_its_proof(shop: Shop) -> None:
    """python-tuf verifies persons' SSH signatures, and finds the log's proof beside the target."""
    client = shop.client()
    assert fetched(client, "rules.toml") == b"one"
    info = client.get_targetinfo("rules.toml")
    assert info is not None
    assert info.unrecognized_fields["custom"]["log"] == PROOF
    made = shop.publish({"rules.toml": b"two"}, version=2)
    again = shop.client()
    assert fetched(again, "rules.toml") == b"two"
    assert fetched(again, "release.json") == canonical(made)


def test_the_client_refuses_a_rollback(shop: Shop) -> None:
    """A client that saw version 2 takes no version 1."""
    shop.publish({"rules.toml": b"two"}, version=2)
    shop.client().refresh()
    shop.publish({"rules.toml": b"one"}, version=1)
    with pytest.raises(BadVersionNumberError):
        shop.client().refresh()


def test_the_client_refuses_a_freeze(shop: Shop) -> None:
    """Metadata whose time is over is taken by nobody."""
    shop.publish({"rules.toml": b"one"}, fresh_for=-DAY)
    with pytest.raises(ExpiredMetadataError):
        shop.client().refresh()


def test_the_client_refuses_one_of_two(shop: Shop) -> None:
    """A targets file that one person signed, and one that one person signed twice."""
    listed = msgspec.json.decode(shop.metadata("1.targets.json").read_bytes())["signed"]
    with pytest.raises(ChangeError, match="2 persons"):
        collected(listed, shop.root, "targets", shop.signed(listed, ("sec-one", "sec-one")))
    alone = {key_id(person_key(shop.persons[1])): shop.signed(listed, ("sec-one",))[0]}
    _with_targets(shop, envelope(listed, alone))
    with pytest.raises(UnsignedMetadataError):
        shop.client().refresh()


def _with_targets(shop: Shop, data: bytes) -> None:
    """Put a targets file under a snapshot and timestamp of the desk's own."""
    shop.metadata("1.targets.json").write_bytes(data)
    snap = by_desk(snapshot(data, 1, expires=NOW + DAY), shop.desk)
    shop.metadata("1.snapshot.json").write_bytes(snap)
    stamp = by_desk(timestamp(snap, 1, expires=NOW + DAY), shop.desk)
    shop.metadata("timestamp.json").write_bytes(stamp)


@pytest.mark.parametrize(
    ("names", "namespace"), [(("dev-one", "dev-three"), NAMESPACE), (SIGNERS, "git")]
)
def test_the_client_refuses_a_strangers_and_another_purposes_signature(
    shop: Shop, names: tuple[str, str], namespace: str
) -> None:
    """A key outside the role, and a signature in git's namespace, count nothing."""
    listed = msgspec.json.decode(shop.metadata("1.targets.json").read_bytes())["signed"]
    false = {}
    for name, person in zip(names, shop.persons[:2], strict=True):
        key = shop.keys[name]
        assert isinstance(key, SoftSsh)
        signature = sign_sshsig(key.private, to_sign(listed), namespace=namespace)
        false[key_id(person_key(person))] = signature
    _with_targets(shop, envelope(listed, false))
    with pytest.raises(UnsignedMetadataError):
        shop.client().refresh()


def test_the_client_refuses_mix_and_match(shop: Shop) -> None:
    """A targets file of one release under the snapshot of another."""
    old = shop.metadata("1.targets.json").read_bytes()
    shop.publish({"rules.toml": b"two"}, version=2)
    shop.metadata("2.targets.json").write_bytes(old)
    with pytest.raises((LengthOrHashMismatchError, RepositoryError)):
        shop.client().refresh()


def test_the_client_refuses_an_altered_artefact(shop: Shop) -> None:
    """Other bytes under the name of a target."""
    client = shop.client()
    client.refresh()
    digest = sha256_hex(b"one")
    (shop.home / "repo" / "targets" / f"{digest}.rules.toml").write_bytes(b"two")
    with pytest.raises(LengthOrHashMismatchError):
        fetched(client, "rules.toml")


def test_no_role_has_two_keys_of_one_person(shop: Shop) -> None:
    """A TUF client counts keys: a person with two can't be exported, nor one person twice."""
    twice = msgspec.structs.replace(
        shop.persons[0], keys=(*shop.persons[0].keys, SoftSsh(b"spare").key)
    )
    for persons in ([twice, shop.persons[1]], [shop.persons[0]] * 2, shop.persons[:1]):
        with pytest.raises(ChangeError, match=r"one SSH key|distinct persons"):
            root(persons, desk_key(shop.desk), version=1, expires=NOW + YEAR)


def test_a_file_that_the_release_does_not_hold_is_not_exported(shop: Shop) -> None:
    """Neither another file nor other bytes come under the persons' signatures."""
    made = shop.publish({"rules.toml": b"one"})
    for files in ({"other.toml": b"one"}, {"rules.toml": b"two"}):
        with pytest.raises(ChangeError, match="not what release 1 holds"):
            targets(made, files, PROOF, expires=NOW + YEAR)
