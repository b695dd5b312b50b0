"""Training stage 1."""

import pytest

from safehold.guard.scorers.tokens import tokens
from safehold.guard.scorers.windowed import WindowHead, WindowScorer
from safehold.improve.training.interface import LabelledText
from safehold.improve.training.window_head import WindowHeadSettings, train_window_head
from safehold.progress import Progress

TEXTS = [
    *(LabelledText(f"mash the malt and pitch yeast {n}", restricted=True) for n in range(20)),
    *(LabelledText(f"knead the dough and bake bread {n}", restricted=False) for n in range(20)),
]
SETTINGS = WindowHeadSettings(floor=1, bits=12)


def head(strength: float = 30.0) -> WindowHead:
    """A head that was fitted to the texts."""
    settings = WindowHeadSettings(floor=1, bits=12, strength=strength)
    return train_window_head(TEXTS, settings, Progress())


def test_the_fit_tells_new_texts_apart_and_repeats() -> None:
    """Words that were met decide in a sentence that was not, and training again gives the same."""
    found = head()
    scorer = WindowScorer("s", found, found, "clause")
    assert scorer.open_prompt().feed(tokens("pitch the malt")) > 0
    assert scorer.open_prompt().feed(tokens("bake the dough")) < 0
    assert (head().table == found.table).all()


def test_the_served_lane_agrees_with_the_trained_matrix() -> None:
    """At the optimum the penalty balances the slope: the lanes' logits solve the fit's equation."""
    found = head(strength=1.0)
    scorer = WindowScorer("s", found, found, "clause")
    logits = [scorer.open_prompt().feed(tokens(text.text)) for text in TEXTS]
    # The bias has no penalty, so at the optimum the balanced residuals sum to zero.
    residual = sum(
        1 / (1 + 2.718281828459045**-logit) - text.restricted
        for logit, text in zip(logits, TEXTS, strict=True)
    )
    assert residual == pytest.approx(0.0, abs=0.05)
