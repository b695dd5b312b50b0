"""The float32 weights that training kept beside a bundle, for a warm start; never served.

A bundle holds float16 tables and an int8 network, from which a network can't be trained on. The
weights stand in `NAME.training/` beside the bundle `NAME`, with the digest of its manifest, so that
nobody goes on from another bundle's.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from safehold.errors import DataError
from safehold.guard.bundle.interface import HeadRecord
from safehold.guard.bundle.load import Bundle
from safehold.guard.scorers.windowed import WindowHead
from safehold.improve.training.multilingual import MultilingualEncoder, MultilingualShape

STAGE1 = "stage1"
STAGE2 = "stage2"
_FILE = "weights.safetensors"
Weights = Mapping[str, npt.NDArray[np.float32]]


def beside(folder: Path) -> Path:
    """Return where the weights of the bundle in a folder stand."""
    return folder.with_name(f"{folder.name}.training")


def keep_weights(folder: Path, digest: str, weights: Weights) -> None:
    """Write the weights of the bundle in `folder`, whose manifest has that digest."""
    place = beside(folder)
    place.mkdir(parents=True, exist_ok=True)
    draft = place / f".{_FILE}.draft"
    save_file(dict(weights), str(draft), metadata={"bundle": digest})
    draft.replace(place / _FILE)


def kept_weights(folder: Path, digest: str) -> dict[str, npt.NDArray[np.float32]] | None:
    """Return the weights of a bundle; None where none were kept.

    Raises:
        DataError: They are another bundle's, or can't be read.
    """
    path = beside(folder) / _FILE
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="numpy") as file:
            if (file.metadata() or {}).get("bundle") != digest:
                raise DataError(f"{path}: the weights are of another bundle than {digest[:12]}")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: can't be read as weights") from error


def weights_of(model: MultilingualEncoder) -> dict[str, npt.NDArray[np.float32]]:
    """Return the weights of a network by name."""
    return {
        f"{STAGE2}.{name}": np.ascontiguousarray(value.detach().numpy())
        for name, value in model.state_dict().items()
    }


def network(weights: Weights, clauses: int) -> MultilingualEncoder:
    """Return the network that the weights are of, with as many layers as they have.

    Raises:
        DataError: They are of another shape, or there is no network among them.
    """
    own = {
        name.removeprefix(f"{STAGE2}."): torch.from_numpy(value.copy())
        for name, value in weights.items()
        if name.startswith(f"{STAGE2}.")
    }
    layers = len({name.split(".")[1] for name in own if name.startswith("layers.")})
    places = own.get("places.weight")
    if places is None or not layers:
        raise DataError("the kept weights are of a network of another shape")
    model = MultilingualEncoder(MultilingualShape(layers=layers, positions=len(places)), clauses)
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise DataError("the kept weights are of a network of another shape") from error
    return model


def prompt_head(bundle: Bundle, folder: Path) -> WindowHead:
    """Return stage 1's prompt head: the kept float32 weights, else those that are served.

    Raises:
        DataError: The bundle has no stage 1 of windows.
    """
    record = bundle.manifest.stage1
    if record is None or not record.prompt.window:
        raise DataError("a warm start needs a bundle whose stage 1 reads windows")
    kept = kept_weights(folder, bundle.digest)
    name = f"{STAGE1}.prompt"
    table = kept[name] if kept is not None and name in kept else _served(folder, record.prompt)
    return WindowHead(table=table, bias=record.prompt.bias, floor=record.prompt.floor)


def _served(folder: Path, record: HeadRecord) -> npt.NDArray[np.float32]:
    table: npt.NDArray[np.float32] = np.load(folder / record.file).astype(np.float32)
    return table
