"""The passes of stage 2's training: what is read again, and how many texts make a step."""

import numpy as np
import pytest
import torch

from safehold.guard.scorers.encoder.unigram import Unigram
from safehold.improve.training.interface import LabelledPair
from safehold.improve.training.multilingual import MultilingualEncoder, MultilingualShape
from safehold.improve.training.stage2 import MultilingualHeadSettings, train_multilingual
from safehold.progress import Progress

PIECES = ("<s>", "<pad>", "</s>", "<unk>", "\u2581", "a", "b", "c", ":", "q", "u", "e", "r", "y")
UNIGRAM = Unigram(PIECES, [0.0, 0.0, 0.0, 0.0, *(-1.0 for _ in PIECES[4:])])
WORDS = np.random.default_rng(1).integers(0, 255, size=(len(PIECES), 216), dtype=np.uint8)
WORDS[:, :] = np.where(np.arange(216) % 18 < 2, 0x28, WORDS)  # float16 scales of a small size


class Watched(Progress):
    """Keeps what was begun, and how many steps it had."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []

    def start(self, name: str, total: int) -> None:
        """Keep it."""
        self.begun.append((name, total))

    def advance(self, count: int = 1) -> None:
        """Take no note."""


def trained(settings: MultilingualHeadSettings) -> tuple[MultilingualEncoder, Watched]:
    """Train a network of one layer on forty texts, in as many passes as settings say."""
    pairs = [LabelledPair("a b" if n % 2 else "c c", "", n % 2 - 1) for n in range(40)]
    torch.manual_seed(5)
    model, watched = MultilingualEncoder(MultilingualShape(layers=1), 1), Watched()
    passes = [pairs] * settings.epochs
    train_multilingual(model, UNIGRAM, WORDS, passes, settings, seed=3, progress=watched)
    return model, watched


def test_a_step_has_a_bounded_number_of_texts() -> None:
    """Short texts do not crowd into one step, where each would count little."""
    settings = MultilingualHeadSettings(trained=1, epochs=1, batch_rows=8)
    assert trained(settings)[1].begun == [("stage 2, pass 1 of 1", 5)]


def test_a_later_pass_reads_a_share() -> None:
    """What is read again is drawn after every text was scored; a share of one reads all."""
    settings = MultilingualHeadSettings(trained=1, epochs=2, batch_rows=8, later=0.6)
    begun = trained(settings)[1].begun
    assert [total for _, total in begun] == [5, 40, 3]
    whole = MultilingualHeadSettings(trained=1, epochs=2, batch_rows=8, later=1.0)
    assert [total for _, total in trained(whole)[1].begun] == [5, 5]


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_same_seed_gives_the_same_weights(epochs: int) -> None:
    """Drawing by loss depends on the seed alone."""
    settings = MultilingualHeadSettings(trained=1, epochs=epochs, batch_rows=8)
    first, second = trained(settings)[0], trained(settings)[0]
    for name, weight in first.state_dict().items():
        assert bool((weight == second.state_dict()[name]).all())


@pytest.mark.parametrize("half", [False, True])
def test_the_network_computes_in_the_format_that_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, *, half: bool
) -> None:
    """In bfloat16 or float32 throughout; without a word the processor decides."""
    formats: set[torch.dtype] = set()
    linear = torch.nn.Linear.forward

    def watched(layer: torch.nn.Linear, states: torch.Tensor) -> torch.Tensor:
        result = linear(layer, states)
        formats.add(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    settings = MultilingualHeadSettings(trained=1, epochs=2, batch_rows=8, half=half)
    trained(settings)
    assert formats == {torch.bfloat16 if half else torch.float32}
    assert MultilingualHeadSettings().half is ("AVX512" in torch.backends.cpu.get_cpu_capability())
