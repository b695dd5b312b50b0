"""The manifest of a bundle: every number a guard decides by, and a digest for every byte."""

from typing import Annotated

import msgspec

from safehold.guard.scorers.rules import Rule
from safehold.guard.scorers.similar import KnownAttack
from safehold.guard.session.cascade import Thresholds

SCHEMA = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The digest and size of one file of the bundle."""

    sha256: Sha256
    size_bytes: int


class HeadRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A stage-1 head: its weight file (float16, .npy) and its scalars.

    With `window` the head scores the set of n-grams in so many tokens; without, it adds up token by
    token, and `mix` and `offset` belong to that.
    """

    file: str
    bias: float
    floor: int
    mix: tuple[float, float] = (1.0, 0.0)
    offset: float = 0.0
    window: int = 0


class Stage1Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The stage-1 scorer."""

    name: str
    prompt: HeadRecord
    reply: HeadRecord
    clause: str


class Stage2Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The stage-2 scorer: an ONNX model and its vocabulary; `clauses` name its outputs.

    With `words`, a file of packed word rows, the model reads many languages and the vocabulary
    holds a piece and its log-probability a line, apart by a tab.
    """

    name: str
    model: str
    vocabulary: str
    clauses: tuple[str, ...]
    words: str = ""


class ProbeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The probe: its weight file (float32, .npy), what it reads, and how it decides.

    `dtype` is the number format that the model must compute in. `canaries` names the file of texts
    whose scores a load must repeat within `tolerance` (a logit).
    """

    name: str
    file: str
    layers: tuple[int, ...]
    shift: float
    bias: float
    floor: int
    clause: str
    dtype: str
    escalate: float
    weight: float
    canaries: str
    tolerance: float


class ProbeCanary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fixed exchange, and the highest smoothed logit that the probe gave its reply."""

    prompt: str
    reply: str
    logit: float


class Operating(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a surface's threshold was set, and what was then measured on the disjoint test split.

    The umbrella rule (Tong, Feng, Li, Science Advances 4 (2018)) makes the false-positive rate at
    most `alpha` with probability at least 1 - `delta` over calibration sets like this one.
    """

    alpha: float
    delta: float
    calibration_n: int
    calibration_rank: int
    escalated: tuple[int, int]
    test_false_positives: tuple[int, int]
    test_true_positives: tuple[int, int]


class LineageRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the bundle was made from: enough to make it again."""

    data_digest: str
    generators: tuple[str, ...]
    seed: int
    examples: dict[str, int]
    command: str
    packages: dict[str, str]


class SurfaceTraffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A surface's thresholds from traffic, and the scores that gave them; no text.

    `above` counts the general and the near texts at or above `block`; `quantiles` are those of the
    general scores at 0.5, 0.9, 0.99 and 0.999. `margins` are those of earlier turns, parts,
    joined turns and answers, in stage 2's logit; an older record has none of answers.
    """

    n: int
    near_n: int
    rank: int
    escalate: float
    block: float
    above: tuple[int, int]
    quantiles: tuple[float, ...]
    margins: tuple[float, ...] = (0.0, 2.0, 2.0, 2.0)


class TrafficRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A calibration on traffic: of which bundle, on what (digests), with which promise.

    Replies have the prompts' rates where they have none of their own.
    """

    bundle: Sha256
    sources: dict[str, str]
    surfaces: dict[str, SurfaceTraffic]
    alpha: float
    near_alpha: float
    delta: float
    contamination: float
    reply_alpha: float | None = None
    reply_near_alpha: float | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything about a bundle that is not a weight.

    `model_digest` binds scorers that read a served model's activations to that model; None where
    no scorer does. `golden` names the file of exchanges with the verdicts that a load must repeat.
    """

    schema: int
    name: str
    constitution: str
    constitution_digest: Sha256
    stage1: Stage1Record | None
    stage2: Stage2Record | None
    prompt: Thresholds
    reply: Thresholds
    rules: tuple[Rule, ...]
    calibration: dict[str, Operating]
    lineage: LineageRecord
    model_digest: Sha256 | None
    golden: str
    files: dict[str, FileRecord]
    probe: ProbeRecord | None = None
    known_attacks: tuple[KnownAttack, ...] = ()
    traffic: TrafficRecord | None = None


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exchange of the golden set and whether a sound guard blocks it."""

    prompt: str
    reply: str
    blocked: bool
