"""Exports the trained stage 2 as an int8 ONNX model."""

import copy
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from torch.nn import functional

from safehold.guard.scorers.encoder.multilingual import MARK, Rows, encoded, unpacked
from safehold.guard.scorers.encoder.unigram import Unigram
from safehold.improve.training.multilingual import MultilingualEncoder

_TEXTS: Final = 300
"""Texts from which the sizes of what the layers pass on are taken."""
_MOVED: Final = 0.75
"""Share of an input's size that moves into the weights."""
_LEAST: Final = 1e-5
_SHARED: Final = (("query", "key", "value"), ("project",), ("widen",), ("narrow",))
"""The products of a layer, those of the same input together."""

Vectors = npt.NDArray[np.float32]


class _Evened(nn.Linear):
    """A product whose inputs are divided before and whose weights are multiplied for it."""

    inverse: torch.Tensor

    def __init__(self, like: nn.Linear, by: torch.Tensor) -> None:
        super().__init__(like.in_features, like.out_features)
        self.register_buffer("inverse", 1 / by)
        with torch.no_grad():
            self.weight.copy_(like.weight * by)
            self.bias.copy_(like.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs * self.inverse, self.weight, self.bias)


def word_vectors(unigram: Unigram, words: Rows, texts: Sequence[str]) -> list[Vectors]:
    """Return the word vectors [tokens, hidden] of 300 texts, at whole steps from the first."""
    mark = unigram.encode(MARK)
    some = texts[:: max(1, len(texts) // _TEXTS)][:_TEXTS]
    return [unpacked(words[encoded(unigram, mark, text)]) for text in some]


def to_onnx(model: MultilingualEncoder, texts: Iterable[Vectors]) -> bytes:
    """Return the network as ONNX with int8 weights in its matrix products.

    Weights use 7 of 8 bits (`reduce_range`): the multiply-add of processors without VNNI would
    saturate on more. Inputs are quantised by the largest of their values, which a few places of
    this encoder's layers exceed the others by ten times; so every product's inputs are evened out
    first, by what they are on `texts` (SmoothQuant: Xiao et al., arXiv 2211.10438).
    """
    with tempfile.TemporaryDirectory() as folder:
        full, small = Path(folder) / "full.onnx", Path(folder) / "int8.onnx"
        example = (torch.zeros(1, 8, 384),)
        shape = {0: "batch", 1: "tokens"}
        with warnings.catch_warnings():
            # The TorchScript exporter is deprecated in favour of one that needs onnxscript; it is
            # pinned with the lock file and its result is compared with PyTorch's after export.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                evened(model.eval(), texts),
                example,
                str(full),
                input_names=["words"],
                output_names=["logits"],
                dynamic_axes={"words": shape, "logits": {0: "batch"}},
                opset_version=17,
                dynamo=False,
            )
        quantize_dynamic(
            full,
            small,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


def evened(model: MultilingualEncoder, texts: Iterable[Vectors]) -> MultilingualEncoder:
    """Return a network of the same logits whose products have inputs of about the same size."""
    sizes: dict[nn.Module, torch.Tensor] = {}

    def look(module: nn.Module, given: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        most = given[0].abs().flatten(0, -2).amax(0)
        sizes[module] = torch.maximum(sizes[module], most) if module in sizes else most

    found = copy.deepcopy(model).eval()
    groups = [
        (layer, [getattr(layer, name) for name in names], names)
        for layer in found.layers
        for names in _SHARED
    ]
    hooks = [products[0].register_forward_hook(look) for _, products, _ in groups]
    with torch.no_grad():
        for vectors in texts:
            found(torch.from_numpy(vectors[None]))
    for hook in hooks:
        hook.remove()
    for layer, products, names in groups:
        heaviest = torch.stack([one.weight.detach().abs().amax(0) for one in products]).amax(0)
        by = sizes[products[0]].clamp(min=_LEAST) ** _MOVED
        by = by / heaviest.clamp(min=_LEAST) ** (1 - _MOVED)
        by = by / by.log().mean().exp()
        for name, product in zip(names, products, strict=True):
            setattr(layer, name, _Evened(product, by))
    return found
