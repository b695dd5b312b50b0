"""Published test vectors: RFC 6962, 8032, 8785, C2SP signed-note, checkpoints and tile paths."""

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.canonical import CanonicalError, canonical, parse_canonical
from safehold.trust.log.checkpoint import parse_checkpoint
from safehold.trust.log.interface import LogError, LogTamperError
from safehold.trust.log.merkle import (
    EMPTY_ROOT,
    fold,
    hash_leaf,
    prove_consistency,
    prove_inclusion,
    tree_root,
)
from safehold.trust.log.note import (
    Algorithm,
    SigningKey,
    VerifierKey,
    parse_note,
    parse_vkey,
    sign_note,
)
from safehold.trust.log.tiles import bundle_path, tile_path, width_of

# The inputs and roots of the Certificate Transparency reference implementation for RFC 6962.
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def node(level: int, index: int) -> bytes:
    """Read subtree hashes straight from the inputs."""
    span = 1 << level
    return fold([hash_leaf(one) for one in INPUTS[index * span : (index + 1) * span]])


@pytest.mark.parametrize("size", range(9))
def test_rfc6962_roots(size: int) -> None:
    """The tree of the first n inputs has the published root."""
    assert tree_root(size, node).hex() == ROOTS[size]


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 1, []),
        (
            0,
            8,
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
    ],
)
def test_rfc6962_inclusion(index: int, size: int, path: list[str]) -> None:
    """Inclusion proofs are the published ones."""
    assert [one.hex() for one in prove_inclusion(index, size, node).hashes] == path


def test_rfc6962_consistency() -> None:
    """The consistency proof from 6 to 8 is the published one."""
    assert [one.hex() for one in prove_consistency(6, 8, node).hashes] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert EMPTY_ROOT.hex() == ROOTS[0]


def test_rfc8785_example() -> None:
    """The document of RFC 8785 section 3.2.2 has the bytes of section 3.2.4."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '\u20ac$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    expected = (
        "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e756d62657273223a5b3333"
        "333333333333332e333333333333332c31652b33302c342e352c302e3030322c31652d32375d2c22737472"
        "696e67223a22e282ac245c75303030665c6e4127425c225c5c5c5c5c222f227d"
    )
    assert canonical(value).hex() == expected


def test_rfc8785_sorts_by_utf16_units() -> None:
    """Members are in the order of RFC 8785 section 3.2.3 (UTF-16 code units)."""
    value = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    text = canonical(value).decode()
    order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"]
    assert sorted(order, key=text.index) == order


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), float("inf")])
def test_numbers_without_exact_form_are_refused(value: float) -> None:
    """What two readers could read differently is never signed."""
    with pytest.raises(CanonicalError):
        canonical({"a": value})


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":2}', b'{"b":1, "a":2}', b'{"b":1,"a":2}', b'{"a":1}\n', b'{"a":1.0}']
)
def test_second_spellings_are_refused(data: bytes) -> None:
    """Duplicate members, other order, white space and other numbers are not canonical."""
    with pytest.raises(CanonicalError):
        parse_canonical(data, dict[str, float | int], what="a test document")


# RFC 8032 section 7.1, tests 1 to 3: public key, message, signature.
ED25519 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
            "1cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613"
            "d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760"
            "984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("public", "message", "signature"), ED25519)
def test_rfc8032(public: str, message: str, signature: str) -> None:
    """Published signatures verify; with one bit changed they do not."""
    key = VerifierKey("test", Algorithm.ED25519, bytes.fromhex(public))
    raw = bytes.fromhex(signature)
    assert key.verifies(raw, bytes.fromhex(message))
    assert not key.verifies(bytes([raw[0] ^ 1]) + raw[1:], bytes.fromhex(message))
    assert not key.verifies(raw, bytes.fromhex(message) + b"x")


# The example of Go's golang.org/x/mod/sumdb/note, from which the specification came.
NEUMANN_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NOTE = (
    TEXT + "\n\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg"
    "KvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_signed_note_example() -> None:
    """The example's key signs the example's text to the example's bytes, and they verify."""
    key = SigningKey.parse(NEUMANN_SECRET)
    assert str(key.verifier) == NEUMANN
    assert str(sign_note(TEXT, key)) == NOTE
    assert parse_note(NOTE.encode()).verify([parse_vkey(NEUMANN)])


@pytest.mark.parametrize(
    "data",
    [
        NOTE.replace("answer", "question").encode(),
        NOTE.replace("PeterNeumann x08go", "PeterNeumann y08go").encode(),
        NOTE.replace("PeterNeumann", "Somebody").encode(),
    ],
)
def test_changed_or_foreign_notes_do_not_verify(data: bytes) -> None:
    """Another text, another key id or another name is not signed by the key."""
    with pytest.raises(LogTamperError):
        parse_note(data).verify([parse_vkey(NEUMANN)])


def test_no_known_key_verifies_nothing() -> None:
    """An empty list of keys refuses."""
    with pytest.raises(LogTamperError):
        parse_note(NOTE.encode()).verify([])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"\xff\n\n" + NOTE.encode(),
        NOTE.encode()[:-1],
        NOTE.replace("problem,", "prob\tlem,").encode(),
        NOTE.replace("\u2014 ", "- ").encode(),
        NOTE.encode().replace(b"x08go/", b"!!!!!!"),
        (TEXT + "\n\u2014 PeterNeumann xw==\n").encode(),
        (TEXT + "\n" + "\u2014 a x08go/ZJ\n" * 101).encode(),
    ],
)
def test_malformed_notes_are_refused(data: bytes) -> None:
    """What is no note gives one clear error."""
    with pytest.raises(LogError):
        parse_note(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/log\n5\n",
        "example.com/log\n05\nAAAA\n",
        "example.com/log\n-1\n" + "A" * 43 + "=\n",
        "example.com/log\n5\nAAAA\n",
        "\n5\n" + "A" * 43 + "=\n",
        "example.com/log\n5\n" + "A" * 42 + "B=\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    """Origin, size and root each have one form."""
    with pytest.raises(LogError):
        parse_checkpoint(text)


def test_checkpoint_example_of_the_specification() -> None:
    """The body of the tlog-checkpoint example parses to its parts."""
    head = parse_checkpoint(
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)


def test_tile_paths_of_the_specification() -> None:
    """Index 1234067 is x001/x234/067; partial tiles carry their width."""
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert bundle_path(1234067, 112) == "tile/entries/x001/x234/067.p/112"
    assert tile_path(1, 0, 17) == "tile/1/000.p/17"


def test_tiles_of_a_tree_of_70000() -> None:
    """The specification's example tree has 273 + 1, 1 + 1 and 1 tiles of the stated widths."""
    assert [width_of(0, 272, 70_000), width_of(0, 273, 70_000), width_of(0, 274, 70_000)] == [
        256,
        112,
        0,
    ]
    assert [width_of(1, 0, 70_000), width_of(1, 1, 70_000)] == [256, 17]
    assert [width_of(2, 0, 70_000), width_of(3, 0, 70_000)] == [1, 0]
    assert [width_of(0, 0, 256), width_of(0, 1, 256), width_of(1, 0, 256)] == [256, 0, 1]


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(alphabet=st.characters(max_codepoint=127)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet=st.characters(max_codepoint=127)), inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=600, deadline=None)
@given(JSON_VALUES)
def test_fast_path_is_rfc8785(value: object) -> None:
    """Whatever the document, our bytes are those of the reference library."""
    try:
        expected = rfc8785.dumps(value)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        return
    assert canonical(value) == expected


def test_fast_path_escapes_every_ascii_character_as_rfc8785() -> None:
    """Each of the 128 ASCII characters has the same escape on both paths."""
    for code in range(128):
        value = {"k" + chr(code): "v" + chr(code)}
        assert canonical(value) == rfc8785.dumps(value)
