"""A network that is made from kept weights is the one that they are of."""

import pytest
import torch

from safehold.errors import DataError
from safehold.improve.training.float_weights import network, weights_of
from safehold.improve.training.multilingual import MultilingualEncoder, MultilingualShape


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_it_has_as_many_layers_as_the_weights(layers: int) -> None:
    """A bundle of another depth goes on from what it is; its logits are the same."""
    torch.manual_seed(layers)
    model = MultilingualEncoder(MultilingualShape(layers=layers, positions=32), 2).eval()
    again = network(weights_of(model), 2).eval()
    assert len(again.layers) == layers
    words = torch.randn(1, 5, 384)
    assert torch.equal(model(words), again(words))


def test_weights_of_something_else_are_refused() -> None:
    """None at all, no layers, no places, or another number of clauses."""
    weights = weights_of(MultilingualEncoder(MultilingualShape(layers=1, positions=32), 2))
    flat = {name: value for name, value in weights.items() if ".layers." not in name}
    lost = {name: value for name, value in weights.items() if not name.endswith("places.weight")}
    for found, clauses in (({}, 2), (flat, 2), (lost, 2), (weights, 3)):
        with pytest.raises(DataError, match="another shape"):
            network(found, clauses)


@pytest.mark.parametrize(("trained", "moved"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_the_last_layers_are_trained(trained: int, moved: int) -> None:
    """So many from the end, all of them where there are fewer; the head always is."""
    model = MultilingualEncoder(MultilingualShape(layers=3, positions=32), 2)
    own = list(map(id, model.freeze(trained)))
    free = [any(one.requires_grad for one in layer.parameters()) for layer in model.layers]
    assert free == [False] * (3 - moved) + [True] * moved
    assert own == [
        id(one) for layer in list(model.layers)[3 - moved :] for one in layer.parameters()
    ]
    assert all(one.requires_grad for one in model.head.parameters())
