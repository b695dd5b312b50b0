"""One layer of a BERT encoder in PyTorch (Devlin et al., NAACL 2019)."""

import msgspec
import torch
from torch import nn
from torch.nn import functional


class EncoderShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The size of a layer."""

    hidden: int = 384
    heads: int = 12
    inner: int = 1536


class Layer(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, shape: EncoderShape) -> None:
        """Make the layer's weights."""
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.hidden, shape.hidden)
        self.key = nn.Linear(shape.hidden, shape.hidden)
        self.value = nn.Linear(shape.hidden, shape.hidden)
        self.project = nn.Linear(shape.hidden, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.widen = nn.Linear(shape.hidden, shape.inner)
        self.narrow = nn.Linear(shape.inner, shape.hidden)
        self.output_norm = nn.LayerNorm(shape.hidden, eps=1e-12)

    def forward(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return the next states [batch, tokens, hidden]; `bias` masks padding."""
        batch, width, hidden = states.shape

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.view(batch, width, self.heads, hidden // self.heads).transpose(1, 2)

        query, key, value = (
            split(project(states)) for project in (self.query, self.key, self.value)
        )
        scale = (hidden // self.heads) ** -0.5
        attention = (query @ key.transpose(2, 3) * scale + bias).softmax(dim=-1) @ value
        joined = attention.transpose(1, 2).reshape(batch, width, hidden)
        states = self.attention_norm(states + self.project(joined))
        inner = functional.gelu(self.widen(states))
        output: torch.Tensor = self.output_norm(states + self.narrow(inner))
        return output
