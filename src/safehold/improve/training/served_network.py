"""Stage 2's network as PyTorch, from the weights that training kept, else from those served.

The served graph holds int8 matrices: taken back to float32 they are within half a step of what was
trained, which is where a fine-tuning may begin.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from safehold.errors import DataError
from safehold.guard.bundle.load import Bundle
from safehold.guard.scorers.encoder.multilingual import Rows
from safehold.guard.scorers.encoder.unigram import Unigram
from safehold.improve.training.float_weights import STAGE2, kept_weights, network
from safehold.improve.training.multilingual import MultilingualEncoder, MultilingualShape

_PRODUCT = "/MatMul_quant"
_HEAD = "/Gemm_MatMul_quant"
_EVENED = "/Mul"
"""What divides a product's inputs, so that its weights are as much larger."""


def stage2_network(bundle: Bundle, folder: Path) -> MultilingualEncoder:
    """Return the network of the bundle's stage 2, to be trained on.

    Raises:
        DataError: The bundle has no stage 2 of this kind, or its graph is another one.
    """
    record = bundle.manifest.stage2
    if record is None or not record.words:
        raise DataError("fine-tuning needs a bundle whose stage 2 is the multilingual encoder")
    kept = kept_weights(folder, bundle.digest) or {}
    clauses = len(record.clauses)
    if any(name.startswith(f"{STAGE2}.") for name in kept):
        found = {name: value for name, value in kept.items() if name.startswith(f"{STAGE2}.")}
    else:
        found = served_weights((folder / record.model).read_bytes())
    return network(found, clauses)


def served_weights(model: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Return the weights of a served graph, its int8 matrices taken back to float32."""
    graph = onnx.load_from_string(model).graph  # the bundle was loaded from it before
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    # What is the same in several places is stored once, under the first one's name.
    stored |= {
        node.output[0]: stored[node.input[0]]
        for node in graph.node
        if node.op_type == "Identity" and node.input[0] in stored
    }
    known = set(MultilingualEncoder(MultilingualShape(layers=64), 1).state_dict())
    found = {
        f"{STAGE2}.{name}": value.astype(np.float32)
        for name, value in stored.items()
        if name in known
    }
    divided = {
        node.name.removesuffix(_EVENED): stored[node.input[1]]
        for node in graph.node
        if node.op_type == "Mul" and node.input[1] in stored
    }
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        place = node.name.removesuffix(_HEAD).removesuffix(_PRODUCT)
        base = node.input[1].removesuffix("_quantized")
        whole = stored[f"{base}_quantized"].astype(np.float32)
        matrix = (whole - stored[node.input[3]].astype(np.float32)) * stored[f"{base}_scale"]
        own = matrix.T * divided.get(place, np.float32(1))
        name = place.strip("/").replace("/", ".")
        found[f"{STAGE2}.{name}.weight"] = np.ascontiguousarray(own, dtype=np.float32)
    return found


def stage2_reader(bundle: Bundle, folder: Path) -> tuple[Unigram, Rows]:
    """Return how the bundle's stage 2 reads words: its pieces and their rows.

    Raises:
        DataError: The bundle has no stage 2 of this kind.
    """
    record = bundle.manifest.stage2
    if record is None or not record.words:
        raise DataError("fine-tuning needs a bundle whose stage 2 is the multilingual encoder")
    text = (folder / record.vocabulary).read_bytes().decode("utf-8")
    pieces, scores = zip(
        *(line.split("\t") for line in text.removesuffix("\n").split("\n")), strict=True
    )
    rows: Rows = np.load(folder / record.words)
    return Unigram(pieces, [float(score) for score in scores]), rows


def same_logits(model: MultilingualEncoder, vectors: npt.NDArray[np.float32]) -> list[float]:
    """Return the prompt and reply logits of one text's word vectors [tokens, hidden]."""
    with torch.no_grad():
        logits = model(torch.from_numpy(vectors[None]))
    return [float(one) for one in logits[0, :2]]
