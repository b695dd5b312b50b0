"""The output-token channel: quotas, bounded log-probabilities, hidden bits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import EgressError
from safehold.secure.egress.explain.ledger import START, ExplainedRow
from safehold.secure.egress.explain.tokens import (
    Rescored,
    TokenLedger,
    TokenQuota,
    bound_logprobs,
    hidden_bits,
    logprob_bits,
)
from safehold.secure.egress.interface import ExplainedRowError, Window


def reply(account: str, size: int, at: float = 100.0, tokens: int = 10) -> ExplainedRow:
    """A reply to an account."""
    return ExplainedRow(
        sender="gateway",
        flow="replies",
        seq=0,
        prev=START,
        start=at,
        end=at,
        size=size,
        items=1,
        digest="0" * 64,
        account=account,
        tokens=tokens,
    )


class FakeRescorer:
    """A rescorer that always answers the same."""

    def __init__(self, answer: Rescored | None) -> None:
        self.answer = answer

    def rescore(self, row: ExplainedRow) -> Rescored | None:
        """Return the canned answer."""
        del row
        return self.answer


QUOTA = TokenQuota(size={Window.DAY: 10_000}, tokens={Window.DAY: 1_000})


def test_account_over_its_bytes_or_tokens_is_named() -> None:
    """Each quota alone is enough to be over."""
    ledger = TokenLedger()
    for row in (reply("a", 10_000), reply("b", 10, tokens=1_000), reply("c", 10)):
        ledger = ledger.add(row)
    assert ledger.over({}, QUOTA, 200.0) == ["a", "b"]
    assert ledger.over({}, QUOTA, 200.0 + 2 * 86_400) == []


def test_many_accounts_of_one_thief_look_alike() -> None:
    """Accounts that all took the same are counted."""
    ledger = TokenLedger()
    for number in range(20):
        ledger = ledger.add(reply(f"thief{number}", 9_000 + number))
    assert ledger.crowd(200.0, Window.DAY, 1_000).events == 20


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(-1e6, 0)), max_size=40))
def test_logprobs_are_few_and_coarse(top: list[tuple[str, float]]) -> None:
    """At most five leave, on a grid of 81 values."""
    bounded = bound_logprobs(top)
    assert len(bounded) <= 5
    assert all(-20 <= value <= 0 and (value / 0.25).is_integer() for _, value in bounded)


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf])
def test_impossible_logprob_is_refused(value: float) -> None:
    """A positive or undefined log-probability is a smuggled number."""
    with pytest.raises(EgressError):
        bound_logprobs([("x", value)])


def test_verified_replies_bound_the_channel() -> None:
    """With 2 % of tokens off and few choices a token hides a fraction of a bit."""
    found = hidden_bits(
        [reply("a", 1)] * 50, FakeRescorer(Rescored(tokens=100, agreed=98, choices=(4, 4)))
    )
    assert found.disagreed.events == 100
    assert 0.1 < found.bits_per_token <= found.upper_bits_per_token < 0.3
    assert found.upper_bits_per_token < logprob_bits()


def test_missing_record_counts_as_freely_chosen() -> None:
    """A reply that can't be scored again may have hidden six bits in each token."""
    found = hidden_bits([reply("a", 1)] * 10, FakeRescorer(None))
    assert found.missing == 10
    assert found.upper_bits_per_token >= 6


def test_impossible_rescore_is_refused() -> None:
    """More agreement than tokens, or no rows at all, is an error."""
    with pytest.raises(ExplainedRowError):
        hidden_bits([reply("a", 1)], FakeRescorer(Rescored(1, 2, ())))
    with pytest.raises(ExplainedRowError):
        hidden_bits([], FakeRescorer(None))
