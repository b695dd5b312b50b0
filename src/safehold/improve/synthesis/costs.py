"""What a run of a generator will ask for and cost, told before the first call is made."""

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from safehold.improve.synthesis.calls import CallBook
from safehold.improve.synthesis.cells import Cell
from safehold.improve.synthesis.chat import ChatSettings
from safehold.improve.synthesis.generator import ModelGenerator
from safehold.improve.synthesis.interface import Side
from safehold.improve.synthesis.recipes import RECIPES

_CHARS = 4
"""Characters for a token of a prompt: right for English, low for scripts that cost more."""
_ASK_TOKENS = 30
_ANSWER_TOKENS = 350
_MILLION = 1_000_000


class Price(msgspec.Struct, frozen=True):
    """What a million tokens cost, of prompts and of answers, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """Calls, tokens and cost of a part of the run."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class CallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run and its parts; `paid` are the first calls whose answers are there already.

    Repairs and fills come on top: at most `repairs` times the calls again for each unusable answer.
    """

    total: Expected
    paid: int
    clauses: dict[str, Expected]
    neighbours: dict[str, Expected]
    languages: dict[str, Expected]
    forms: dict[str, Expected]
    difficulties: dict[str, Expected]
    styles: dict[str, float]
    """Share of the finished examples that each recipe makes, without any call."""


def call_plan(
    generator: ModelGenerator, settings: ChatSettings, book: CallBook, price: Price, *, seed: int
) -> CallPlan:
    """Return what a generator is going to ask for, as far as that is known beforehand."""
    rows = []
    paid = 0
    for cell, call in generator.first_calls(seed):
        paid += book.has(call)
        asks = _tokens([message["content"] for message in call.messages])
        answer = _tokens(
            [one["content"] for one in generator.answer_messages(cell, " " * _CHARS * _ASK_TOKENS)]
        )
        prompt = asks + settings.batch * answer
        completion = settings.batch * (_ASK_TOKENS + min(settings.max_tokens, _ANSWER_TOKENS))
        rows.append((cell, _expected(1 + settings.batch, prompt, completion, price)))
    near = [row for row in rows if row[0].side is Side.PERMITTED]
    total = sum(recipe.restricted + recipe.permitted for recipe in RECIPES)
    return CallPlan(
        total=_sum([row for _, row in rows]),
        paid=paid,
        clauses=_by([row for row in rows if row[0].side is Side.RESTRICTED], "group"),
        neighbours=_by(near, "group"),
        languages=_by(rows, "language"),
        forms=_by(rows, "form"),
        difficulties=_by(rows, "difficulty"),
        styles={
            recipe.name: round((recipe.restricted + recipe.permitted) / total, 3)
            for recipe in RECIPES
        },
    )


def _tokens(texts: Sequence[str]) -> int:
    return sum(-(-len(text) // _CHARS) for text in texts)


def _expected(calls: int, prompt: int, completion: int, price: Price) -> Expected:
    cost = (prompt * price.prompt + completion * price.completion) / _MILLION
    return Expected(calls=calls, prompt_tokens=prompt, completion_tokens=completion, cost=cost)


def _sum(rows: Sequence[Expected]) -> Expected:
    return Expected(
        calls=sum(row.calls for row in rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        cost=sum(row.cost for row in rows),
    )


def _by(rows: Sequence[tuple[Cell, Expected]], key: str) -> dict[str, Expected]:
    parts: dict[str, list[Expected]] = defaultdict(list)
    for cell, row in rows:
        parts[str(getattr(cell, key))].append(row)
    return {name: _sum(own) for name, own in parts.items()}
