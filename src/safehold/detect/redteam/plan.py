"""Which attacks a run makes: drawn by a seed, spread over questions, wrappers and chains."""

import hashlib
import random
from collections.abc import Iterator

import msgspec

from safehold.detect.redteam.interface import AttackedPart, Attempt, QuestionSet, Wrapper
from safehold.detect.redteam.target import REPLY_AS, asked_as
from safehold.detect.redteam.transforms import TRANSFORMS, apply, chains, instruction
from safehold.exchange import Exchange, user_says


class AttackPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was asked for; equal plans draw equal attempts."""

    domain: str
    seed: int
    attempts: int
    depth: int
    surface: AttackedPart
    bundle: str = ""
    benign: bool = True


def draw(
    plan: AttackPlan, questions: QuestionSet, wrappers: tuple[Wrapper, ...]
) -> Iterator[Attempt]:
    """Yield every question plain, every question's benign neighbours, then mixed attacks.

    Of the mixed ones a third are transforms alone, a third wrappers alone, a third both; every
    transform and every wrapper is used about equally often; one in eight asks for an encoded
    reply. Benign questions are dressed alike, so that a false alarm on dress shows: in a wrapper
    each, one in every transform, and one for every code that an answer may be asked in.
    """
    rng = random.Random(f"{plan.seed}/{plan.domain}")
    asks = [(topic, ask) for topic in questions.topics for ask in topic.questions]
    count = 0
    for topic, ask in asks[: plan.attempts]:
        count += 1
        yield attempt_of(plan, ask, topic.id, topic.clause)
    if plan.benign:
        for one in questions.benign:
            yield attempt_of(plan, one.text, None, one.clause)
        for number, one in enumerate(questions.benign):
            wrapper = (number * 7 + plan.seed) % len(wrappers)
            yield attempt_of(plan, one.text, None, one.clause, wrapper, wrappers[wrapper].family)
        yield from _twins(plan, questions)
    order = [one.name for one in TRANSFORMS]
    rng.shuffle(order)
    turn = 0
    seen: set[str] = set()
    while count < plan.attempts:
        topic, ask = rng.choice(asks)
        kind = turn % 3
        wrapper = -1 if kind == 0 else (turn // 3) % len(wrappers)
        chain = () if kind == 1 else _chain(rng, order, turn, plan.depth)
        reply_as = rng.choice(REPLY_AS) if rng.randrange(8) == 0 else None
        family = "none" if wrapper < 0 else wrappers[wrapper].family
        attempt = attempt_of(plan, ask, topic.id, topic.clause, wrapper, family, chain, reply_as)
        turn += 1
        if attempt.id not in seen and (wrapper >= 0 or chain):
            seen.add(attempt.id)
            count += 1
            yield attempt


def _twins(plan: AttackPlan, questions: QuestionSet) -> Iterator[Attempt]:
    """Yield a benign question for each transform and for each code of a reply."""
    asked = questions.benign
    ways = [((one.name,), None) for one in TRANSFORMS] + [((), name) for name in REPLY_AS]
    for number, (chain, reply_as) in enumerate(ways if asked else ()):
        one = asked[(number * 11 + plan.seed) % len(asked)]
        yield attempt_of(plan, one.text, None, one.clause, chain=chain, reply_as=reply_as)


def _chain(rng: random.Random, order: list[str], turn: int, depth: int) -> tuple[str, ...]:
    """Take single transforms in turn, deeper chains by lot."""
    deep = rng.randint(1, depth)
    return (order[turn % len(order)],) if deep == 1 else chains(rng, depth=deep)


def attempt_of(
    plan: AttackPlan,
    ask: str,
    topic: str | None,
    clause: str,
    wrapper: int = -1,
    family: str = "none",
    chain: tuple[str, ...] = (),
    reply_as: str | None = None,
) -> Attempt:
    """Return one attack as data, its id taken from what is played."""
    key = msgspec.json.encode((plan.domain, ask, wrapper, chain, reply_as, plan.surface))
    return Attempt(
        id=hashlib.sha256(key).hexdigest()[:16],
        question=ask,
        topic=topic,
        clause=clause,
        wrapper=wrapper,
        wrapper_family=family,
        chain=chain,
        reply_as=reply_as,
        surface=plan.surface,
    )


def rendered(attempt: Attempt, wrappers: tuple[Wrapper, ...]) -> Exchange:
    """Return the exchange that an attempt sends: the request transformed, then wrapped."""
    text = apply(attempt.question, attempt.chain)
    told = instruction(attempt.chain)
    if told:
        text = f"{told}\n{text}"
    if attempt.wrapper >= 0:
        text = wrappers[attempt.wrapper].around(text)
    if attempt.reply_as is not None:
        text = f"{text}\n{asked_as(attempt.reply_as)}"
    return user_says(text)
