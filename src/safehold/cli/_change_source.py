"""`safehold change rebuild`, `vouch`, `vouched` and `sbom`: where a product comes from."""

import json
from pathlib import Path
from typing import Any

import click

from safehold import __version__
from safehold.cli._places import out_file, out_folder
from safehold.cli._reads import (
    NamedPlace,
    any_file,
    in_folder,
    json_file,
    read_bytes,
    read_text,
    text_file,
)
from safehold.cli._trust import json_option, log_options, ssh_key_option
from safehold.cli._values import WholeNumber
from safehold.errors import UsageError


@click.command("rebuild")
@click.argument("commit")
@click.option(
    "--repository",
    type=in_folder(),
    default=".",
    show_default=True,
    help="The git repository of COMMIT.",
)
@click.option(
    "--out",
    type=out_folder(),
    required=True,
    help="Folder for the wheel and its provenance.",
)
@click.option("--source", required=True, help="The source's name, as git+https://…")
@click.option("--builder", required=True, help="Who rebuilds, as a URI.")
@click.option("--lock", "locks", multiple=True, type=text_file(), help="A lock that went in.")
@click.option(
    "--expect", type=any_file(), help="The wheel that was published: it must be the same."
)
@json_option
def rebuild_(
    *,
    commit: str,
    repository: Path,
    out: Path,
    source: str,
    builder: str,
    locks: tuple[Path, ...],
    expect: Path | None,
    as_json: bool,
) -> None:
    """Build a commit's wheel twice, in places that differ; exit 1 unless all bytes are the same.

    Writes the wheel and its unsigned SLSA provenance (`WHEEL.provenance.json`).

    \b
    Example:
      safehold change rebuild v1.0 --out dist/ --source git+https://example.org/safehold \\
          --builder https://example.org/people/ana --lock locks/demo.txt
    """
    from safehold.canonical import canonical, sha256_hex
    from safehold.secure.change.provenance import BuiltFile, provenance
    from safehold.secure.change.rebuild import rebuild
    from safehold.trust.log.files import write_durably

    found = rebuild(repository, commit, out)
    told = provenance(
        (BuiltFile(found.name, found.sha256),),
        source=source,
        commit=found.commit,
        builder=builder,
        parameters={"command": "pip wheel --no-deps"},
        dependencies={one.name: sha256_hex(read_bytes(one)) for one in locks},
    )
    target = out / f"{found.name}.provenance.json"
    write_durably(target, canonical(told))
    published = found.sha256 if expect is None else sha256_hex(read_bytes(expect, most=None))
    same = found.same and published == found.sha256
    if as_json:
        click.echo(json.dumps({"name": found.name, "sha256": found.sha256, "same": same}))
    else:
        click.echo(f"{found.sha256}  {found.name}")
        click.echo("the same bytes each time" if same else "NOT the same bytes")
    if not same:
        raise SystemExit(1)


@click.command("rebuild-bundle")
@click.argument("bundle", type=in_folder())
@click.option(
    "--from-record", "record", type=json_file(), help="The committed record of its thresholds."
)
@click.option(
    "--seeds", metavar="CONSTITUTION", help="Train it too, from the seeds of this constitution."
)
@click.option("--stage1-only", is_flag=True, help="With --seeds: no transformer.")
@click.option(
    "--out",
    type=out_folder(),
    required=True,
    help="Folder for the bundle and its provenance.",
)
@click.option("--source", required=True, help="The source's name, as git+https://…")
@click.option("--commit", required=True, help="The source's commit, in full.")
@click.option("--builder", required=True, help="Who rebuilds, as a URI.")
@json_option
def rebuild_bundle(
    *,
    bundle: Path,
    record: Path | None,
    seeds: str | None,
    stage1_only: bool,
    out: Path,
    source: str,
    commit: str,
    builder: str,
    as_json: bool,
) -> None:
    """Make a published bundle again, twice; exit 1 unless all bytes are those of BUNDLE.

    With --from-record its scorers are taken as they are, and manifest, thresholds and golden set
    are made anew from the record: seconds. With --seeds its scorers are trained anew as well: an
    hour. Writes the bundle and its unsigned SLSA provenance (`OUT.provenance.json`).

    \b
    Example:
      safehold change rebuild-bundle bundles/stock --from-record calibration.json --out again \\
          --source git+https://example.org/safehold --commit 1f… --builder https://example.org/ana
    """
    import sys

    from safehold.canonical import canonical, sha256_hex
    from safehold.secure.change.provenance import BUNDLE_TYPE, BuiltFile, provenance
    from safehold.secure.change.rebuild import rebuild_folder
    from safehold.trust.log.files import write_durably

    if record is None and seeds is None:
        raise UsageError("expected --from-record, --seeds, or both")
    product = [sys.executable, "-m", "safehold"]
    scorers = "trained" if seeds else "published"
    steps: list[list[str]] = []
    inputs: dict[str, Path] = {} if seeds else {"published": bundle}
    if seeds:
        last = "trained" if record else "bundle"
        only = ["--stage1-only"] if stage1_only else []
        steps += [
            [*product, "synth", "--constitution", seeds, "--out", "data"],
            [*product, "train", "--data", "data", "--out", last, "--unsigned", *only],
        ]
    if record is not None:
        inputs["record.json"] = record
        steps.append(
            [*product, "calibrate", scorers, "--unsafe-unsigned-bundle", "--unsigned",
             "--from-record", "record.json", "--out", "bundle"]
        )  # fmt: skip
    found = rebuild_folder(steps, inputs, out, made="bundle")
    unlike = found.against(bundle)
    name = bundle.resolve().name
    told = provenance(
        (
            BuiltFile(name, found.files["manifest.json"]),
            *(BuiltFile(f"{name}/{one}", digest) for one, digest in sorted(found.files.items())),
        ),
        source=source,
        commit=commit,
        builder=builder,
        parameters={"steps": "; ".join(" ".join(["safehold", *one[3:]]) for one in steps)},
        dependencies={
            one: sha256_hex(read_bytes(path)) for one, path in inputs.items() if path.is_file()
        }
        | {f"{name}/{one}": found.files[one] for one in found.files if not seeds},
        kind=BUNDLE_TYPE,
    )
    write_durably(out.with_name(f"{out.name}.provenance.json"), canonical(told))
    same = found.same and not unlike
    if as_json:
        digest = found.files["manifest.json"]
        click.echo(json.dumps({"name": name, "sha256": digest, "same": same, "unlike": unlike}))
    else:
        click.echo(f"{found.files['manifest.json']}  {name}")
        for one in unlike:
            click.echo(f"other bytes: {one}")
        click.echo("the same bytes each time" if same else "NOT the same bytes")
    if not same:
        raise SystemExit(1)


@click.command("vouch")
@click.argument("statement", type=json_file())
@click.option(
    "--out",
    type=out_file(makes_folders=True),
    required=True,
    help="The envelope; an existing one is added to.",
)
@ssh_key_option
def vouch(statement: Path, out: Path, ssh_key: Path) -> None:
    """Sign a statement: as somebody who rebuilt a product, or who compared two bundles.

    What is signed says which: provenance of `change rebuild`, or a comparison of `change compare`.

    \b
    Example:
      safehold change vouch dist/safehold.whl.provenance.json --out safehold.provenance \\
          --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.canonical import canonical, parse_canonical
    from safehold.cli._trust import proof_of, sign_text
    from safehold.secure.change.provenance import envelope, to_sign
    from safehold.trust.log.dsse import Envelope
    from safehold.trust.log.files import change_whole
    from safehold.trust.people.sshsig import armour
    from safehold.trust.release import comparison
    from safehold.trust.released.vouching import NAMESPACE, PREDICATE

    told = parse_canonical(read_bytes(statement), dict[str, Any], what="a statement")

    def signed_by(data: bytes | None) -> dict[str, str]:
        if data is None:
            return {}
        old = parse_canonical(data, Envelope, what="an envelope")
        if envelope(told, {}) != canonical(_unsigned(old)):
            raise UsageError(f"{out.name} is about another statement")
        return {one.keyid: armour(one.sig) for one in old.signatures}

    signed_by(read_bytes(out) if out.exists() else None)  # Nobody signs in vain.
    kinds = {PREDICATE: NAMESPACE, comparison.PREDICATE: comparison.NAMESPACE}
    namespace = kinds.get(str(told.get("predicateType")))
    if namespace is None:
        raise UsageError(f"{statement.name}: expected a statement of {' or '.join(kinds)}")
    text = sign_text(ssh_key, to_sign(told), namespace)
    mine = {proof_of(text).key_id: text}
    try:
        made = change_whole(out, lambda data: envelope(told, signed_by(data) | mine))
    except OSError as error:
        raise UsageError(f"can't write {out}: {error.strerror}") from error
    click.echo(f"{out}: {len(signed_by(made))} signature(s)")


def _unsigned(signed: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(signed, signatures=())


@click.command("vouched")
@click.argument("envelope_file", metavar="ENVELOPE", type=json_file())
@click.argument("subject", type=NamedPlace(exists=True))
@click.option(
    "--least",
    type=WholeNumber(1),
    default=2,
    show_default=True,
    help="So many persons must have rebuilt it.",
)
@log_options
def vouched(
    envelope_file: Path, subject: Path, least: int, log_dir: Path, key_dir: Path | None
) -> None:
    """Say which enrolled persons rebuilt a file or a bundle's folder; refuse fewer than two.

    \b
    Example:
      safehold change vouched safehold.provenance dist/safehold.whl --log trust-log
    """
    from safehold.canonical import sha256_hex
    from safehold.cli._trust import open_desk
    from safehold.secure.change.provenance import BuiltFile, verify_provenance

    roster = open_desk(log_dir, key_dir).state.roster
    held = subject / "manifest.json" if subject.is_dir() else subject
    file = BuiltFile(subject.resolve().name, sha256_hex(read_bytes(held, most=None)))
    persons, told = verify_provenance(read_bytes(envelope_file), roster, file, least=least)
    commit = told["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"]
    click.echo(f"{subject.name} is of commit {commit['gitCommit']}")
    for one in persons:
        click.echo(f"rebuilt by {one.name} ({one.id})")


@click.command("sbom")
@click.argument("lock", type=text_file())
@click.option(
    "--out", type=out_file(makes_folders=True), required=True, help="The CycloneDX file to write."
)
def sbom_(lock: Path, out: Path) -> None:
    """Write a CycloneDX list of every package of a lock with hashes.

    \b
    Example:
      safehold change sbom locks/demo.txt --out safehold.cdx.json
    """
    from safehold.secure.change.provenance import sbom
    from safehold.trust.log.files import write_durably

    found = sbom(read_text(lock), name="safehold", version=__version__)
    write_durably(out, json.dumps(found, indent=1, sort_keys=True).encode() + b"\n")
    click.echo(f"{len(found['components'])} packages: {out}")


SOURCE_COMMANDS = (rebuild_, rebuild_bundle, vouch, vouched, sbom_)
