"""What evaluation reads and what it writes: items, their scores, and the report's figures."""

from enum import StrEnum

import msgspec

from safehold.exchange import Exchange
from safehold.guard.interface import Stage
from safehold.stats import Rate


class Label(StrEnum):
    """What an item of external data is.

    `boundary` items lie on the border and have no right answer. A jailbreak template asks for
    nothing restricted by itself. `other_domain` is restricted under another constitution than the
    bundle's, hence permitted here.
    """

    RESTRICTED = "restricted"
    BENIGN = "benign"
    BOUNDARY = "boundary"
    TEMPLATE = "jailbreak_template"
    OTHER_DOMAIN = "other_domain"


class ItemSide(StrEnum):
    """Where an item is shown to the guard."""

    PROMPT = "prompt"
    REPLY = "reply"


class EvalItem(msgspec.Struct, frozen=True):
    """One labelled text, as the prompt it makes and the reply it makes.

    `before` is what the reply answers. `asks` is false where the label is about the reply only.
    `origin` is the whole source, `language` the text's, where the data says so.
    """

    key: str
    label: Label
    slice: str
    category: str
    source: str
    adjacent: bool
    prompt: Exchange
    before: Exchange
    reply: str
    asks: bool = True
    origin: str = ""
    language: str = "unnamed"


class DataFile(msgspec.Struct, frozen=True):
    """One file of items and its digest."""

    name: str
    sha256: str
    items: tuple[EvalItem, ...]


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the guard did with one item on one surface; logits are None where nothing gave one.

    `stage1` is the highest stage-1 logit, `final` the highest ensemble logit of any escalation,
    `probe` the highest logit of the bundle's probe, where it has one.
    `length` counts the reply's guard tokens, `stop` those scored when it was stopped, `released`
    those that a streaming client had received by then.
    """

    stage1: float | None
    final: float | None
    blocked: bool
    escalations: int
    stage: Stage | None = None
    length: int = 0
    stop: int = 0
    released: int = 0
    probe: float | None = None

    @property
    def unscorable(self) -> bool:
        """Whether a scorer broke, so that the fail mode decided and not a score."""
        return self.stage is Stage.FAIL_MODE


class ItemScores(msgspec.Struct, frozen=True, omit_defaults=True):
    """Both surfaces of one item."""

    prompt: Score | None
    reply: Score | None

    def on(self, surface: ItemSide) -> Score | None:
        """Return the score on one surface."""
        return self.prompt if surface is ItemSide.PROMPT else self.reply


class JudgedItem(msgspec.Struct, frozen=True):
    """An item with its scores."""

    item: EvalItem
    scores: ItemScores


class Frequency(msgspec.Struct, frozen=True):
    """A rate as the report keeps it, with both exact one-sided 95% bounds."""

    events: int
    n: int
    value: float | None
    lower: float
    upper: float

    @classmethod
    def of(cls, rate: Rate) -> "Frequency":
        """Return the record of a rate."""
        value = rate.value if rate.n else None
        return cls(rate.events, rate.n, value, rate.lower, rate.upper)

    @property
    def rate(self) -> Rate:
        """The rate itself."""
        return Rate(self.events, self.n)


class SurfaceFigures(msgspec.Struct, frozen=True):
    """What happened to a group of items on one surface."""

    flagged: Frequency
    escalated: Frequency
    unscorable: int


class GroupFigures(msgspec.Struct, frozen=True):
    """What happened to a group of items that share a name and a label."""

    name: str
    label: Label
    prompt: SurfaceFigures | None
    reply: SurfaceFigures | None


class Separation(msgspec.Struct, frozen=True):
    """How well scores tell restricted items from one group of others, free of any threshold.

    `auc_lower` is the one-sided 95% bound of Hanley and McNeil, Radiology 143 (1982) 29-36. A
    detection rate is None where the others are too few for the false-positive rate to be seen.
    """

    restricted: str
    others: str
    surface: ItemSide
    n_restricted: int
    n_others: int
    auc: float
    auc_lower: float
    tpr_at_1_percent: Frequency | None
    tpr_at_01_percent: Frequency | None


class Stops(msgspec.Struct, frozen=True):
    """Where stopped replies were stopped, in guard tokens: percentiles over the stopped ones."""

    stopped: int
    scored_p50: float
    scored_p90: float
    released_p50: float
    released_p90: float
    released_share_p50: float
    released_share_p90: float


class Ablation(msgspec.Struct, frozen=True):
    """The figures of one variant of the guard on the same items.

    Flag rates are None where a variant has no calibrated threshold of its own.
    """

    variant: str
    separation: Separation
    restricted_flagged: Frequency | None
    benign_flagged: Frequency | None
    encoded_flagged: Frequency | None
    stage2_calls_per_item: float


class JudgeFigures(msgspec.Struct, frozen=True):
    """What a prompted judge says of the same items."""

    model: str
    headline: tuple[GroupFigures, ...]
    separations: tuple[Separation, ...]


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `report.json` holds."""

    safehold: str
    bundle: str
    bundle_digest: str
    constitution: str
    code_digest: str
    files: dict[str, str]
    skipped: tuple[str, ...]
    items: int
    headline: tuple[GroupFigures, ...]
    slices: tuple[GroupFigures, ...]
    categories: tuple[GroupFigures, ...]
    sources: tuple[GroupFigures, ...]
    separations: tuple[Separation, ...]
    stops: dict[str, Stops]
    ablations: tuple[Ablation, ...] = ()
    judge: JudgeFigures | None = None
    part: str = ""
    limit: int | None = None
    languages: tuple[GroupFigures, ...] = ()
    lengths: tuple[GroupFigures, ...] = ()
