"""A model that is pinned, runs no foreign code, and says of every token what it thinks."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from safehold.errors import BundleError, ConfigError
from safehold.guard.served.interface import Said
from safehold.guard.served.model import HfModel, Sampling, model_digest
from safehold.testing.models import letter_probe

ASKED = [Said("user", "Say something.")]


def test_one_changed_byte_is_another_model(tiny: Path, tmp_path: Path) -> None:
    """The digest covers weights, configuration and tokenizer."""
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        copy = shutil.copytree(tiny, tmp_path / name)
        assert model_digest(copy) == model_digest(tiny)
        content = bytearray((copy / name).read_bytes())
        content[-2] ^= 1
        (copy / name).write_bytes(bytes(content))
        assert model_digest(copy) != model_digest(tiny)


def test_a_pickled_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Weights that could run code are no model, even where the library could load them."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(tiny / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ConfigError, match="safetensors"):
        HfModel(folder)


@pytest.mark.parametrize("text", ["plain", "zwölf Boxkämpfer 🍺 麦芽", " spaces \n\n", "x"])
def test_the_pieces_of_a_reading_are_the_text(model: HfModel, text: str) -> None:
    """Every character of a reply belongs to a token, every token has its row."""
    reading = model.read(ASKED, text, [0, 1, 2])
    assert "".join(reading.pieces) == text
    assert reading.activations.shape == (len(reading.pieces), 3 * model.width)


def test_a_reply_beyond_the_context_keeps_all_its_text(model: HfModel) -> None:
    """A text longer than the model can read is still there, its end with the last row."""
    reading = model.read(ASKED, "word " * 500, [1])
    assert "".join(reading.pieces) == "word " * 500
    assert len(reading.activations) == len(reading.pieces) <= model.context


def test_what_is_heard_while_writing_is_what_reading_hears(model: HfModel) -> None:
    """The logits that come with written text are those of reading the same text afterwards."""
    probe = letter_probe(model, layer=2)
    compared = 0
    for seed in range(30):
        spoken = list(model.write(ASKED, Sampling(most=12, temperature=1.0, seed=seed), probe))
        heard = [logit for one in spoken for logit in one.heard]
        assert sum(one.tokens for one in spoken) == len(heard)
        # Random bytes are seldom text for long; what comes before the first broken one is.
        text = "".join(one.text for one in spoken).split("\ufffd")[0]
        if text:
            read = probe.logits(model.read(ASKED, text, probe.layers).activations)
            assert np.allclose(heard[: len(read)], read, atol=1e-3)
            compared += len(read)
    assert compared > 20


def test_equal_seeds_write_equal_texts(model: HfModel) -> None:
    """Sampling repeats by its seed, and differs by it."""
    texts = [
        "".join(one.text for one in model.write(ASKED, Sampling(20, 1.0, 0.9, seed), None))
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_hidden_state_that_is_not_there_is_an_error(model: HfModel) -> None:
    """Layers beyond the model's are refused, never silently fewer."""
    for layers in ([], [3], [-1]):
        with pytest.raises(BundleError, match="hidden states"):
            model.read(ASKED, "text", layers)


@pytest.mark.parametrize("sampling", [Sampling(most=16), Sampling(16, 1.0, 0.9, 5)])
def test_own_reply_is_retraced_but_for_how_its_text_is_cut(
    model: HfModel, sampling: Sampling
) -> None:
    """A reply that the sampler gave agrees; the same text under another seed does not."""
    text = "".join(one.text for one in model.write(ASKED, sampling, None))
    cut = model._cut(text)[1]
    found = model.retrace(ASKED, text, sampling)
    assert found.tokens == len(cut)
    assert len(found.choices) == found.tokens - found.agreed
    other = model.retrace(ASKED, "zwölf Boxkämpfer jagen Viktor über den Deich", sampling)
    assert other.agreed < other.tokens
    assert all(choice >= 1 for choice in other.choices)
