"""Files that are no keys, no providers, no settings, no header and no weights are refused."""

import base64
import os
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from safehold.errors import ConfigError, DependencyError
from safehold.secure.weights.formats import check_file, read_table
from safehold.secure.weights.header import open_header, read_header
from safehold.secure.weights.interface import (
    SealedFormatError,
    SealTamperError,
    StorageError,
    WeightsError,
)
from safehold.secure.weights.keyd.config import (
    MEMORY_KEY,
    UNRELEASED,
    admit,
    build_service,
    prepare_memory,
    read_config,
)
from safehold.secure.weights.keyd.host import measure_host
from safehold.secure.weights.keyd.interface import KeydError
from safehold.secure.weights.providers.config import (
    AwsKms,
    Pkcs11,
    Shares,
    UnsafeLocal,
    Vault,
    nobody,
    open_provider,
    read_provider,
)
from safehold.secure.weights.providers.shares import ShareProvider
from safehold.secure.weights.signer import SealSigner, SealVerifier
from safehold.trust.log.interface import LogError

HEX = "0" * 64
KEYD = f"""
socket = "keyd.sock"
log = "log"
log_keys = "log.json"
log_key = "log.key"
emitter_key = "keyd.key"
memory = "memory"
publisher = "publisher"
providers = ["local.toml"]
host = "gpu-1"
host_sha256 = "{HEX}"
loaders = [54321]
code = ["code"]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (b"\xff", "kinds"),
        (b"= 1", "kinds"),
        (b'kind = "cloud"', "kinds"),
        (b'kind = "shares"', "kinds"),
        (b'kind = "shares"\nfolder = "x"\nother = 1', "kinds"),
    ],
)
def test_what_is_no_provider_file_is_refused(tmp_path: Path, text: bytes | None, said: str) -> None:
    """Gone, no TOML, an unknown kind, a member that lacks or is unknown."""
    path = tmp_path / "p.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ConfigError, match=said):
        read_provider(path)


def test_paths_of_a_provider_are_meant_beside_its_file(tmp_path: Path) -> None:
    """Each kind, with its members."""
    path = tmp_path / "p.toml"
    for text, found in (
        ('kind = "unsafe-local"\nfolder = "k"', UnsafeLocal(str(tmp_path / "k"))),
        ('kind = "shares"\nfolder = "k"\nshares = 3\nthreshold = 2',
         Shares(str(tmp_path / "k"), 3, 2)),
        ('kind = "pkcs11"\nmodule = "/m"\ntoken = "t"\npin_file = "pin"',
         Pkcs11("/m", "t", str(tmp_path / "pin"))),
        ('kind = "vault"\nurl = "https://v"\ntoken_file = "t"',
         Vault("https://v", str(tmp_path / "t"))),
        ('kind = "aws-kms"\nregion = "r"', AwsKms("r")),
    ):  # fmt: skip
        path.write_text(text)
        assert read_provider(path) == found


def test_a_provider_opens_with_its_secret_or_not_at_all(tmp_path: Path) -> None:
    """No secret, an empty one, one that is no text, one that others read."""
    tmp_path.chmod(0o700)
    shares = open_provider(Shares(str(tmp_path / "s")), nobody)
    assert isinstance(shares, ShareProvider)
    with pytest.raises(ConfigError, match="a person for this provider: passphrase"):
        nobody("passphrase")
    secret = tmp_path / "token"
    vault = Vault("https://127.0.0.1:1", str(secret))
    for data, mode, said in (
        (None, 0, "can't read"),
        (b" \n", 0o600, "empty file"),
        (b"\xff", 0o600, "can't read the secret"),
        (b"x", 0o644, "chmod 600"),
    ):
        if data is not None:
            secret.write_bytes(data)
            secret.chmod(mode)
        with pytest.raises(ConfigError, match=said):
            open_provider(vault, nobody)
        with pytest.raises(ConfigError, match=said):
            open_provider(Pkcs11("/none.so", "t", str(secret)), nobody)


@pytest.mark.parametrize(
    ("module", "provider", "extra"),
    [
        ("hsm", Pkcs11("/none.so", "t", "pin"), "pkcs11"),
        ("vault", Vault("https://127.0.0.1:1", "t"), "vault"),
        ("kms", AwsKms("r"), "aws"),
    ],
)
def test_a_provider_without_its_extra_says_which(
    monkeypatch: pytest.MonkeyPatch, module: str, provider: Pkcs11 | Vault | AwsKms, extra: str
) -> None:
    """An extra that is not installed is one line with what to install."""
    monkeypatch.setitem(sys.modules, f"safehold.secure.weights.providers.{module}", None)
    with pytest.raises(DependencyError, match=rf"safehold\[{extra}\]"):
        open_provider(provider, nobody)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (b"\xff", "keyd.toml"),
        (b"= 1", "keyd.toml"),
        (KEYD.encode() + b"other = 1\n", "unknown field"),
        (KEYD.replace("[54321]", "[]").encode(), "length"),
        (KEYD.encode() + b'endpoint_socket = "e"\n', "or neither"),
        (KEYD.encode() + f'endpoint_policy = "{HEX}"\n'.encode(), "or neither"),
    ],
)
def test_what_are_no_settings_of_keyd_are_refused(
    tmp_path: Path, text: bytes | None, said: str
) -> None:
    """Gone, no TOML, an unknown member, nobody who may ask, half of the endpoint's part."""
    path = tmp_path / "keyd.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ConfigError, match=said):
        read_config(path)


def test_paths_of_keyd_are_meant_beside_its_file(tmp_path: Path) -> None:
    """Of each part, the optional ones too; without releases the mode says that nothing is asked."""
    path = tmp_path / "keyd.toml"
    path.write_text(KEYD)
    plain = read_config(path)
    assert (plain.socket, plain.code) == (str(tmp_path / "keyd.sock"), (str(tmp_path / "code"),))
    assert (plain.endpoint_socket, plain.releases, plain.standing) == ("", None, None)
    assert admit(path, lambda: 0) == UNRELEASED
    more = f"""endpoint_socket = "guard.sock"
endpoint_policy = "{HEX}"
[releases]
log = "log"
log_keys = "log.json"
channel = "gpu-1"
documents = "releases"
memory = "releases.memory"
[standing]
document = "standards.yaml"
document_sha256 = "{HEX}"
log = "log"
log_keys = "log.json"
controls = "met"
controls_key = "k"
compute = 1e25
"""
    path.write_text(KEYD + more)
    whole = read_config(path)
    assert whole.endpoint_socket == str(tmp_path / "guard.sock")
    assert whole.releases is not None
    assert whole.releases.memory == str(tmp_path / "releases.memory")
    assert whole.standing is not None
    assert whole.standing.controls == str(tmp_path / "met")


def test_keyd_does_not_start_where_it_would_be_worth_nothing(tmp_path: Path) -> None:
    """As a loader's user, on another host, without its log; its memory begins once."""
    path = tmp_path / "keyd.toml"
    (tmp_path / "code").mkdir()
    path.write_text(KEYD.replace("54321", str(os.geteuid())))
    with pytest.raises(ConfigError, match="a user of its own"):
        build_service(read_config(path), lambda: 0)
    path.write_text(KEYD.replace('["code"]', "[]"))
    with pytest.raises(KeydError, match="this host measures"):
        build_service(read_config(path), lambda: 0)
    path.write_text(KEYD.replace('["code"]', "[]").replace(HEX, measure_host().sha256))
    with pytest.raises(LogError, match=r"log\.json"):
        build_service(read_config(path), lambda: 0)
    prepare_memory(tmp_path / "memory")
    assert (tmp_path / "memory" / MEMORY_KEY).stat().st_mode & 0o777 == 0o600
    with pytest.raises(LogError, match="new directory"):
        prepare_memory(tmp_path / "memory")


def test_keys_of_a_publisher_are_of_their_own_kinds_and_written_once(tmp_path: Path) -> None:
    """Missing, open to others, no PEM, with a password, and the one in place of the other."""
    folder = tmp_path / "publisher"
    signer = SealSigner.generate()
    signer.write(folder)
    modes = {one.name: one.stat().st_mode & 0o777 for one in folder.iterdir()}
    assert modes == {
        name: 0o644 if ".pub" in name else 0o600
        for name in ("header.key.pem", "header.pub.pem", "manifest.key.pem", "manifest.pub.pem")
    }
    folder.chmod(0o700)
    assert SealSigner.read(folder).verifier.key_id == SealVerifier.read(folder).key_id
    assert not SealVerifier.read(folder).is_header(bytes(64), b"m")
    assert not SealVerifier.read(folder).is_manifest(b"x", b"m")
    with pytest.raises(StorageError, match="File exists"):
        signer.write(folder)
    ed, curve = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    private = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, data, reader in (
        ("header.pub.pem", curve.public_key().public_bytes(*public), SealVerifier),
        ("manifest.pub.pem", ed.public_key().public_bytes(*public), SealVerifier),
        ("header.pub.pem", b"no PEM", SealVerifier),
        ("header.pub.pem", None, SealVerifier),
        ("header.pem", curve.private_bytes(*private), SealSigner),
        ("manifest.pem", ed.private_bytes(*private), SealSigner),
        ("header.pem", b"no PEM", SealSigner),
        ("header.pem", None, SealSigner),
    ):
        path = next(one for one in folder.iterdir() if one.name == name or _plain(one) == name)
        kept = path.read_bytes()
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        with pytest.raises(WeightsError):
            reader.read(folder)
        path.touch(0o600)
        path.write_bytes(kept)
    assert SealSigner.read(folder)


def _plain(path: Path) -> str:
    """Return a private key file's name without what its kind adds."""
    return f"{path.name.split('.')[0]}.pem" if "pub" not in path.name else path.name


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a b.json", b"{}", "a name of letters"),
        ("m.pkl", b"x", "cannot run code"),
        ("m.json", b"\x80\x04x", "pickle or an archive"),
        ("m.txt", b"PK\x03\x04", "pickle or an archive"),
        ("m.gguf", b"GGML", "begin with GGUF"),
        ("m.safetensors", b"\x02\0\0\0", "longer than the file"),
        ("m.safetensors", (99).to_bytes(8, "little") + b"{}", "longer than the file"),
        ("m.safetensors", (2).to_bytes(8, "little") + b"{]", "in JSON"),
        ("m.safetensors", (2).to_bytes(8, "little") + b"[]", "an object"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_not_sealed(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    """A name, a format, a pickle under another name, a table that lies."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SealedFormatError, match=said):
        check_file(path, name)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 5]},
        {"dtype": "F32", "shape": [1], "data_offsets": [3, 2]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        7,
    ],
)
def test_a_tensor_that_is_none_is_refused(row: object) -> None:
    """A member that lacks, of another kind, or a place outside the file; `__metadata__` is none."""
    good = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    with pytest.raises(SealedFormatError):
        read_table(msgspec.json.encode({"a": good, "b": row}), 4)
    assert list(read_table(msgspec.json.encode({"a": good, "__metadata__": row}), 4)) == ["a"]


def test_a_header_that_is_none_is_refused(tmp_path: Path) -> None:
    """No file, no JSON, a signature that is no base64, another spelling, another signer."""
    with pytest.raises(SealedFormatError, match="a sealed model with"):
        read_header(tmp_path)
    signer = SealSigner.generate()
    verifier = signer.verifier
    raw = b'{"x":1}'
    signature = base64.b64encode(signer.sign_header(raw)).decode()

    def whole(key: str = verifier.key_id, sig: str = signature, gap: str = "") -> bytes:
        members = f'"header":{raw.decode()},"key_id":"{key}",{gap}"signature":"{sig}"'
        return ("{" + members + "}").encode()

    for data, error, said in (
        (b"{", SealedFormatError, "sealed model's header"),
        (b" " * (16 * 2**20 + 1), SealedFormatError, "at most"),
        (whole(sig="%"), SealedFormatError, "base64"),
        (whole(gap=" "), SealedFormatError, "another spelling"),
        (whole(key="0" * 16), SealTamperError, "signed by key"),
        (whole(), SealTamperError, "is false"),
    ):
        with pytest.raises(error, match=said):
            open_header(data, verifier)
