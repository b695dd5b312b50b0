"""The steps of `safehold up`: each is skipped where its result is there and still fits."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._synth import SynthRequest, linted
from safehold.errors import BundleError
from safehold.guard.bundle.interface import Operating
from safehold.improve.synthesis.coverage import SynthesisCoverage
from safehold.progress import Progress
from safehold.record_file import alone_in

if TYPE_CHECKING:
    from safehold.constitution.lint import LintFinding

REPORT = "report.json"


class UpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked for; the dataset's folder follows from `out`."""

    synth: SynthRequest
    out: Path | None
    benign: tuple[Path, ...]
    alpha: float | None
    stage1_only: bool
    signing_key: Path


class UpReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: the bundle to serve, its figures, the data behind it, the time."""

    constitution: str
    constitution_digest: str
    bundle: str
    digest: str
    examples: int
    splits: dict[str, int]
    coverage: tuple[SynthesisCoverage, ...]
    figures: dict[str, Operating]
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    """Of each step; a step that was done before is not in it."""


def run_up(request: UpRequest, progress: Progress) -> UpReport:
    """Run what is still to be done, and write the report.

    Raises:
        BusyError: Another process does it in the same folder.
        SafeholdError: A step failed; the same command goes on from there.
    """
    from safehold.constitution import load

    found = linted(request.synth.source)
    out = request.out or Path("guards") / load(request.synth.source).name
    with alone_in(out, f"{out} is being filled"):
        return _run_up(request, out, found, progress)


def _run_up(
    request: UpRequest, out: Path, found: "tuple[LintFinding, ...]", progress: Progress
) -> UpReport:
    from safehold.cli._synth import make_dataset
    from safehold.cli._traffic import traffic_of
    from safehold.cli._train import (
        constitution_of,
        provenance_of,
        refuse_empty_splits,
        settings_of,
        train_kept,
    )
    from safehold.constitution import load, stock
    from safehold.guard.bundle.load import SignedBy, load_bundle
    from safehold.guard.bundle.signing import load_or_make_key, load_public_key
    from safehold.improve.synthesis import dataset
    from safehold.improve.training.checkpoints import discard
    from safehold.improve.training.recalibrate import recalibrate
    from safehold.improve.training.traffic import (
        OWN_ESCALATE,
        TrafficSettings,
        calibrated,
        refuse_too_little,
    )

    source = request.synth.source
    constitution = load(source)
    data, bundle = out / "data", out / "bundle"
    seconds: dict[str, float] = {}
    wanted = TrafficSettings() if source in stock() else TrafficSettings(escalate=OWN_ESCALATE)
    traffic = traffic_of(request.benign, constitution.name) if request.benign else None
    if traffic is not None:
        refuse_too_little(traffic, wanted)
    with _timed(seconds, "synth"), ExitStack() as running:
        asked = msgspec.structs.replace(
            request.synth, out=data, force=(data / "manifest.json").exists()
        )
        made = make_dataset(asked, running, progress)
    manifest = made.manifest
    key = load_or_make_key(request.signing_key)
    settings = settings_of(stage1_only=request.stage1_only, alpha=request.alpha)
    options = ["--stage1-only"] if request.stage1_only else []
    provenance = provenance_of(
        "bundle", constitution_of(data, manifest, None), manifest, settings, options
    )
    refuse_empty_splits(manifest)
    if not _fits(bundle, provenance.data_digest, provenance.command, settings.alpha):
        _clear(bundle)
        with _timed(seconds, "train"):
            examples = list(dataset.read(data))
            train_kept(examples, provenance, settings, bundle, key, progress, anew=True)
    discard(bundle)
    trust = SignedBy(keys=(load_public_key(request.signing_key.with_suffix(".pub")),))
    served = load_bundle(bundle, trust)
    figures = served.manifest.calibration
    if traffic is not None:
        with _timed(seconds, "calibrate"):
            _, record = calibrated(served, traffic, wanted, progress)
            target = out / "calibrated"
            _clear(target)
            recalibrate(served, bundle, record, target, key)
            bundle = target
            served = load_bundle(bundle, trust)
    report = UpReport(
        constitution=constitution.name,
        constitution_digest=constitution.digest,
        bundle=str(bundle),
        digest=served.digest,
        examples=manifest.examples,
        splits=manifest.splits,
        coverage=made.coverage,
        figures=figures,
        warnings=(*_said(source, found), *made.warnings),
        seconds={name: round(spent, 1) for name, spent in seconds.items()},
    )
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (out / REPORT).write_bytes(encoded + b"\n")
    return report


def show_report(report: UpReport, *, as_json: bool) -> None:
    """Print the report: what the data is like, what the guard does, how to serve it."""
    from rich.console import Console

    from safehold.cli._synth import show_coverage
    from safehold.stats import Rate

    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    console = Console(highlight=False)
    for one in report.coverage:
        show_coverage(one)
    console.print(
        f"\n{report.examples} examples: "
        + ", ".join(f"{name} {count}" for name, count in report.splits.items()),
        soft_wrap=True,
    )
    for surface, figures in report.figures.items():
        blocked = Rate(*figures.test_true_positives).at_least()
        wrong = Rate(*figures.test_false_positives).at_most()
        console.print(
            f"{surface}: restricted blocked {blocked}; permitted blocked {wrong}", soft_wrap=True
        )
    console.print(
        "These are families of the same generator; measure on text of your own with "
        f"`safehold eval {report.bundle} --data FOLDER`.",
        soft_wrap=True,
    )
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    console.print(f"time: {spent or 'all was done before'}")
    for line in report.warnings:
        click.echo(f"safehold: warning: {line}", err=True)
    console.print(
        f"\nserve it: safehold serve --bundle {report.bundle} --upstream URL", soft_wrap=True
    )


def _said(source: str, found: "tuple[LintFinding, ...]") -> list[str]:
    return [f"{source}:{one.line}:{one.column}: {one.message}" for one in found]


def _fits(bundle: Path, data_digest: str, command: str, alpha: tuple[float, float]) -> bool:
    """Whether a bundle was trained from this very dataset, in this way."""
    from safehold.guard.bundle.interface import MANIFEST, Manifest

    try:
        manifest = msgspec.json.decode((bundle / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError):
        return False
    lineage = manifest.lineage
    held = tuple(figures.alpha for figures in manifest.calibration.values())
    return lineage.data_digest == data_digest and lineage.command == command and held == alpha


def _clear(folder: Path) -> None:
    """Remove what an earlier run of ours left, whole or half, in its own folder."""
    from safehold.guard.bundle.interface import MANIFEST

    for path in (folder, *folder.parent.glob(f".{folder.name}.draft-*")):
        if path.exists():
            if not (path / MANIFEST).is_file() and path == folder:
                raise BundleError(f"{path}: expected an earlier bundle, got something else")
            shutil.rmtree(path)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start
