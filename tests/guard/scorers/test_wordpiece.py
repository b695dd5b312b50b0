"""WordPiece equals the reference implementation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece as ReferenceModel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from safehold.guard.scorers.encoder.wordpiece import WordPiece

VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789.,!?-'é麦",
    *(f"##{char}" for char in "abcdefghijklmnopqrstuvwxyz0123456789"),
    "the", "malt", "mash", "##ing", "##ed", "hop", "##s", "brew",
]  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    """Hugging Face's tokenizer over the same vocabulary."""
    ids = {piece: index for index, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(ReferenceModel(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


# The reference's Unicode tables are of another version than Python's, so rare scripts are left out.
LETTERS = st.characters(max_codepoint=0x52F, exclude_categories=("Cs", "Cn")) | st.sampled_from(
    "麦芽と水\uff0c。“”—…€\u200b\u2028\ufffd🍺"
)


@given(st.text(LETTERS, max_size=80) | st.lists(st.sampled_from(VOCABULARY[4:])).map("".join))
def test_ids_equal_the_reference(reference: Tokenizer, text: str) -> None:
    """Any text gives the reference's ids."""
    ours = WordPiece(VOCABULARY).encode(text)
    assert ours == reference.encode(text, add_special_tokens=False).ids


def test_pair_keeps_the_ends() -> None:
    """Too long a prompt or reply loses its beginning, never its end."""
    pieces = WordPiece(VOCABULARY)
    ids, kinds = pieces.pair("a b c d", "the malt hop", (2, 2))
    letters = [VOCABULARY[i] for i in ids]
    assert letters == ["[CLS]", "c", "d", "[SEP]", "malt", "hop", "[SEP]"]
    assert kinds == [0, 0, 0, 0, 1, 1, 1]


def test_a_vocabulary_without_specials_is_refused() -> None:
    """A vocabulary that lacks a special token is an error."""
    with pytest.raises(ValueError, match="lacks"):
        WordPiece(["a"])


def test_the_word_cache_is_bounded() -> None:
    """Many different words do not grow the cache without end."""
    pieces = WordPiece(VOCABULARY)
    for number in range(30_000):
        pieces.encode(f"a{number}")
    assert len(pieces._cache) <= 20_000
