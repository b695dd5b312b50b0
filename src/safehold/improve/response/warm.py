"""A challenger by warm start: stage 1 learns the variants in seconds, thresholds follow.

1. The prompt head goes on from the champion's weights, on variants of both sides and a replay.
2. Half and all of the way from the champion's weights to the fit's are tried (as Wortsman et al.
   2022 go between a model and its fine-tuned one: what both know stays known).
   Thresholds are set anew so that no more benign prompts are refused than before, no more
   permitted asks in the incident's dress, and no more benign prompts escalated.
3. The whole guard is asked about the variants that were learnt from. Those that it still judges
   wrongly weigh more in another fit from the champion. The best of all is kept; of equals the one
   that is nearest to the champion.
4. The golden set gets the incident and a permitted twin; the rest of the bundle stays, byte by
   byte.
"""

import math
from collections.abc import Mapping, Sequence
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
from safehold.improve.response.judged import Heard, Judge
from safehold.improve.response.refine import Refined, model_file, with_stage2
from safehold.improve.training.float_weights import STAGE1, keep_weights, kept_weights, prompt_head
from safehold.improve.training.interface import LabelledText
from safehold.improve.training.window_head import WindowHeadSettings, train_window_head
from safehold.progress import Progress

_WAYS = (0.5, 1.0)
"""How far from the champion to a fit, as shares of the way."""
_TRIES = 6
"""How often a surface's threshold is set anew."""


class WarmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a challenger is made.

    `replayed` texts of the training set are learnt again; `strength` is the inverse of the penalty
    on the distance from the champion. `weight` is a restricted variant's, `twin_weight` a permitted
    one's and `own_weight` the incident's, beside a replayed text's 1. In each of `rounds` more
    fits, at most, a variant that is still judged wrongly weighs `harder` times what it did.
    """

    seed: int = 1
    replayed: int = 2_000
    strength: float = 1.0
    weight: float = 1.0
    twin_weight: float = 6.0
    own_weight: float = 4.0
    steps: int = 20
    rounds: int = 3
    harder: float = 4.0


def learnt_head(
    start: WindowHead,
    incident: Incident,
    made: Sequence[Variant],
    replay: Sequence[LabelledText],
    settings: WarmSettings,
    progress: Progress,
    times: Mapping[str, float] | None = None,
) -> WindowHead:
    """Return the head that also knows the variants that are not held out.

    `times` says how many times its own weight a variant's text has, where that is not once.
    """
    harder = times or {}
    new = [
        LabelledText(
            one.text,
            one.restricted,
            (settings.weight if one.restricted else settings.twin_weight)
            * harder.get(one.text, 1.0),
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
    stage1 = champion.manifest.stage1
    if stage1 is None:
        raise ResponseError("a warm start needs a bundle with a stage 1")
    manifest = msgspec.structs.replace(champion.manifest, traffic=None)
    files = {name: (folder / name).read_bytes() for name in champion.manifest.files}
    base = champion
    if stage2 is not None:
        files[model_file(manifest)] = stage2.model
        base = with_stage2(champion, stage2)
        reply = same_replies(champion, base, replies)
        base = at_reply(base, reply)
        manifest = msgspec.structs.replace(manifest, reply=reply)
    # 1. to 3.
    found = hardened(
        champion,
        base,
        prompt_head(champion, folder),
        incident=incident,
        made=made,
        replay=replay,
        benign=benign,
        settings=settings,
        progress=progress,
    )
    fresh, prompt = found.bundle, found.bundle.cascade.prompt
    record, files[stage1.prompt.file] = window_head_file(stage1.prompt.file, found.head)
    manifest = msgspec.structs.replace(
        manifest, stage1=msgspec.structs.replace(stage1, prompt=record), prompt=prompt
    )
    # 4.
    files[manifest.golden] = _golden(champion, fresh, incident, made)
    command = f"safehold respond retrain --incident {incident.id} --seed {settings.seed}"
    command += " --stage2" if stage2 is not None else ""
    manifest = _lined(manifest, f"{manifest.lineage.command}; {command}")
    digest = write_bundle(out, manifest, files, key)
    kept = kept_weights(folder, champion.digest) or {}
    network = {} if stage2 is None else stage2.weights
    keep_weights(out, digest, {**kept, **network, f"{STAGE1}.prompt": found.head.table})
    return load_bundle(out, PinnedDigest(sha256=digest))


class Hardened(msgspec.Struct, frozen=True):
    """The best fit: its head, the bundle with it, and the learnt variants it judges wrongly.

    `tried` says how many each fit judged wrongly where it was best on its way.
    """

    head: WindowHead
    bundle: Bundle
    wrong: tuple[Variant, ...]
    tried: tuple[int, ...]


def hardened(
    champion: Bundle,
    base: Bundle,
    start: WindowHead,
    *,
    incident: Incident,
    made: Sequence[Variant],
    replay: Sequence[LabelledText],
    benign: Sequence[str],
    settings: WarmSettings,
    progress: Progress,
) -> Hardened:
    """Return the best of a first fit and the harder ones after it, in memory.

    `base` is the champion, or the champion with another stage 2. The incident counts first, then
    how many of the learnt variants the whole guard judges wrongly, at thresholds that cost the
    benign prompts no more. What is held out decides nothing here but those thresholds.

    Raises:
        ResponseError: There is no benign prompt.
    """
    # Held-out permitted twins count as benign traffic: the dress may not become the crime.
    twins = [one.text for one in made if one.held_out and not one.restricted]
    learnt = [one for one in made if not one.held_out]
    miss = incident.kind is IncidentKind.MISS
    times: dict[str, float] = {}
    heard = Heard()
    before = benign_cost(champion, benign, twins, heard if base is champion else None)
    best: tuple[tuple[bool, int, float], Hardened] | None = None
    tried: list[int] = []
    for _ in range(1 + settings.rounds):
        fit = learnt_head(start, incident, made, replay, settings, progress, times)
        here: list[int] = []
        for way in _WAYS:
            head = part_way(start, fit, way)
            stored = msgspec.structs.replace(
                head, table=head.table.astype(np.float16).astype(np.float32)
            )
            fresh = with_prompt_head(base, stored)
            fresh = at(fresh, same_point(before, fresh, benign, twins, heard))
            judge = Judge(fresh, heard=heard)
            wrong = [one for one in learnt if judge.prompt(one.text).blocked is not one.restricted]
            missed = judge.prompt(incident.text).blocked is not miss
            here.append(len(wrong))
            if best is None or (missed, len(wrong), way) < best[0]:
                best = ((missed, len(wrong), way), Hardened(head, fresh, tuple(wrong), ()))
            if not wrong and not missed:
                break
        tried.append(min(here))
        if not wrong and not missed:
            break
        for one in wrong:
            times[one.text] = times.get(one.text, 1.0) * settings.harder
    if best is None:
        raise ResponseError("a warm start needs at least one fit; `rounds` is below 0")
    return msgspec.structs.replace(best[1], tried=tuple(tried))


def part_way(start: WindowHead, fit: WindowHead, way: float) -> WindowHead:
    """Return the head that lies this share of the way from one to the other."""
    table = (start.table + np.float32(way) * (fit.table - start.table)).astype(np.float32)
    bias = start.bias + way * (fit.bias - start.bias)
    return msgspec.structs.replace(fit, table=table, bias=bias)


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


class BenignCost(msgspec.Struct, frozen=True):
    """What a champion costs: benign prompts refused and escalated, and refused twins in the dress.

    The two refusals are apart: a dress may not be paid for by what is saved elsewhere.
    """

    thresholds: Thresholds
    refused: int
    escalated: int
    twins_refused: int


def benign_cost(
    champion: Bundle, benign: Sequence[str], twins: Sequence[str], heard: Heard | None = None
) -> BenignCost:
    """Return what the champion costs in refusals of each, and in escalations of `benign`.

    Raises:
        ResponseError: There is no benign prompt.
    """
    if not benign:
        raise ResponseError("thresholds are set on benign prompts; give some")
    judge, here = Judge(champion, heard=heard), champion.cascade.prompt
    found = judge.prompts([*benign, *twins])
    return BenignCost(
        here,
        refused=sum(one.blocked for one in found[: len(benign)]),
        escalated=sum(one.stage1 >= here.escalate for one in found[: len(benign)]),
        twins_refused=sum(one.blocked for one in found[len(benign) :]),
    )


def same_point(
    before: BenignCost,
    fresh: Bundle,
    benign: Sequence[str],
    twins: Sequence[str],
    heard: Heard | None = None,
) -> Thresholds:
    """Return thresholds under which the fresh bundle costs the benign prompts no more.

    No more of `benign` are escalated, no more of them refused, and no more of `twins`. Stage 2
    reads the last request whatever stage 1 thinks of it, so every prompt goes through both.
    """
    here = before.thresholds
    kinds = ((benign, before.refused), (twins, before.twins_refused))
    if not fresh.cascade.has_stage2:
        judge = Judge(fresh)
        alone = max(_above(judge.stage1(texts), most, here.alone) for texts, most in kinds)
        return msgspec.structs.replace(here, escalate=alone, alone=alone)
    first = Judge(fresh, heard=heard).stage1(benign)
    moved = msgspec.structs.replace(here, escalate=_above(first, before.escalated, here.escalate))
    for _ in range(_TRIES):
        judge = Judge(at(fresh, moved), heard=heard)
        block = max(
            _above([_final(judge, moved, text) for text in texts], most, moved.block)
            for texts, most in kinds
        )
        if block <= moved.block:
            break
        # A prompt that is refused early was not read to its hottest text: hence again.
        moved = msgspec.structs.replace(moved, block=block)
    return moved


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
