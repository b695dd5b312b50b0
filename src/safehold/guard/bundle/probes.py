"""A bundle's probe: loaded only beside the model that it was trained on, if it still sees."""

import io
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from safehold.errors import BundleError
from safehold.guard.bundle.interface import ProbeCanary, ProbeRecord
from safehold.guard.scorers.probe import LinearProbe, ProbeHead
from safehold.guard.served.interface import Said, ServedModel
from safehold.guard.session.cascade import Probed


def probe_of(record: ProbeRecord, content: bytes) -> LinearProbe:
    """Return the probe of a record and its weight file.

    Raises:
        BundleError: The file is no finite float32 vector.
    """
    try:
        weights = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BundleError(f"{record.file}: not a NumPy array") from error
    if weights.dtype != np.float32 or weights.ndim != 1 or not np.isfinite(weights).all():
        raise BundleError(f"{record.file}: expected finite float32 weights in one dimension")
    if not record.layers or len(weights) % len(record.layers):
        raise BundleError(f"{record.file}: {len(weights)} weights for {len(record.layers)} layers")
    head = ProbeHead(weights=weights, shift=record.shift, bias=record.bias, floor=record.floor)
    return LinearProbe(record.name, head, record.layers, record.clause)


def probed(record: ProbeRecord, files: Mapping[str, bytes], served: ServedModel | None) -> Probed:
    """Return the probe in its place after its canaries sang.

    Raises:
        BundleError: No model is given, it computes in another number format, or the probe gives a
            canary another score than the recorded one.
    """
    if served is None:
        raise BundleError("the bundle has a probe: it serves only beside the model that it reads")
    if served.dtype != record.dtype:
        raise BundleError(f"the probe reads {record.dtype} activations, not {served.dtype}")
    scorer = probe_of(record, _file(files, record.file))
    for canary in canaries_of(_file(files, record.canaries), record.canaries):
        found = highest(scorer, served, canary.prompt, canary.reply)
        if not abs(found - canary.logit) <= record.tolerance:
            raise BundleError(
                f"probe canary: expected {canary.logit:.3f} within {record.tolerance}, "
                f"came {found:.3f}; the served model is not what the probe was trained on"
            )
    return Probed(scorer=scorer, escalate=record.escalate, weight=record.weight)


def highest(scorer: LinearProbe, served: ServedModel, prompt: str, reply: str) -> float:
    """Return the highest smoothed logit of a reply."""
    reading = served.read([Said("user", prompt)], reply, scorer.layers)
    return scorer.open_reply().feed(scorer.logits(reading.activations))


def canaries_of(content: bytes, name: str) -> Sequence[ProbeCanary]:
    """Return the canaries of a file.

    Raises:
        BundleError: A line is none, or there are none.
    """
    try:
        found = [msgspec.json.decode(line, type=ProbeCanary) for line in content.splitlines()]
    except msgspec.DecodeError as error:
        raise BundleError(f"{name}: {error}") from error
    if not found:
        raise BundleError(f"{name}: an empty set of canaries proves nothing")
    return found


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    try:
        return files[name]
    except KeyError as error:
        raise BundleError(f"{name}: used by the manifest but not listed in it") from error
