"""A bundle with the same scorers at another operating point."""

from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import BundleError
from safehold.exchange import user_says
from safehold.guard.bundle.interface import Golden, TrafficRecord
from safehold.guard.bundle.load import Bundle
from safehold.guard.bundle.write import write_bundle
from safehold.guard.interface import Block
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.session import Guard
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.improve.training.traces import outcome
from safehold.improve.training.traffic import at_record


def recalibrate(
    bundle: Bundle, folder: Path, record: TrafficRecord, out: Path, key: Ed25519PrivateKey | None
) -> str:
    """Write the bundle in `folder` with the record's thresholds; return the manifest's digest.

    The golden set keeps the exchanges that the guard still judges as it did.

    Raises:
        BundleError: `out` exists, or no golden exchange of one kind is judged as before.
    """
    cascade = at_record(bundle.cascade, record)
    guard = Guard(cascade, ViewDecoder())
    kept = [item for item in bundle.golden if _blocked(guard, bundle, item) is item.blocked]
    if {item.blocked for item in kept} != {True, False}:
        raise BundleError("at these thresholds no golden exchange of one kind is judged rightly")
    manifest = msgspec.structs.replace(
        bundle.manifest, prompt=cascade.prompt, reply=cascade.reply, traffic=record
    )
    files = {name: (folder / name).read_bytes() for name in manifest.files}
    files[manifest.golden] = b"".join(msgspec.json.encode(item) + b"\n" for item in kept)
    return write_bundle(out, manifest, files, key)


def _blocked(guard: Guard, bundle: Bundle, item: Golden) -> bool:
    example = Example(
        id="",
        family="",
        split=Split.TEST,
        side=Side.PERMITTED,
        clause="",
        exchange=user_says(item.prompt),
        reply=item.reply,
        ask=False,
        lineage=Lineage(constitution="", generator="golden", seed=0),
    )
    verdict, block, _ = outcome(guard, bundle.stage2, example)
    return isinstance(verdict, Block) or block is not None
