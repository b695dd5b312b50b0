"""The served int8 network says what the trained one says, also where a few values are large."""

import numpy as np
import pytest
import torch

from safehold.guard.scorers.encoder.onnx import onnx_session
from safehold.improve.training import export
from safehold.improve.training.export import Vectors, evened, to_onnx
from safehold.improve.training.multilingual import MultilingualEncoder, MultilingualShape
from safehold.improve.training.served_network import served_weights

TEXTS: list[Vectors] = [
    np.random.default_rng(seed).normal(size=(size, 384)).astype(np.float32)
    for seed, size in enumerate((4, 9, 17, 30))
]


def uneven() -> MultilingualEncoder:
    """Return a network of which a few places are forty times the others, as pre-trained ones are.

    What reads those places is as much smaller.
    """
    torch.manual_seed(7)
    model = MultilingualEncoder(MultilingualShape(layers=2, positions=64), 2).eval()
    with torch.no_grad():
        model.head.weight.normal_()
        for layer in model.layers:
            layer.widen.weight[:3] *= 40
            layer.narrow.weight[:, :3] /= 40
    return model


def error(model: MultilingualEncoder) -> float:
    """Return how far the served logits are from the network's, as a root mean square."""
    session = onnx_session(to_onnx(model, TEXTS))
    found = [
        session.run(["logits"], {"words": one[None]})[0]
        - model(torch.from_numpy(one[None])).numpy()
        for one in TEXTS
    ]
    return float(np.sqrt(np.mean(np.square(found))))


def test_an_evened_network_says_the_same() -> None:
    """Dividing inputs and multiplying weights changes no logit; the network itself stays as is."""
    model = uneven()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evened(model, TEXTS)
    with torch.no_grad():
        for one in TEXTS:
            words = torch.from_numpy(one[None])
            assert torch.allclose(model(words), found(words), atol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_large_values_in_a_few_places_cost_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The int8 error is by a third smaller than without evening out."""
    with torch.no_grad():
        own = error(uneven())
        monkeypatch.setattr(export, "evened", lambda model, _: model)
        assert own < 0.67 * error(uneven())


def test_served_weights_are_taken_back_to_what_was_trained() -> None:
    """All of them, also of products that share what their inputs are divided by."""
    model = uneven()
    found = served_weights(to_onnx(model, TEXTS))
    trained = model.state_dict()
    assert {name.removeprefix("stage2.") for name in found} == set(trained)
    for name, value in found.items():
        own = trained[name.removeprefix("stage2.")].numpy()
        assert np.abs(value - own).max() <= 0.1 * np.abs(own).max() + 1e-6, name
