"""`safehold calibrate`: set a bundle's thresholds on your own, mostly benign traffic."""

import sys
from pathlib import Path

import click
import msgspec

from safehold.cli._places import key_file, out_file, out_folder, write_over
from safehold.cli._values import (
    Finite,
    WholeNumber,
)
from safehold.errors import DataError, DependencyError, UsageError
from safehold.improve.evaluation.parts import DataPart

_RATE = Finite(min=0.0, max=1.0, min_open=True, max_open=True)


@click.command("calibrate")
@click.argument("bundle")
@click.option(
    "--benign",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="JSONL with `text` or `messages`: a file or a folder; may be repeated.",
)
@click.option(
    "--ledger",
    "ledger",
    help="A gateway's ledger: path, sqlite:/// or postgresql:// URL. Only read.",
)
@click.option(
    "--part",
    type=click.Choice([part.value for part in DataPart]),
    help="Of each file only the repositories of this part.",
)
@click.option("--limit", type=WholeNumber(1), help="At most so many items of each file.")
@click.option(
    "--from-record",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the thresholds of an earlier calibration instead of traffic.",
)
@click.option("--out", required=True, type=out_folder(), help="The new bundle.")
@click.option("--alpha", type=_RATE, default=0.002, show_default=True, help="Most blocked.")
@click.option("--near-alpha", type=_RATE, default=0.03, show_default=True, help="Of near texts.")
@click.option("--escalate", type=_RATE, default=0.06, show_default=True, help="Share for stage 2.")
@click.option("--reply-alpha", type=_RATE, help="`--alpha` of replies, where it is another.")
@click.option("--reply-near-alpha", type=_RATE, help="`--near-alpha` of replies.")
@click.option("--reply-escalate", type=_RATE, help="`--escalate` of replies.")
@click.option(
    "--contamination",
    type=Finite(min=0.0, max=0.5),
    default=0.0,
    show_default=True,
    help="Share of the traffic that may be restricted after all.",
)
@click.option("--record", type=out_file(), help="Write it there.")
@click.option("--bundle-key", "keys", multiple=True, help="Public key that signs bundles.")
@click.option("--bundle-sha256", help="Digest of the one manifest to trust.")
@click.option("--unsafe-unsigned-bundle", "unsafe", is_flag=True, help="Trust any manifest.")
@click.option(
    "--signing-key",
    type=key_file(),
    default=Path("~/.config/safehold/bundle-key.pem"),
    show_default=True,
    help="Ed25519 private key in PEM; made where it is missing.",
)
@click.option("--unsigned", is_flag=True, help="Do not sign (a gateway then refuses the bundle).")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def calibrate(
    bundle: str,
    benign: tuple[Path, ...],
    ledger: str | None,
    part: str | None,
    limit: int | None,
    from_record: Path | None,
    out: Path,
    alpha: float,
    near_alpha: float,
    escalate: float,
    reply_alpha: float | None,
    reply_near_alpha: float | None,
    reply_escalate: float | None,
    contamination: float,
    record: Path | None,
    keys: tuple[str, ...],
    bundle_sha256: str | None,
    unsafe: bool,
    signing_key: Path,
    unsigned: bool,
    as_json: bool,
) -> None:
    """Set the thresholds of BUNDLE on traffic, and write a new signed bundle with the record.

    Items that are labelled anything but benign are left out; unlabelled ones count as traffic.

    \b
    Examples:
      safehold calibrate homebrewing --benign traffic.jsonl --out bundles/ours
      safehold calibrate homebrewing --ledger safehold-ledger.db --contamination 0.001 --out ours
      safehold calibrate homebrewing --benign week/ --contamination 0.001 --out bundles/ours
      safehold calibrate homebrewing --benign week/ --reply-escalate 0.03 --out bundles/ours
      safehold calibrate bundles/new --from-record calibration.json --out bundles/again
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars
    from safehold.guard.bundle.find import open_bundle
    from safehold.guard.bundle.signing import load_or_make_key
    from safehold.guard.bundle.write import refuse_existing

    # The packages of the extra are wanted only now: `--help` works without them.
    try:
        from safehold.cli._traffic import together, traffic_in_ledger, traffic_of
        from safehold.improve.training.recalibrate import recalibrate
        from safehold.improve.training.traffic import TrafficSettings, calibrated, read_record
    except ModuleNotFoundError as error:
        raise DependencyError("calibrating needs: pip install 'safehold[train]'") from error
    if bool(benign or ledger) is (from_record is not None):
        raise UsageError("expected either --benign or --ledger, or --from-record")
    refuse_existing(out)
    loaded = open_bundle(bundle, keys, bundle_sha256, unsigned=unsafe)
    key = None if unsigned else load_or_make_key(signing_key.expanduser())
    console = Console(file=sys.stderr)
    if from_record is not None:
        try:
            found = read_record(from_record)
        except msgspec.DecodeError as error:
            raise DataError(f"{from_record.name}: not a calibration record: {error}") from error
    else:
        settings = TrafficSettings(
            alpha=alpha,
            near_alpha=near_alpha,
            escalate=escalate,
            contamination=contamination,
            reply_alpha=reply_alpha,
            reply_near_alpha=reply_near_alpha,
            reply_escalate=reply_escalate,
        )
        traffic = traffic_of(benign, loaded.manifest.constitution, part, limit)
        if ledger is not None:
            traffic = together(traffic, traffic_in_ledger(ledger, limit))
        with Bars(console) as bars:
            _, found = calibrated(loaded, traffic, settings, bars)
    folder = _folder(bundle)
    digest = recalibrate(loaded, folder, found, out, key)
    encoded = msgspec.json.format(msgspec.json.encode(found), indent=1)
    if record is not None:
        write_over(record, encoded + b"\n")
    if as_json:
        click.echo(encoded.decode())
        return
    for name, surface in found.surfaces.items():
        general, near = surface.above
        console.print(
            f"{name}: {general} of {surface.n} general and {near} of {surface.near_n} near texts "
            f"at or above the threshold",
            highlight=False,
        )
    console.print(f"{out}: {digest}", highlight=False, soft_wrap=True)


def _folder(bundle: str) -> Path:
    from safehold.guard.bundle.stock import stock_bundle

    return Path(bundle) if Path(bundle).is_dir() else stock_bundle(bundle)[0]
