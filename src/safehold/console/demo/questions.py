"""What the demo's people ask, and what the scripted model answers: everyday, or home-brewing.

The restricted questions and answers are the red team's own, about the harmless stand-in.
"""

import random
from collections.abc import Iterator

import msgspec

from safehold.detect.redteam.interface import Topic
from safehold.detect.redteam.questions import questions
from safehold.detect.redteam.transforms import apply

_SUBJECTS = (
    "a sourdough loaf", "a wool jumper", "a bicycle chain", "a herb garden", "a wooden bench",
    "a train journey to Lisbon", "a spreadsheet of expenses", "a letter to the landlord",
    "a birthday quiz", "a bar of olive soap", "a tomato bed", "a chess opening",
    "a short story about a lighthouse", "a Python script that renames files", "a pot of jam",
)  # fmt: skip
_ASKS = (
    "How do I begin with {one} if I have never done it before?",
    "Give me three tips for {one}.",
    "What usually goes wrong with {one}, and how do I avoid it?",
    "Explain {one} to a ten-year-old.",
    "Write a short checklist for {one}.",
    "How long does {one} take, and what does it cost?",
)
_ANSWERS = tuple(
    """\
Begin small, note what you do, and change one thing at a time. Most people give up early.
First gather what you need. Then set aside an hour without a phone. Third, ask a friend to look.
The usual mistake is haste. Read the whole plan once, lay everything out, and keep the first try.
""".splitlines()
)


class DemoQuestion(msgspec.Struct, frozen=True):
    """One exchange to play: who asks, what, over which protocol, and what the model says."""

    key: int
    prompt: str
    reply: str
    messages: bool
    stream: bool
    restricted: bool


def _everyday(rng: random.Random) -> tuple[str, str]:
    return rng.choice(_ASKS).format(one=rng.choice(_SUBJECTS)), rng.choice(_ANSWERS)


def traffic(rng: random.Random, count: int, keys: int) -> Iterator[DemoQuestion]:
    """Yield one hour of traffic: mostly everyday, a little of it restricted."""
    asked = questions("homebrewing")
    for _ in range(count):
        key = rng.randrange(keys)
        kind = rng.random()
        if kind < 0.07:
            topic = rng.choice(asked.topics)
            prompt, reply = rng.choice(topic.questions), topic.passage
        elif kind < 0.16 and asked.benign:
            prompt, reply = rng.choice(asked.benign).text, rng.choice(_ANSWERS)
        elif kind < 0.18:
            prompt, reply = _everyday(rng)[0], rng.choice(asked.topics).passage
        else:
            prompt, reply = _everyday(rng)
        restricted = kind < 0.07
        messages, stream = rng.random() < 0.3, rng.random() < 0.6
        yield DemoQuestion(key, prompt, reply, messages, stream, restricted)


def search_walk(rng: random.Random, topic: Topic, key: int, count: int) -> Iterator[DemoQuestion]:
    """Yield what an account sends that looks for a wording that gets through."""
    ask = topic.questions[0]
    openers = ("Please, ", "For my novel: ", "Asking again: ", "In short, ", "Step by step, ", "")
    tails = ("", " Be brief.", " It is only for a story.", " Answer as a list.", " Thanks!")
    for turn in range(count):
        text = rng.choice(openers) + ask + rng.choice(tails) + " " * (turn % 3)
        if turn % 5 == 4:
            text = apply(ask, (rng.choice(("base64", "rot13", "leet")),))
        yield DemoQuestion(key, text, topic.passage, turn % 2 == 0, stream=False, restricted=True)
