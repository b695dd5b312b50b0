"""The output-token channel: what leaves inside the replies themselves.

Kernel budgets can't tell a reply from weights hidden in one. So every key and account has a quota
of bytes and tokens, log-probabilities are bounded, and a sample of replies is scored again to
estimate how many hidden bits a token could carry (after Rinberg et al., arXiv 2511.02620: with a
fixed seed more than 98 % of tokens come out the same; what is left bounds the hidden channel).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from safehold.errors import EgressError
from safehold.secure.egress.bounds.odometer import FlowOdometer
from safehold.secure.egress.explain.ledger import ExplainedRow
from safehold.secure.egress.interface import ExplainedRowError, Window
from safehold.stats import Rate
from safehold.toml_text import parse_toml

_ROUNDING = 1e-6
"""What a model's sums are off by."""

MAX_TOP_LOGPROBS = 5
LOGPROB_STEP = 0.25
"""Log-probabilities are rounded to this step, which bounds what their digits can carry."""

_FLOOR = -20.0


class TokenQuota(msgspec.Struct, frozen=True):
    """What one key, or one account with all its keys, may receive in each window."""

    size: Mapping[Window, int]
    tokens: Mapping[Window, int]


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of quotas: `default` for every name, and others by `tenant` or `tenant/key`."""

    default: TokenQuota
    named: Mapping[str, TokenQuota] = {}


def load_quotas(path: Path) -> Quotas:
    """Read quotas from TOML; raises EgressError when the file is malformed."""
    try:
        return msgspec.convert(parse_toml(path.read_text("utf-8")), Quotas)
    except (OSError, UnicodeDecodeError, ValueError, msgspec.ValidationError) as error:
        raise EgressError(f"{path.name}: expected quotas ({str(error)[:100]})") from error


class Spent(msgspec.Struct, frozen=True):
    """What was received so far, in bytes and tokens."""

    size: FlowOdometer = FlowOdometer()
    tokens: FlowOdometer = FlowOdometer()


class TokenLedger(msgspec.Struct, frozen=True):
    """Per key and account: what was received. A value; `add` returns the next one."""

    spent: Mapping[str, Spent] = {}

    def add(self, row: ExplainedRow) -> "TokenLedger":
        """Count one row of the ledger for the account it names."""
        if not row.account:
            return self
        spent = dict(self.spent)
        # `tenant/key` counts for the key and for the account that holds it.
        for name in {row.account, row.account.partition("/")[0]} - {""}:
            before = spent.get(name, Spent())
            spent[name] = Spent(
                size=before.size.advance(before.size.raw + row.size, 0, row.end),
                tokens=before.tokens.advance(before.tokens.raw + row.tokens, 0, row.end),
            )
        return TokenLedger(spent=spent)

    def over(self, quotas: Mapping[str, TokenQuota], default: TokenQuota, now: float) -> list[str]:
        """The keys and accounts over any of their quotas."""
        found = []
        for name, spent in self.spent.items():
            quota = quotas.get(name, default)
            size_left = spent.size.remaining(quota.size, now).values()
            tokens_left = spent.tokens.remaining(quota.tokens, now).values()
            if 0 in {*size_left, *tokens_left}:
                found.append(name)
        return sorted(found)

    def crowd(self, now: float, window: Window, least: int) -> Rate:
        """How many accounts took nearly the same amount: many accounts of one thief look alike.

        Counts accounts within 5 % of the median among those that took at least `least` bytes.
        """
        sizes = sorted(
            taken
            for spent in self.spent.values()
            if (taken := spent.size.within(window.seconds, now)) >= least
        )
        if not sizes:
            return Rate(0, 0)
        middle = sizes[len(sizes) // 2]
        near = sum(abs(size - middle) <= 0.05 * middle for size in sizes)
        return Rate(near, len(sizes))


def bound_logprobs(top: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Return at most five log-probabilities, rounded and cut at -20.

    Raises:
        EgressError: A log-probability is not a number at or below 0.
    """
    for _, value in top:
        if math.isnan(value) or value > _ROUNDING:
            raise EgressError("expected log-probabilities at or below 0")
    best = sorted(top, key=lambda item: -item[1])[:MAX_TOP_LOGPROBS]
    return tuple(
        (token, round(max(value, _FLOOR) / LOGPROB_STEP) * LOGPROB_STEP) for token, value in best
    )


def logprob_bits(count: int = MAX_TOP_LOGPROBS) -> float:
    """The most bits per token that bounded log-probabilities can carry."""
    return count * math.log2(-_FLOOR / LOGPROB_STEP + 1)


class Rescored(msgspec.Struct, frozen=True):
    """A reply generated again from its recorded seed.

    `agreed` of `tokens` came out the same; for the others `choices` says how many tokens the
    sampler could plausibly have given there (their number bounds the bits hidden at that place).
    """

    tokens: int
    agreed: int
    choices: tuple[int, ...]


class Rescorer(Protocol):
    """The hook that generates a reply again; the gateway or an offline job implements it."""

    def rescore(self, row: ExplainedRow) -> Rescored | None:
        """Return the comparison, or None when the reply's record is gone (that is a finding)."""
        ...


class HiddenBits(msgspec.Struct, frozen=True):
    """How many bits a token could carry unseen, from a sample of replies."""

    disagreed: Rate
    bits_per_token: float
    upper_bits_per_token: float
    missing: int


def hidden_bits(
    rows: Sequence[ExplainedRow], rescorer: Rescorer, *, most_choices: int = 64
) -> HiddenBits:
    """Score a sample again and bound the hidden channel.

    A disagreeing token carries at most log2(choices) bits there, and choosing where to disagree
    carries at most the binary entropy of the disagreement rate. Unknown replies count as freely
    chosen: log2(most_choices) bits for each of their tokens.
    """
    if not rows:
        raise ExplainedRowError("expected at least one row to score again")
    tokens = disagreed = missing = 0
    inside = 0.0
    for row in rows:
        result = rescorer.rescore(row)
        if result is None:
            missing += 1
            tokens += row.tokens
            disagreed += row.tokens
            inside += row.tokens * math.log2(most_choices)
            continue
        if not 0 <= result.agreed <= result.tokens:
            raise ExplainedRowError("a rescored reply agrees on more tokens than it has")
        tokens += result.tokens
        off = result.tokens - result.agreed
        disagreed += off
        known = [math.log2(max(1, min(choice, most_choices))) for choice in result.choices[:off]]
        inside += sum(known) + (off - len(known)) * math.log2(most_choices)
    rate = Rate(disagreed, tokens)
    per = inside / tokens if tokens else math.log2(most_choices)
    each = inside / disagreed if disagreed else math.log2(most_choices)
    upper = _binary_entropy(min(rate.upper, 0.5)) + rate.upper * each
    return HiddenBits(
        rate, _binary_entropy(min(rate.value, 0.5)) + per if tokens else per, upper, missing
    )


def _binary_entropy(share: float) -> float:
    if not 0 < share < 1:
        return 0.0
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)
