"""The measurement of a model that is taught to refuse: it changes nothing but what it trains."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3]))
from bench.refusal_lora import Told, adapt, table

from safehold.improve.synthesis.answers import declines


class Attention(torch.nn.Module):
    """Three layers by the names that models give them."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = torch.nn.Linear(6, 4)
        self.k_proj = torch.nn.Linear(6, 4)
        self.v_proj = torch.nn.Linear(6, 4)


def test_an_adapted_model_begins_as_it_was_and_trains_thin_matrices_alone() -> None:
    """Before a step the results are the model's own; after one, its own weights are."""
    model, states = Attention(), torch.ones(2, 6)
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    before = model.q_proj(states)
    trained = adapt(model)
    assert torch.equal(model.q_proj(states), before)
    assert len(trained) == 4
    optimizer = torch.optim.SGD(trained, lr=1.0)
    model.q_proj(states).sum().backward()
    optimizer.step()
    assert not torch.equal(model.q_proj(states), before)
    now = {name.replace("inner.", ""): weight for name, weight in model.state_dict().items()}
    assert all(torch.equal(now[name], weight) for name, weight in own.items())


def test_a_row_says_n_and_its_bound() -> None:
    """What should be stopped has a lower bound, what should not an upper one."""
    said = table(
        [Told("restricted", 60, 3, 50, 55, 59), Told("near", 60, 0, 1, 0, 1)], ""
    ).markdown()
    assert "lower bound" in said.splitlines()[-2]
    assert "upper bound" in said.splitlines()[-1]
    assert said.count("n=60") == 8


def test_an_answer_that_declines_is_told_from_one_that_helps() -> None:
    """Only how a text begins decides."""
    assert declines("I'm sorry, but I cannot assist with that request.")
    assert declines("Es tut mir leid, dabei kann ich nicht helfen.")
    assert not declines("Heat the water first. I'm sorry that the list is long.")
