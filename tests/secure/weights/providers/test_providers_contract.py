"""Every key provider keeps one contract: files, shares, SoftHSM2, a transit engine, KMS."""

import hashlib
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import msgspec
import pkcs11
import pytest
from fake_vault import TOKEN, FakeVault
from moto.server import ThreadedMotoServer

from safehold.errors import WeightsError
from safehold.secure.weights.interface import KeyProvider, ProviderError, WrongKeyError
from safehold.secure.weights.keys import unwrap_data_key
from safehold.secure.weights.opened import SealedModel
from safehold.secure.weights.providers.envelope import unwrap_with
from safehold.secure.weights.providers.hsm import Pkcs11Provider
from safehold.secure.weights.providers.kms import KmsProvider
from safehold.secure.weights.providers.local import UnsafeLocalProvider
from safehold.secure.weights.providers.shares import ShareProvider
from safehold.secure.weights.providers.vault import VaultProvider
from safehold.secure.weights.seal import seal
from safehold.testing.weights import Publisher, write_model

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
CONTEXT = {"safehold-seal": "ab", "model": "brewer", "version": "1"}
KEY = bytes(range(32))
PASS = "correct horse battery"

pytestmark = [
    pytest.mark.filterwarnings("ignore:key files"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SoftHSM2 token; returns its label."""
    if not MODULE.exists():
        pytest.skip("needs softhsm2")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(config)
    subprocess.run(
        [
            *("softhsm2-util", "--init-token", "--free", "--label", "weights"),
            *("--pin", "1234", "--so-pin", "5678"),
        ],
        check=True,
        capture_output=True,
    )
    yield "weights"
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture(scope="module")
def kms_server() -> Iterator[str]:
    """A moto server on a free port; returns its address."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "testing"))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake transit engine."""
    with FakeVault() as server:
        yield server


@pytest.fixture(params=["unsafe-local", "shares", "pkcs11", "vault", "aws-kms"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> KeyProvider:
    """Each provider in turn."""
    match request.param:
        case "unsafe-local":
            return UnsafeLocalProvider(tmp_path / "keys")
        case "shares":
            return ShareProvider(
                tmp_path / "shares", lambda _: PASS, shares=3, threshold=2, work=10
            )
        case "pkcs11":
            return Pkcs11Provider(str(MODULE), request.getfixturevalue("softhsm"), "1234")
        case "vault":
            return VaultProvider(request.getfixturevalue("vault").url, TOKEN)
        case _:
            return KmsProvider("eu-west-1", endpoint=request.getfixturevalue("kms_server"))


def _name() -> str:
    return f"safehold-{uuid.uuid4().hex}"


def test_wrapped_key_unwraps(provider: KeyProvider) -> None:
    """What was wrapped comes out again, and is not in the wrapped text."""
    reference = provider.create(_name())
    blob = provider.wrap(reference, KEY, CONTEXT)
    assert provider.unwrap(reference, blob, CONTEXT) == KEY
    assert KEY.hex() not in blob


def test_other_context_is_refused(provider: KeyProvider) -> None:
    """A wrapped key moved to another model does not unwrap."""
    reference = provider.create(_name())
    blob = provider.wrap(reference, KEY, CONTEXT)
    with pytest.raises(WrongKeyError):
        provider.unwrap(reference, blob, CONTEXT | {"version": "2"})


def test_other_key_is_refused(provider: KeyProvider) -> None:
    """A wrapped key does not unwrap with another key of the same provider."""
    one, two = provider.create(_name()), provider.create(_name())
    blob = provider.wrap(one, KEY, CONTEXT)
    with pytest.raises(WeightsError):
        provider.unwrap(two, blob, CONTEXT)


def test_destroyed_key_unwraps_nothing(provider: KeyProvider) -> None:
    """After its destruction a key opens nothing, and the words say what is left to do."""
    reference = provider.create(_name())
    blob = provider.wrap(reference, KEY, CONTEXT)
    assert provider.destroy(reference)
    with pytest.raises(ProviderError):
        provider.unwrap(reference, blob, CONTEXT)


def test_nonsense_is_one_clear_error(provider: KeyProvider) -> None:
    """A wrapped key that is none is an error of ours, not of a foreign library."""
    reference = provider.create(_name())
    with pytest.raises(WeightsError):
        provider.unwrap(reference, "AAAA", CONTEXT)
    with pytest.raises(WeightsError):
        provider.unwrap(reference, "not base64!", CONTEXT)


def test_model_seals_and_opens(provider: KeyProvider, publisher: Publisher) -> None:
    """A whole model sealed with the provider opens with it."""
    write_model(publisher.root / "plain", shards=1)
    header = seal(publisher.order(), [provider], publisher.signer)
    publisher.provider = provider  # type: ignore[assignment]
    assert unwrap_data_key(header, [provider])
    with SealedModel(publisher.root / "sealed", header, publisher.keys(header)) as model:
        assert model.tensor("layer.1.bias").shape == (64,)


# ---- shares ------------------------------------------------------------------------------


class _People:
    """Passphrases by share number; can be wrong."""

    def __init__(self) -> None:
        self.wrong: set[str] = set()
        self.asked = 0

    def __call__(self, question: str) -> str:
        self.asked += 1
        number = question.split("share ")[1].split(" ", maxsplit=1)[0]
        if number in self.wrong and not question.startswith("New"):
            return "something else entirely"
        return f"{PASS} {number}"


def _split(folder: Path, shares: int, threshold: int) -> tuple[ShareProvider, _People, str, str]:
    people = _People()
    provider = ShareProvider(folder, people, shares=shares, threshold=threshold, work=10)
    reference = provider.create("safehold-x")
    return provider, people, reference, provider.wrap(reference, KEY, CONTEXT)


def test_lost_shares_down_to_the_threshold_still_open(tmp_path: Path) -> None:
    """With two of five shares lost and a threshold of three, the key is whole."""
    provider, _, reference, blob = _split(tmp_path, 5, 3)
    for number in (1, 4):
        (tmp_path / f"safehold-x.share-{number}.json").unlink()
    assert provider.unwrap(reference, blob, CONTEXT) == KEY


def test_lost_shares_below_the_threshold_are_a_clear_error(tmp_path: Path) -> None:
    """With one share too few the message counts them, and nobody is asked for a passphrase."""
    provider, people, reference, blob = _split(tmp_path, 5, 3)
    for number in (1, 2, 4):
        (tmp_path / f"safehold-x.share-{number}.json").unlink()
    asked = people.asked
    with pytest.raises(ProviderError, match="expected 3 of 5 shares, got 2"):
        provider.unwrap(reference, blob, CONTEXT)
    assert people.asked == asked


def test_a_share_is_stretched_as_its_file_says_by_any_scrypt(tmp_path: Path) -> None:
    """Python's own scrypt (RFC 7914, r=8, p=1) opens the share of one of one: no private way."""
    provider, _, reference, blob = _split(tmp_path, 1, 1)
    share = msgspec.json.decode((tmp_path / "safehold-x.share-1.json").read_bytes())
    kek = hashlib.scrypt(
        f"{PASS} 1".encode(),
        salt=bytes.fromhex(share["salt"]),
        n=2 ** share["work"],
        r=8,
        p=1,
        dklen=32,
    )
    key = unwrap_with(kek, share["blob"], {"safehold-share": "safehold-x", "number": "1"})
    assert unwrap_with(key, blob, CONTEXT) == provider.unwrap(reference, blob, CONTEXT) == KEY


def test_wrong_passphrase_names_its_share(tmp_path: Path) -> None:
    """The message says whose passphrase was wrong, not what was typed."""
    provider, people, reference, blob = _split(tmp_path, 3, 2)
    people.wrong = {"2"}
    with pytest.raises(WrongKeyError, match="wrong passphrase for share 2"):
        provider.unwrap(reference, blob, CONTEXT)


def test_copy_of_one_share_does_not_count_twice(tmp_path: Path) -> None:
    """Two files of one share are one share."""
    provider, _, reference, blob = _split(tmp_path, 3, 2)
    one = (tmp_path / "safehold-x.share-1.json").read_bytes()
    for number in (2, 3):
        (tmp_path / f"safehold-x.share-{number}.json").write_bytes(one)
    with pytest.raises(ProviderError, match="expected 2 of 3 shares, got 1"):
        provider.unwrap(reference, blob, CONTEXT)


def test_single_passphrase_is_one_of_one(tmp_path: Path) -> None:
    """A passphrase alone is the case of one share."""
    provider, _, reference, blob = _split(tmp_path, 1, 1)
    assert provider.unwrap(reference, blob, CONTEXT) == KEY


@pytest.mark.parametrize(("shares", "threshold"), [(3, 1), (2, 3), (0, 0), (40, 2)])
def test_senseless_splits_are_refused(tmp_path: Path, shares: int, threshold: int) -> None:
    """A threshold of one among many, or beyond them, is refused."""
    with pytest.raises(ProviderError):
        ShareProvider(tmp_path, _People(), shares=shares, threshold=threshold)


def test_short_passphrase_is_refused(tmp_path: Path) -> None:
    """A passphrase of a few letters makes no share."""
    with pytest.raises(ProviderError, match="12 characters"):
        ShareProvider(tmp_path, lambda _: "short").create("safehold-x")


# ---- servers -----------------------------------------------------------------------------


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A key file with open permissions is not used."""
    provider = UnsafeLocalProvider(tmp_path)
    reference = provider.create("safehold-x")
    (tmp_path / "safehold-x.kek").chmod(0o644)
    with pytest.raises(ProviderError, match="chmod 600"):
        provider.wrap(reference, KEY, CONTEXT)


def test_local_provider_warns(tmp_path: Path) -> None:
    """The unsafe provider says that it is unsafe."""
    with pytest.warns(UserWarning, match="whoever reads them"):
        UnsafeLocalProvider(tmp_path)


def test_wrong_pin_is_a_clear_error(softhsm: str) -> None:
    """A wrong PIN is named as such."""
    with pytest.raises(ProviderError, match="PIN"):
        Pkcs11Provider(str(MODULE), softhsm, "9999").create(_name())


def test_missing_token_is_a_clear_error(softhsm: str) -> None:
    """A token of another label is named."""
    del softhsm
    with pytest.raises(ProviderError, match="labelled elsewhere"):
        Pkcs11Provider(str(MODULE), "elsewhere", "1234").create(_name())


def test_token_key_can_not_be_extracted(softhsm: str) -> None:
    """The token refuses to give the key's value out."""
    provider = Pkcs11Provider(str(MODULE), softhsm, "1234")
    reference = provider.create(_name())
    with provider._session() as session:
        key = next(session.get_objects({pkcs11.Attribute.LABEL: reference}))
        with pytest.raises(pkcs11.exceptions.AttributeSensitive):
            _ = key[pkcs11.Attribute.VALUE]


def _refusals(vault: FakeVault) -> list[tuple[Callable[[], object], str]]:
    good = VaultProvider(vault.url, TOKEN)
    bad = VaultProvider(vault.url, "s.other")
    nowhere = VaultProvider("http://127.0.0.1:9", TOKEN, timeout_s=2)
    return [
        (lambda: bad.create("x"), "may not"),
        (lambda: good.destroy("missing"), "no such"),
        (lambda: nowhere.create("x"), "out of reach"),
    ]


@pytest.mark.parametrize("case", [0, 1, 2])
def test_vault_refusals_are_clear(vault: FakeVault, case: int) -> None:
    """A forbidden token, a missing key and a server out of reach each say which it was."""
    call, words = _refusals(vault)[case]
    with pytest.raises(ProviderError, match=words):
        call()


def test_sealed_vault_is_a_clear_error(vault: FakeVault) -> None:
    """A Vault that is itself sealed can't wrap."""
    vault.sealed = True
    with pytest.raises(ProviderError, match="sealed"):
        VaultProvider(vault.url, TOKEN).create("x")


def test_vault_that_answers_500_to_a_wrong_context_is_understood(vault: FakeVault) -> None:
    """A wrong context is a wrong key, under either status that releases of Vault gave it."""
    vault.bad_tag_status = 500
    provider = VaultProvider(vault.url, TOKEN)
    blob = provider.wrap(provider.create("x"), KEY, CONTEXT)
    with pytest.raises(WrongKeyError):
        provider.unwrap("x", blob, {**CONTEXT, "model": "other"})


def test_vault_too_old_for_associated_data_is_refused(vault: FakeVault) -> None:
    """A server that ignores the context wraps nothing for us: its keys would open for any model."""
    vault.ignores_associated_data = True
    provider = VaultProvider(vault.url, TOKEN)
    with pytest.raises(ProviderError, match="associated data"):
        provider.wrap(provider.create("x"), KEY, CONTEXT)


def test_kms_key_is_pending_deletion_after_destroy(kms_server: str) -> None:
    """The key is disabled at once and its deletion scheduled."""
    provider = KmsProvider("eu-west-1", endpoint=kms_server)
    reference = provider.create(_name())
    assert "disabled now" in provider.destroy(reference)
    client = boto3.client("kms", region_name="eu-west-1", endpoint_url=kms_server)
    assert client.describe_key(KeyId=reference)["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_kms_out_of_reach_is_a_clear_error(kms_server: str) -> None:
    """No service at the address is one line."""
    del kms_server
    provider = KmsProvider("eu-west-1", endpoint="http://127.0.0.1:9", timeout_s=1)
    with pytest.raises(ProviderError, match="out of reach"):
        provider.create("x")
