"""Exports the trained stage 2 as an int8 ONNX model."""

import tempfile
import warnings
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from safehold.improve.training.multilingual import MultilingualEncoder


def to_onnx(model: MultilingualEncoder) -> bytes:
    """Return the network as ONNX with int8 weights in its matrix products.

    Weights use 7 of 8 bits (`reduce_range`): the multiply-add of processors without VNNI would
    saturate on more.
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
                model.eval(),
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
