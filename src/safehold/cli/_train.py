"""What `train` and `up` share: a dataset's constitution, and what a bundle says of its making."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import DataError

if TYPE_CHECKING:
    from safehold.constitution import Constitution
    from safehold.improve.synthesis.dataset import DatasetManifest
    from safehold.improve.synthesis.interface import Example
    from safehold.improve.training.float_weights import Weights
    from safehold.improve.training.train import Provenance, Trained, TrainingSettings
    from safehold.progress import Progress


def settings_of(
    *, stage1_only: bool, seed: int | None = None, alpha: float | None = None
) -> "TrainingSettings":
    """Return how to train, with no more threads than this process may use cores.

    Threads that wait for a core spin: two on one core take four times the CPU time of one.
    """
    from safehold.improve.training.train import TrainingSettings

    usual = TrainingSettings(stage2=not stage1_only)
    return msgspec.structs.replace(
        usual,
        threads=min(usual.threads, len(os.sched_getaffinity(0))),
        seed=usual.seed if seed is None else seed,
        alpha=usual.alpha if alpha is None else (alpha, alpha),
    )


def provenance_of(
    name: str,
    constitution: "Constitution",
    manifest: "DatasetManifest",
    settings: "TrainingSettings",
    options: Sequence[str],
) -> "Provenance":
    """Return what the bundle's lineage names; `options` are those of the command line."""
    from safehold.constitution import ClauseRole
    from safehold.improve.training.train import Provenance

    return Provenance(
        name=name,
        constitution=constitution.name,
        constitution_digest=constitution.digest,
        data_digest=manifest.sha256,
        generators=manifest.plan.generators,
        clauses=tuple(clause.id for clause in constitution.restricted),
        general=tuple(c.id for c in constitution.permitted if c.role is ClauseRole.GENERAL),
        command=" ".join([f"safehold train --seed {settings.seed}", *options]),
    )


def constitution_of(data: Path, manifest: "DatasetManifest", source: str | None) -> "Constitution":
    """Return the constitution that a dataset was made from: the copy in it, or the stock one.

    Raises:
        SafeholdError: It is another one by now, or it does not admit who made the data.
    """
    from safehold.constitution import admit_generator, load
    from safehold.improve.synthesis import dataset

    copy = data / dataset.CONSTITUTION
    constitution = load(source or (str(copy) if copy.is_file() else manifest.plan.domain))
    if source is None and constitution.digest != manifest.plan.constitution:
        raise DataError(
            f"{data} was made from another version of constitution {constitution.name}: "
            "make it again with `safehold synth`, or name the file with --constitution"
        )
    owned = any(name.startswith("openai:") for name in manifest.plan.generators)
    admit_generator(constitution, operator_owned=owned)
    return constitution


def refuse_empty_splits(manifest: "DatasetManifest") -> None:
    """Say before anything is computed that a split can't be trained or measured on.

    Raises:
        DataError: A split has no example of a side.
    """
    from safehold.improve.synthesis.interface import Side, Split

    for split in Split:
        for side in Side:
            if not manifest.splits.get(f"{split}/{side}"):
                raise DataError(
                    f"the {split} split has no {side} example, so training would fail at its end: "
                    "make more with `safehold synth`, by more --rounds, seeds or --fill"
                )


def started_from(folder: Path) -> tuple[str, "Weights"]:
    """Return the digest of a bundle that was trained here, and its float weights.

    Raises:
        DataError: None were kept, or they are another bundle's.
    """
    import hashlib

    from safehold.guard.bundle.interface import MANIFEST
    from safehold.improve.training.float_weights import beside, kept_weights

    try:
        digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"{folder} is no bundle: {MANIFEST} is missing") from error
    weights = kept_weights(folder, digest)
    if weights is None:
        raise DataError(
            f"{folder}: training can go on only where it began: expected {beside(folder).name}"
        )
    return digest, weights


def train_kept(
    examples: "Sequence[Example]",
    provenance: "Provenance",
    settings: "TrainingSettings",
    out: Path,
    key: Ed25519PrivateKey | None,
    progress: "Progress",
    start: "Weights | None" = None,
    *,
    anew: bool = False,
) -> "Trained":
    """Train as `train` does, going on from what an earlier run of the same kept.

    What a run of something else kept is refused, or with `anew` removed.

    Raises:
        SafeholdError: Training ended early; the same call goes on from there.
    """
    from safehold.improve.training.checkpoints import kept_beside
    from safehold.improve.training.train import record_of, train

    record = record_of(examples, provenance, settings, start)
    with kept_beside(out, record, anew=anew) as kept:
        if names := kept.names():
            click.echo(f"safehold: going on with what was kept: {', '.join(names)}", err=True)
        return train(examples, provenance, settings, out, key, progress, start, kept)
