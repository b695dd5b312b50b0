"""A challenger by warm start: stage 1 learns the variants in seconds, thresholds follow.

1. The prompt head goes on from the champion's weights, on variants of both sides and a replay.
2. Thresholds are set anew on benign prompts so that no more of them are refused than before, and
   at most two points more of them are shown to stage 2.
3. The golden set gets the incident and a permitted twin; the rest of the bundle stays, byte by
   byte.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.guard.bundle.interface import Golden, Manifest
from safehold.guard.bundle.load import Bundle, PinnedDigest, load_bundle
from safehold.guard.bundle.write import window_head_file, write_bundle
from safehold.guard.scorers.windowed import WindowHead, WindowScorer
from safehold.guard.session.cascade import Thresholds
from safehold.improve.response.interface import Incident, IncidentKind, ResponseError, Variant
from safehold.improve.response.judged import Judge
from safehold.improve.response.refine import Refined, model_file, with_stage2
from safehold.improve.training.float_weights import STAGE1, keep_weights, kept_weights, prompt_head
from safehold.improve.training.interface import LabelledText
from safehold.improve.training.window_head import WindowHeadSettings, train_window_head
from safehold.progress import Progress

_TRIES = 6
"""How often a reply's threshold is set anew."""


class WarmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a challenger is made.

    `replayed` texts of the training set are learnt again; `strength` is the inverse of the penalty
    on the distance from the champion. `weight` is a restricted variant's, `twin_weight` a permitted
    one's and `own_weight` the incident's, beside a replayed text's 1.
    `escalate_more` is the most that the share of benign prompts for stage 2 may rise.
    """

    seed: int = 1
    replayed: int = 2_000
    strength: float = 1.0
    weight: float = 1.0
    twin_weight: float = 6.0
    own_weight: float = 4.0
    steps: int = 20
    escalate_more: float = 0.02


def learnt_head(
    start: WindowHead,
    incident: Incident,
    made: Sequence[Variant],
    replay: Sequence[LabelledText],
    settings: WarmSettings,
    progress: Progress,
) -> WindowHead:
    """Return the head that also knows the variants that are not held out."""
    new = [
        LabelledText(
            one.text, one.restricted, settings.weight if one.restricted else settings.twin_weight
        )
        for one in made
        if not one.held_out
    ]
    new.append(LabelledText(incident.text, incident.kind is IncidentKind.MISS, settings.own_weight))
    head = WindowHeadSettings(
        floor=start.floor,
        bits=int(math.log2(len(start.table))),
        strength=settings.strength,
        steps=settings.steps,
    )
    return train_window_head([*new, *replay], head, progress, start)


def challenger(
    champion: Bundle,
    folder: Path,
    *,
    incident: Incident,
    made: Sequence[Variant],
    replay: Sequence[LabelledText],
    benign: Sequence[str],
    settings: WarmSettings,
    out: Path,
    key: Ed25519PrivateKey | None,
    progress: Progress,
    stage2: Refined | None = None,
    replies: Sequence[str] = (),
) -> Bundle:
    """Write the challenger of the champion in `folder` to `out` and return it, loaded.

    `stage2` is a fine-tuned stage 2; `replies` are benign ones, on which its threshold is set.

    Raises:
        ResponseError: There is no benign prompt, or reply, to set thresholds on.
        DataError: The champion can't be warm-started.
        BundleError: `out` exists already.
    """
    # 1.
    head = learnt_head(prompt_head(champion, folder), incident, made, replay, settings, progress)
    stage1 = champion.manifest.stage1
    if stage1 is None:
        raise ResponseError("a warm start needs a bundle with a stage 1")
    record, content = window_head_file(stage1.prompt.file, head)
    manifest = msgspec.structs.replace(
        champion.manifest,
        stage1=msgspec.structs.replace(stage1, prompt=record),
        traffic=None,
    )
    files = {name: (folder / name).read_bytes() for name in champion.manifest.files}
    files[stage1.prompt.file] = content
    if stage2 is not None:
        files[model_file(manifest)] = stage2.model
    # 2.
    stored = msgspec.structs.replace(head, table=head.table.astype(np.float16).astype(np.float32))
    fresh = with_prompt_head(champion, stored)
    reply = champion.manifest.reply
    if stage2 is not None:
        fresh = with_stage2(fresh, stage2)
        reply = same_replies(champion, fresh, replies)
        fresh = at_reply(fresh, reply)
    # Held-out permitted twins count as benign traffic: the dress may not become the crime.
    twins = [one.text for one in made if one.held_out and not one.restricted]
    prompt = same_point(champion, fresh, [*benign, *twins], settings)
    manifest = msgspec.structs.replace(manifest, prompt=prompt, reply=reply)
    # 3.
    fresh = at(fresh, prompt)
    files[manifest.golden] = _golden(champion, fresh, incident, made)
    command = f"safehold respond retrain --incident {incident.id} --seed {settings.seed}"
    command += " --stage2" if stage2 is not None else ""
    manifest = _lined(manifest, f"{manifest.lineage.command}; {command}")
    digest = write_bundle(out, manifest, files, key)
    kept = kept_weights(folder, champion.digest) or {}
    network = {} if stage2 is None else stage2.weights
    keep_weights(out, digest, {**kept, **network, f"{STAGE1}.prompt": head.table})
    return load_bundle(out, PinnedDigest(sha256=digest))


def _lined(manifest: Manifest, command: str) -> Manifest:
    return msgspec.structs.replace(
        manifest, lineage=msgspec.structs.replace(manifest.lineage, command=command)
    )


def with_prompt_head(bundle: Bundle, head: WindowHead) -> Bundle:
    """Return the bundle with another prompt head, in memory."""
    stage1 = bundle.cascade.stage1
    if not isinstance(stage1, WindowScorer):
        raise ResponseError("a warm start needs a bundle whose stage 1 reads windows")
    cascade = msgspec.structs.replace(bundle.cascade, stage1=stage1.with_prompt(head))
    return msgspec.structs.replace(bundle, cascade=cascade)


def at(bundle: Bundle, prompt: Thresholds) -> Bundle:
    """Return the bundle with other thresholds for prompts, in memory."""
    return msgspec.structs.replace(
        bundle, cascade=msgspec.structs.replace(bundle.cascade, prompt=prompt)
    )


def same_point(
    champion: Bundle, fresh: Bundle, benign: Sequence[str], settings: WarmSettings
) -> Thresholds:
    """Return thresholds under which the fresh bundle costs the benign prompts no more refusals.

    Raises:
        ResponseError: There is no benign prompt.
    """
    if not benign:
        raise ResponseError("thresholds are set on benign prompts; give some")
    before = Judge(champion)
    old, new = before.stage1(benign), Judge(fresh).stage1(benign)
    here = champion.cascade.prompt
    share = sum(one >= here.escalate for one in old) / len(old) + settings.escalate_more
    escalate = max(here.escalate, float(np.quantile(new, max(0.0, 1 - share))))
    if not champion.cascade.has_stage2:
        refused = sum(one >= here.alone for one in old)
        alone = _above(new, refused, here.alone)
        return msgspec.structs.replace(here, escalate=alone, alone=alone)
    moved = msgspec.structs.replace(here, escalate=escalate)
    # Only what escalates can be refused, so only that needs stage 2.
    refused = sum(
        before.prompt(text).blocked
        for text, logit in zip(benign, old, strict=True)
        if logit >= here.escalate
    )
    after = Judge(at(fresh, moved))
    finals = [
        _final(after, moved, text)
        for text, logit in zip(benign, new, strict=True)
        if logit >= escalate
    ]
    return msgspec.structs.replace(moved, block=_above(finals, refused, here.block))


def at_reply(bundle: Bundle, reply: Thresholds) -> Bundle:
    """Return the bundle with other thresholds for replies, in memory."""
    return msgspec.structs.replace(
        bundle, cascade=msgspec.structs.replace(bundle.cascade, reply=reply)
    )


def same_replies(champion: Bundle, fresh: Bundle, replies: Sequence[str]) -> Thresholds:
    """Return thresholds under which the fresh bundle stops no more of the benign replies.

    Raises:
        ResponseError: There is no benign reply.
    """
    if not replies:
        raise ResponseError("a fine-tuned stage 2 is set on benign replies; give some")
    here = champion.cascade.reply
    before = Judge(champion)
    stopped = sum(before.reply(text).blocked for text in replies)
    for _ in range(_TRIES):
        judge = Judge(at_reply(fresh, here))
        finals = [_logit(judge.reply(text).score, here.block) for text in replies]
        if sum(one >= here.block for one in finals) <= stopped:
            break
        # A reply that is stopped early was not read to its hottest place: hence again.
        here = msgspec.structs.replace(here, block=_above(finals, stopped, here.block))
    return here


def _final(judge: Judge, prompt: Thresholds, text: str) -> float:
    """Return the final logit of a prompt, which the score is a monotone function of."""
    return _logit(judge.prompt(text).score, prompt.block)


def _logit(score: float, block: float) -> float:
    if score <= 0:
        return -math.inf
    return block + math.log(score / (1 - score)) if score < 1 else math.inf


def _above(scores: Sequence[float], most: int, least: float) -> float:
    """Return the lowest threshold from `least` on that at most `most` of the scores reach."""
    over = sorted((one for one in scores if one >= least), reverse=True)
    return least if len(over) <= most else float(np.nextafter(over[most], np.inf))


def _golden(champion: Bundle, fresh: Bundle, incident: Incident, made: Sequence[Variant]) -> bytes:
    """Return the golden set with the incident and a twin, as far as the challenger is right."""
    judge = Judge(fresh)
    wanted = incident.kind is IncidentKind.MISS
    more = [Golden(incident.text, "", wanted)]
    twin = next((one for one in made if one.held_out and one.restricted is not wanted), None)
    if twin is not None:
        more.append(Golden(twin.text, "", twin.restricted))
    right = [one for one in more if judge.prompt(one.prompt).blocked is one.blocked]
    return b"".join(msgspec.json.encode(one) + b"\n" for one in (*champion.golden, *right))
