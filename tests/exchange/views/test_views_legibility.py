"""What nobody can read is counted, whatever the code; ordinary text and ordinary blobs are not."""

import base64
import codecs
import hashlib
import json
import random
import zlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from safehold.exchange.views import views
from safehold.exchange.views.legibility import unreadable
from safehold.guard.session.decoding import ViewDecoder

TEXT = (
    "The garden behind the house was planted by a painter who loved colours more than order. "
    "In the first spring she put tulips between the cabbages and let the roses climb into the "
    "apple trees. Neighbours shook their heads until the summer came and people stopped at the "
    "fence to look. She wrote down each evening what had opened and what had faded, and from "
    "those notes she chose the plants of the following year. Visitors still find her labels, "
    "written in pencil on slips of zinc, under the oldest bushes near the wall. "
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BUDGET = 200


def unread(text: str, size: int = 11) -> int:
    """Return the unreadable characters of a text that comes in pieces."""
    lane = ViewDecoder().growing()
    for at in range(0, len(text), size):
        list(lane.feed(text[at : at + size]))
    list(lane.finish())
    return lane.unreadable


def swapped(alphabet: str) -> str:
    """Return the text in another alphabet."""
    return "".join(dict(zip(LETTERS, alphabet, strict=True)).get(c, c) for c in TEXT.lower())


def shuffled(seed: int) -> str:
    """Return a private alphabet."""
    letters = list(LETTERS)
    random.Random(seed).shuffle(letters)
    return "".join(letters)


def letters_as(words: list[str]) -> str:
    """Return a word for each letter."""
    return " ".join(words[LETTERS.index(c)] for c in TEXT.lower() if c in LETTERS)


def in_base(alphabet: str) -> str:
    """Return the text as one number in another base."""
    number, out = int.from_bytes(TEXT.encode(), "big"), ""
    while number:
        number, digit = divmod(number, len(alphabet))
        out += alphabet[digit]
    return out


SYLLABLES = [a + b for a in "bdfgklm" for b in "aeiou"][:26]
NAMES = [
    f"{letter}{end}" for letter, end in zip(shuffled(8), ["ostrich", "umbrella"] * 13, strict=True)
]


def xored(pad: str, joint: str = "") -> str:
    """Return the text's bytes under a repeated pad, in hexadecimal."""
    data = TEXT.encode()
    return joint.join(f"{byte ^ ord(pad[at % len(pad)]):02x}" for at, byte in enumerate(data))


UNREADABLE = {
    "xored": xored("kettle"),
    "xored with a digit": xored("7"),
    "xored, in pairs": xored("lamp", " "),
    "xored, as a dump": xored("lamp", ":").upper(),
    "private alphabet": swapped(shuffled(1)),
    "another private alphabet": swapped(shuffled(2)),
    "georgian letters": swapped("".join(chr(0x10D0 + n) for n in range(26))),
    "devanagari letters": swapped("".join(chr(0x915 + n) for n in range(26))),
    "kana": swapped("".join(chr(0x30A2 + 2 * n) for n in range(26))),
    "emoji": swapped("".join(chr(0x1F400 + n) for n in range(26))),
    "a word a letter": letters_as(NAMES),
    "a syllable a letter": letters_as(SYLLABLES),
    "base 58": in_base("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"),
    "base 36": in_base("0123456789" + LETTERS),
    "masked bytes": base64.b64encode(bytes(byte ^ 0x5A for byte in TEXT.encode())).decode(),
    "no vowels": "".join(c for c in TEXT if c not in "aeiou"),
    "rails": "".join(TEXT[rail::3] for rail in range(3)),
    "a picture's first bytes": base64.b64encode(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + swapped(shuffled(3)).encode()
    ).decode(),
    "a key's frame": "-----BEGIN PRIVATE KEY-----\n"
    + base64.b64encode(b"\x30\x82" + swapped(shuffled(4)).encode()).decode()
    + "\n-----END PRIVATE KEY-----",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_code_without_a_view_is_counted(name: str) -> None:
    """A text in a code that no decoder reads is over the budget, nearly whole."""
    text = UNREADABLE[name]
    assert unread(text) > max(BUDGET, len(text) // 2)


READ = {
    "base64": base64.b64encode(TEXT.encode()).decode(),
    "compressed": base64.b64encode(zlib.compress(TEXT.encode())).decode(),
    "hex": TEXT.encode().hex(),
    "rot13": codecs.encode(TEXT, "rot13"),
    "filler letters": "".join(c + "q" if c.isalpha() else c for c in TEXT.lower()),
    "filler syllables": "".join(c + "ip" if c.isalpha() else c for c in TEXT.lower()),
    "before vowels": "".join("ub" + c if c in "aeiou" else c for c in TEXT.lower()),
    "no spaces": "".join(c for c in TEXT.lower() if c.isalpha()),
    "places": " ".join(
        "-".join(str(LETTERS.index(c) + 1) for c in word if c in LETTERS)
        for word in TEXT.lower().split()
    ),
    "moved spaces": " ".join(
        "".join(c for c in TEXT if c.isalpha())[at : at + 4] for at in range(0, 380, 4)
    ),
    "first letters": "\n".join(
        f"{c}nd so the {n % 7} days of {n} passed"
        for n, c in enumerate(TEXT.lower())
        if c.isalpha()
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_code_with_a_view_is_read_instead(name: str) -> None:
    """What a decoder reads is shown in words for scorers, and costs nothing of the budget."""
    folded = ["".join(view.text.lower().split()) for view in views(READ[name][:4000])]
    assert any("thegardenbehindthehouse" in text for text in folded)
    assert any("garden behind the house" in view.text.lower() for view in views(READ[name][:4000]))
    if name != "first letters":  # its lines are a code besides
        assert unread(READ[name]) == 0


def test_first_letters_of_distant_lines_are_read_in_a_stream() -> None:
    """An acrostic whose lines are far apart is read however it comes; ordinary lines spell none."""
    lane = ViewDecoder().growing()
    found: list[str] = []
    for at in range(0, len(READ["first letters"]), 9):
        found += lane.feed(READ["first letters"][at : at + 9])
    assert any("garden behind the house was planted" in text for text in found)
    plain = ViewDecoder().growing()
    assert [text for at in range(0, len(TEXT), 9) for text in plain.feed(TEXT[at : at + 9])] == []


def blobs() -> dict[str, str]:
    """Return what ordinary answers hold beside words."""
    rng = random.Random(7)
    raw = rng.randbytes(600)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signing = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    ssh = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "EdDSA", "typ": "JWT"}, {"sub": "42", "name": "A. Reader"})
    )
    sign = base64.urlsafe_b64encode(signing.sign(head.encode())).decode().rstrip("=")
    lock = "\n".join(
        f'"pad-{n}": {{"version": "1.{n}.0", "integrity": "sha512-'
        + base64.b64encode(hashlib.sha512(bytes([n])).digest()).decode()
        + '"}},'
        for n in range(20)
    )
    return {
        "key": pem.decode(),
        "ssh key": ssh.decode(),
        "token": f"{head}.{body}.{sign}",
        "lock file": lock,
        "hashes": "\n".join(
            hashlib.sha256(bytes([n])).hexdigest() + f"  file{n}" for n in range(30)
        ),
        "picture": "data:image/png;base64,"
        + base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + raw * 3).decode(),
        "genes": ">sample\n" + "\n".join("".join(rng.choices("ACGT", k=60)) for _ in range(10)),
        "chess": " ".join(
            f"{n}. {w} {b}"
            for n, (w, b) in enumerate(
                [("e4", "e5"), ("Nf3", "Nc6"), ("Bb5", "a6"), ("Ba4", "Nf6"), ("O-O", "Be7")] * 4, 1
            )
        ),
        "dump": "\n".join(rng.randbytes(16).hex(" ") for _ in range(20)),
        "long digest": "\n".join(rng.randbytes(64).hex() for _ in range(8)),
        "decimal table": "\n".join(
            " ".join(f"{rng.randint(10, 75)}" for _ in range(12)) for _ in range(30)
        ),
        "digits of a number": "3." + "".join(rng.choices("0123456789", k=900)),
        "addresses": "\n".join(rng.randbytes(6).hex(":") for _ in range(40)),
        "colours": ", ".join(f"#{rng.randbytes(3).hex()}" for _ in range(60)),
        "identifiers": "\n".join(
            "-".join(rng.randbytes(n).hex() for n in (4, 2, 2, 2, 6)) for _ in range(20)
        ),
        "refrain": "la la la, ooh ooh ah ah, " * 40,
        "form": "Name: _______________\n1. _______________\n2. _______________\n" * 6,
        "answers": "\n".join(f"{n}. {rng.choice('ABCD')}" for n in range(1, 90)),
        "marks": "\n".join(
            f"| {n} | {rng.randint(1, 15)} | {rng.randint(1, 15)} |" for n in range(90)
        ),
    }


@pytest.mark.parametrize("name", sorted(blobs()))
def test_ordinary_blobs_pass(name: str) -> None:
    """Keys, tokens, hashes, pictures, sequences, games, tables and refrains keep in the budget."""
    assert unread("Here it is:\n\n" + blobs()[name] + "\n\nTell me if that fits.") <= BUDGET


# ruff: noqa: RUF001
LANGUAGES = (
    "Hinter dem Haus lag ein Garten, den eine Malerin angelegt hatte, der Farben lieber waren.",
    "Detrás de la casa había un jardín plantado por una pintora que amaba los colores.",
    "За домом был сад, посаженный художницей, которая любила цвета больше, чем порядок.",
    "房子后面有一个花园，是一位热爱色彩胜过秩序的画家种下的。第一个春天，她在卷心菜之间种了郁金香。",
    "家の裏には、秩序よりも色を愛した画家が植えた庭がありました。春にはチューリップを植えました。",
    "집 뒤에는 질서보다 색을 사랑한 화가가 가꾼 정원이 있었다. 첫 봄에 그녀는 튤립을 심었다.",
    "خلف المنزل كانت هناك حديقة زرعتها رسامة أحبت الألوان أكثر من النظام في الربيع الأول.",
    "घर के पीछे एक बगीचा था जिसे एक चित्रकार ने लगाया था, जिसे रंगों से प्यार था।",
    "Πίσω από το σπίτι υπήρχε ένας κήπος που φύτεψε μια ζωγράφος που αγαπούσε τα χρώματα.",
    "Phía sau ngôi nhà có một khu vườn do một họa sĩ yêu màu sắc hơn trật tự trồng nên.",
    "Nyuma ya nyumba kulikuwa na bustani iliyopandwa na mchoraji aliyependa rangi.",
)


@pytest.mark.parametrize("text", LANGUAGES)
def test_languages_are_readable(text: str) -> None:
    """Ordinary sentences in eleven languages and nine scripts are no code."""
    assert unread(text * 6) == 0


def test_the_count_is_a_function_of_the_text() -> None:
    """However a text is cut into deltas that end at the same places, the count is the same."""
    text = TEXT + UNREADABLE["private alphabet"][:300] + TEXT
    assert unread(text, 7) > BUDGET
    assert {unread(text, 7) for _ in range(3)} == {unread(text, 7)}
    assert unreadable(TEXT) == []
