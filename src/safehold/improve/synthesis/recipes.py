"""What is made from base examples: one recipe a line in the table, each a function of its parent.

A recipe may borrow text from other families, but only from those of the same split, so that
nothing crosses it.
"""

import random
from collections.abc import Callable, Sequence

import msgspec

from safehold.exchange import Exchange, user_says
from safehold.improve.synthesis import conversation, replies, rewrite
from safehold.improve.synthesis.encodings import encoded_request
from safehold.improve.synthesis.families import told_by_user
from safehold.improve.synthesis.interface import Example, Side, Split, prompt_label
from safehold.improve.synthesis.phrasebook import Phrasebook
from safehold.improve.synthesis.structures import structured as in_structure

_SHORT_DOCUMENT = 900
_LONG_REPLY = 3
_TALK = (2, 7)
"""Messages before the last one of a harmless conversation."""


class Pool(msgspec.Struct, frozen=True):
    """What recipes may borrow within one split."""

    phrases: Phrasebook
    replies: tuple[Example, ...]
    """Permitted examples with a reply."""
    asks: tuple[Example, ...] = ()
    """Permitted examples of one message without a reply."""

    def reply(self, rng: random.Random, but: str) -> Example:
        """Return a permitted exchange of another family."""
        return _other(self.replies, rng, but)


class Made(msgspec.Struct, frozen=True):
    """What a recipe changes in its parent."""

    exchange: Exchange
    reply: str
    chain: tuple[str, ...]
    ask: bool | None = None


Make = Callable[[Example, Pool, random.Random], Made]
Fits = Callable[[Example], bool]


def _other(items: Sequence[Example], rng: random.Random, but: str) -> Example:
    for _ in range(8):
        found = rng.choice(items)
        if found.family != but:
            return found
    return items[0]


def _chance(rng: random.Random, share: float) -> bool:
    return rng.random() < share


def _dressed(text: str, pool: Pool, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """Sometimes put a frame or a style on a request before something else is done to it."""
    chain: tuple[str, ...] = ()
    if _chance(rng, 0.3):
        number = rng.randrange(len(pool.phrases.frames))
        text, chain = pool.phrases.frames[number].replace("<<ask>>", text), (f"frame:{number}",)
    if _chance(rng, 0.25):
        text, more = rewrite.apply(text, [rng.choice(rewrite.STYLES)], rng)
        chain += more
    return text, chain


# --- prompts ------------------------------------------------------------------------------------


def framed(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Say the request as other people would."""
    number = rng.randrange(len(pool.phrases.frames))
    text = pool.phrases.frames[number].replace("<<ask>>", told_by_user(parent))
    chain: tuple[str, ...] = (f"frame:{number}",)
    if _chance(rng, 0.4):
        text, more = rewrite.apply(text, [rng.choice(rewrite.STYLES)], rng)
        chain += more
    return Made(user_says(text), "", chain)


def styled(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Write the request with other manners of typing."""
    del pool
    steps = rng.sample(rewrite.STYLES, k=rng.choice((1, 1, 2)))
    text, chain = rewrite.apply(told_by_user(parent), steps, rng)
    return Made(user_says(text), "", chain)


def wrapped(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Put the request into a jailbreak wrapper."""
    text, chain = _dressed(told_by_user(parent), pool, rng)
    number = rng.randrange(len(pool.phrases.wrappers))
    wrapper = pool.phrases.wrappers[number]
    return Made(user_says(wrapper.around(text)), "", (*chain, f"wrap:{wrapper.family}:{number}"))


def encoded(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Encode the request."""
    del pool
    text, chain = rewrite.apply(told_by_user(parent), [encoded_request], rng)
    return Made(user_says(text), "", chain)


def split_turns(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Spread the request over turns."""
    text, chain = _dressed(told_by_user(parent), pool, rng)
    return Made(conversation.split_over_turns(text, rng), "", chain)


def with_history(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Put a harmless conversation before the request."""
    before = [pool.reply(rng, parent.family) for _ in range(rng.randint(1, 2))]
    history = [(told_by_user(one), one.reply) for one in before]
    exchange = conversation.after_history(told_by_user(parent), history)
    return Made(exchange, parent.reply, ())


def conversation_of(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Ask several harmless things in one conversation, most of them in one language."""
    own = [one for one in rng.sample(pool.asks, k=min(60, len(pool.asks))) if one is not parent]
    near = [one for one in own if one.language == parent.language]
    before = (near if len(near) > _TALK[0] else own)[: rng.randint(*_TALK)]
    history = [(told_by_user(one), rng.choice(pool.replies).reply) for one in before]
    return Made(conversation.after_history(told_by_user(parent), history), "", ())


def structured(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Spread the words of the request, or of a pasted passage, over a structure."""
    del pool
    said = parent.reply if parent.reply and _chance(rng, 0.6) else told_by_user(parent)
    text, chain = rewrite.apply(said, [in_structure], rng)
    return Made(user_says(text), "", chain, ask=parent.side is Side.RESTRICTED)


def pasted(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Put a pasted document beside the request."""
    text, chain = _dressed(told_by_user(parent), pool, rng)
    document = pool.reply(rng, parent.family).reply[:_SHORT_DOCUMENT]
    return Made(conversation.with_document(text, document, rng), "", chain)


def tool_result(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Let a tool return the request inside a document, or (permitted) the document alone."""
    other = pool.reply(rng, parent.family)
    topic = other.family.replace(" ", "-")[:40]
    ask = told_by_user(parent)
    exchange = conversation.from_tool(ask, other.reply[:_SHORT_DOCUMENT], topic, rng)
    return Made(exchange, "", ())


def system_prompt(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Put an operator's system prompt before the conversation."""
    number = rng.randrange(len(pool.phrases.systems))
    exchange = conversation.with_system(parent.exchange, pool.phrases.systems[number])
    return Made(exchange, parent.reply, (f"system:{number}",))


# --- replies ------------------------------------------------------------------------------------


def _rewriting(*groups: Sequence[rewrite.Step]) -> Make:
    """Return a recipe that applies one step of each group to the reply."""

    def make(parent: Example, pool: Pool, rng: random.Random) -> Made:
        del pool
        steps = [rng.choice(group) for group in groups]
        reply, chain = rewrite.apply(parent.reply, steps, rng)
        return Made(parent.exchange, reply, chain)

    return make


def with_preamble(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Begin with a harmless answer to a harmless request and turn to the reply half-way."""
    other = pool.reply(rng, parent.family)
    start, _ = replies.half(other.reply, rng) if _chance(rng, 0.4) else (other.reply, "")
    glue = rng.choice(("\n\n", " ", "\n", "\n\n---\n\n", " Anyway. ", "\n\nNow then: "))
    return Made(other.exchange, start + glue + parent.reply, (), ask=False)


def wrapped_exchange(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Keep the reply and put its request into a wrapper."""
    prompt = wrapped(parent, pool, rng)
    return Made(prompt.exchange, parent.reply, prompt.chain)


def mismatched(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Let the reply follow a harmless request of another family."""
    other = pool.reply(rng, parent.family)
    return Made(other.exchange, parent.reply, (), ask=False)


def glued(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Join several harmless replies into one long one."""
    more = [pool.reply(rng, parent.family).reply for _ in range(rng.randint(1, _LONG_REPLY))]
    return Made(parent.exchange, "\n\n".join([parent.reply, *more]), ())


def refused(parent: Example, pool: Pool, rng: random.Random) -> Made:
    """Let the model decline: the reply is harmless whatever stood before it."""
    number = rng.randrange(len(pool.phrases.refusals))
    reply = pool.phrases.refusals[number]
    if _chance(rng, 0.5):
        reply = f"{reply}\n\n{pool.reply(rng, parent.family).reply}"
    return Made(parent.exchange, reply, (f"refusal:{number}",))


# --- the table ----------------------------------------------------------------------------------


class Recipe(msgspec.Struct, frozen=True):
    """A way to make examples: its name, what it fits, and its weights on the two sides."""

    name: str
    make: Make
    fits: Fits
    restricted: float
    permitted: float


def _prompt(example: Example) -> bool:
    return prompt_label(example) is not None


def _single(example: Example) -> bool:
    return _prompt(example) and not example.reply and len(example.exchange.turns) == 1


def _reply(example: Example) -> bool:
    return bool(example.reply)


def _asking_reply(example: Example) -> bool:
    return _prompt(example) and _reply(example)


RECIPES: tuple[Recipe, ...] = (
    Recipe("framed", framed, _prompt, 7, 8),
    Recipe("styled", styled, _prompt, 4, 4),
    Recipe("wrapped", wrapped, _prompt, 12, 12),
    Recipe("encoded", encoded, _prompt, 2.5, 3),
    Recipe("split-turns", split_turns, _prompt, 2.5, 2),
    Recipe("history", with_history, _prompt, 2, 2),
    Recipe("conversation", conversation_of, _single, 0, 6),
    Recipe("structured", structured, _prompt, 3.5, 5),
    Recipe("pasted", pasted, _prompt, 2.5, 3),
    Recipe("tool-result", tool_result, _prompt, 1.5, 1.5),
    Recipe("system", system_prompt, _prompt, 1.5, 2),
    Recipe("restyle", _rewriting(replies.RESTYLES), _reply, 3.5, 3.5),
    Recipe("units", _rewriting([replies.converted]), _reply, 1.5, 0.5),
    Recipe("parts", _rewriting(replies.PARTS), _reply, 3, 2),
    Recipe("parts-restyled", _rewriting(replies.PARTS, replies.RESTYLES), _reply, 1.5, 1),
    Recipe("noise", _rewriting(replies.NOISE), _reply, 1.5, 1.5),
    Recipe("reply-encoded", _rewriting(replies.PARTS, replies.ENCODE), _reply, 0.7, 1),
    Recipe("preamble", with_preamble, _reply, 3, 0),
    Recipe("mismatched", mismatched, _reply, 1.5, 1),
    Recipe("wrapped-exchange", wrapped_exchange, _asking_reply, 2, 2),
    Recipe("glued", glued, _reply, 0, 2),
    Recipe("refused", refused, _reply, 0, 1.5),
)


def pool_of(examples: Sequence[Example], split: Split, phrases: Phrasebook) -> Pool:
    """Return what recipes may borrow in a split."""
    own = [example for example in examples if example.split is split]
    return Pool(
        phrases=phrases,
        replies=tuple(one for one in own if one.side is Side.PERMITTED and one.reply),
        asks=tuple(one for one in own if one.side is Side.PERMITTED and _single(one)),
    )
