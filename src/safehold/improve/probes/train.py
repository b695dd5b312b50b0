"""From a base bundle, a dataset and a model to a bundle with a probe, bound to that model.

Numbered as it happens:
1. The model reads the training split's replies; the probe learns from its activations.
2. The probe's own escalation threshold comes from the calibration split.
3. Real sessions over the calibration split give the logits of every escalation; the weights of
   stage 1, stage 2 and the probe are fitted to them.
4. The reply's block threshold comes from permitted calibration replies by the umbrella rule.
5. The test split, which nothing before has seen, is measured: the text scorers alone, the probe
   alone, both together.
6. Canaries and the golden set are drawn; the bundle is written, signed and bound to the model.
"""

import importlib.metadata
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import BundleError, DataError
from safehold.exchange import user_says
from safehold.guard.bundle.interface import (
    MANIFEST,
    SIGNATURE,
    Golden,
    ProbeCanary,
    ProbeRecord,
)
from safehold.guard.bundle.load import Bundle
from safehold.guard.bundle.probes import highest
from safehold.guard.bundle.write import array_file, write_bundle
from safehold.guard.interface import Escalation
from safehold.guard.scorers.probe import LinearProbe
from safehold.guard.served.model import HfModel
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.cascade import Cascade, Probed
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer
from safehold.guard.session.session import Guard
from safehold.improve.evaluation.interface import Frequency
from safehold.improve.probes.calibrate import ProbedReply, escalation, fit_weights, threshold_of
from safehold.improve.probes.fit import fit
from safehold.improve.probes.interface import ProbeSettings, TrainedProbe
from safehold.improve.probes.measure import costs, separations
from safehold.improve.probes.sessions import HeardReply, decided_by, hear, stopped
from safehold.improve.probes.windows import collect
from safehold.improve.synthesis.interface import Example, Side, Split
from safehold.improve.training.examples import of_split
from safehold.progress import Progress
from safehold.stats import Rate

PROBE_FILE = "probe.npy"
CANARY_FILE = "probe.canaries.jsonl"


def train_probe(
    examples: Sequence[Example],
    base: Bundle,
    folder: Path,
    model: HfModel,
    settings: ProbeSettings,
    out: Path,
    key: Ed25519PrivateKey | None,
    progress: Progress,
) -> TrainedProbe:
    """Train, calibrate, measure and write a bundle; `folder` is the base bundle's.

    Raises:
        DataError: The dataset is too small for the guarantee, or a split or side is missing.
        BundleError: The base has a probe already or no stage 2, or `out` exists.
    """
    if base.cascade.probe is not None or base.stage2 is None:
        raise BundleError("a probe is added to a bundle with both text stages and no probe")
    if out.exists():
        raise BundleError(f"{out}: exists already; a bundle is never changed in place")
    split = {part: _chosen(examples, part, settings) for part in Split}
    layers = settings.layers or tuple(range(model.states))
    # 1.
    progress.start("the model reads: train", len(split[Split.TRAIN]))
    found = collect(model, split[Split.TRAIN], layers, settings, progress)
    head = fit(found, settings, progress)
    clause = base.manifest.stage1.clause if base.manifest.stage1 is not None else ""
    probe = LinearProbe("activations", head, layers, clause)
    del found
    # 2.
    answer = InlineStage2(base.stage2)
    heard = {
        part: _heard(model, probe, split[part], settings, f"the model reads: {part}", progress)
        for part in (Split.CALIBRATE, Split.TEST)
    }
    escalate = escalation(probe, heard[Split.CALIBRATE], settings)
    cascade = msgspec.structs.replace(
        base.cascade, probe=Probed(scorer=probe, escalate=escalate, weight=0.0)
    )
    # 3.
    judged = {
        part: _judged(cascade, answer, pairs, f"sessions: {part}", progress)
        for part, pairs in heard.items()
    }
    weights = fit_weights(judged[Split.CALIBRATE])
    # 4.
    cascade, operating = threshold_of(cascade, weights, judged[Split.CALIBRATE], settings)
    # 5.
    measured = judged[Split.TEST]
    decoder = ViewDecoder()
    alone = [
        decided_by(base.cascade, decoder, answer, one.example.exchange, one.heard)
        for one in measured
    ]
    test = separations(base.cascade, cascade, probe, measured, alone)
    guard = Guard(cascade, ViewDecoder())
    blocked = {
        side: Rate(
            sum(stopped(guard, answer, one.example.exchange, one.heard) for one in those),
            len(those),
        )
        for side in Side
        if (those := [one for one in measured if one.example.side is side])
    }
    operating = msgspec.structs.replace(
        operating,
        escalated=_share(measured, Side.PERMITTED, lambda one: bool(one.decided.triples)),
        test_false_positives=(blocked[Side.PERMITTED].events, blocked[Side.PERMITTED].n),
        test_true_positives=(blocked[Side.RESTRICTED].events, blocked[Side.RESTRICTED].n),
    )
    # 6.
    canaries = _canaries(model, probe, measured, settings)
    record = ProbeRecord(
        name=probe.name,
        file=PROBE_FILE,
        layers=layers,
        shift=head.shift,
        bias=head.bias,
        floor=head.floor,
        clause=clause,
        dtype=model.dtype,
        escalate=escalate,
        weight=weights[2],
        canaries=CANARY_FILE,
        tolerance=settings.tolerance,
    )
    manifest = msgspec.structs.replace(
        base.manifest,
        name=out.name,
        reply=cascade.reply,
        probe=record,
        model_digest=model.digest,
        calibration={**base.manifest.calibration, "reply": operating},
        lineage=msgspec.structs.replace(
            base.manifest.lineage,
            command=f"{base.manifest.lineage.command}; then --probe --seed {settings.seed}",
            packages={
                **base.manifest.lineage.packages,
                "transformers": importlib.metadata.version("transformers"),
            },
        ),
    )
    files = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name not in (MANIFEST, SIGNATURE)
    }
    files[PROBE_FILE] = array_file(head.weights)
    files[CANARY_FILE] = b"".join(msgspec.json.encode(one) + b"\n" for one in canaries)
    files[manifest.golden] = _golden(base, model, cascade, answer)
    digest = write_bundle(out, manifest, files, key)
    model_us, probe_us = costs(model, probe)
    return TrainedProbe(
        digest=digest,
        model_digest=model.digest,
        layers=len(layers),
        features=len(head.weights),
        weights=weights,
        test=test,
        blocked_restricted=Frequency.of(blocked[Side.RESTRICTED]),
        blocked_permitted=Frequency.of(blocked[Side.PERMITTED]),
        model_us=model_us,
        probe_us=probe_us,
    )


def _chosen(examples: Sequence[Example], part: Split, settings: ProbeSettings) -> list[Example]:
    """Return the replies of a split, at most `limit` (half for the held-out ones) by lot."""
    replies = [example for example in of_split(examples, part) if example.reply]
    for side in Side:
        if not any(example.side is side for example in replies):
            raise DataError(f"the {part} split has no {side} reply")
    most = settings.limit if part is Split.TRAIN else settings.limit // 2
    if len(replies) > most:
        chance = random.Random(settings.seed)
        replies = chance.sample(replies, most)
    return replies


def _heard(
    model: HfModel,
    probe: LinearProbe,
    examples: Sequence[Example],
    settings: ProbeSettings,
    what: str,
    progress: Progress,
) -> list[tuple[Example, HeardReply]]:
    progress.start(what, len(examples))
    found = []
    for example in examples:
        found.append(
            (example, hear(model, probe, example.exchange, example.reply, settings.prompt_chars))
        )
        progress.advance()
    return found


def _judged(
    cascade: Cascade,
    answer: Callable[[Escalation], Answer],
    pairs: Sequence[tuple[Example, HeardReply]],
    what: str,
    progress: Progress,
) -> list[ProbedReply]:
    decoder = ViewDecoder()
    progress.start(what, len(pairs))
    found = []
    for example, heard in pairs:
        decided = decided_by(cascade, decoder, answer, example.exchange, heard)
        found.append(ProbedReply(example, heard, decided))
        progress.advance()
    return found


def _share(
    judged: Sequence[ProbedReply], side: Side, what: Callable[[ProbedReply], bool]
) -> tuple[int, int]:
    those = [one for one in judged if one.example.side is side]
    return sum(what(one) for one in those), len(those)


def _canaries(
    model: HfModel, probe: LinearProbe, judged: Sequence[ProbedReply], settings: ProbeSettings
) -> list[ProbeCanary]:
    """Return fixed texts of both kinds with the scores that every later load must repeat."""
    found: list[ProbeCanary] = []
    for side in Side:
        those = [one for one in judged if one.example.side is side][: settings.canaries]
        for one in those:
            prompt, reply = "Please go on.", one.example.reply
            found.append(ProbeCanary(prompt, reply, highest(probe, model, prompt, reply)))
    return found


def _golden(
    base: Bundle, model: HfModel, cascade: Cascade, answer: Callable[[Escalation], Answer]
) -> bytes:
    """Return the base's golden exchanges that the new guard judges as recorded.

    Raises:
        BundleError: It judges none of one kind rightly.
    """
    guard = Guard(cascade, ViewDecoder())
    kept: list[Golden] = []
    for item in base.golden:
        if item.reply and cascade.probe is not None:
            exchange = user_says(item.prompt)
            heard = hear(model, cascade.probe.scorer, exchange, item.reply, len(item.prompt))
            if not item.blocked and stopped(guard, answer, exchange, heard):
                continue
        kept.append(item)
    if {item.blocked for item in kept} != {True, False}:
        raise BundleError("the new guard judges no golden exchange of one kind rightly")
    return b"".join(msgspec.json.encode(item) + b"\n" for item in kept)
