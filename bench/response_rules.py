"""Hot rules: what each catches of its own family, and what it costs benign texts.

One rule for each dress of the red team that is long enough to tell. Benign texts are the seed
books' calibration split and, where SAFEHOLD_EVAL_DATA is set, everything benign in its `dev` part.
`python -m bench.response_rules --quick` takes every sixth dress.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from bench.tables import Table

from safehold.constitution.library import load
from safehold.detect.redteam.questions import questions, wrappers
from safehold.guard.bundle.load import load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.scorers.rules import RuleSet
from safehold.guard.session.decoding import ViewDecoder
from safehold.improve.evaluation.interface import Label
from safehold.improve.evaluation.items import data_files, read_items
from safehold.improve.response.corpus import of_seed_books
from safehold.improve.response.hotrule import hot_rule, searched
from safehold.improve.response.incident import dress_of
from safehold.improve.response.interface import Incident, IncidentKind, ResponseError
from safehold.improve.response.judged import Judge
from safehold.improve.response.proliferate import ProliferateSettings, variants
from safehold.stats import Rate

DOMAIN = "homebrewing"


def dev_texts() -> list[str]:
    """Return the benign prompts of the evaluation data's `dev` part, where it is there."""
    root = os.environ.get("SAFEHOLD_EVAL_DATA")
    if not root:
        return []
    files = [one for one in data_files(Path(root))[0] if "dev" in one.as_posix()]
    found: list[str] = []
    for file in files:
        items = read_items(file, "", unlabelled=Label.BENIGN).items
        own = [one.prompt for one in items if one.label is Label.BENIGN]
        found += ["\n".join(part.text for part in prompt.texts()) for prompt in own]
    return [text for text in dict.fromkeys(found) if text.strip()]


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's call
    """Measure every dress, or every sixth."""
    folder, pinned = stock_bundle()
    judge = Judge(load_bundle(folder, pinned))
    corpus = of_seed_books(load(DOMAIN), 1)
    topic = questions(DOMAIN).topics[0]
    shipped = corpus.benign(2_000, 1)
    decoder = ViewDecoder()
    benign = {"shipped": [decoder.views(text) for text in shipped]}
    if dev := dev_texts():
        benign["dev"] = [decoder.views(text) for text in dev]
    caught = [0, 0]
    under: list[str] = []
    rules: list[RuleSet] = []
    none = 0
    began = time.process_time()
    for number, worn in enumerate(wrappers()):
        if "<<ask>>" not in worn.text or (quick and number % 6):
            continue
        incident = Incident(
            id=f"r{number}",
            kind=IncidentKind.MISS,
            at=1,
            text=worn.around(topic.questions[0]),
            clause=topic.clause,
            source="bench",
            reporter="bench",
            confirmed_by="bench",
        )
        dress = dress_of(incident, judge, ask=topic.questions[0])
        made = variants(dress, corpus.asks(), ProliferateSettings(learnt=4, held_out=64))
        try:
            found = hot_rule(incident, dress, made, shipped[:300], sources={}, owner="bench", now=1)
        except ResponseError:
            none += 1
            continue
        rules.append(searched(found.rule))
        caught[0] += found.caught.events
        caught[1] += found.caught.n
        if found.caught.value < 0.9:
            under.append(f"{number} ({found.caught.value:.0%})")
    spent = time.process_time() - began
    rows = [
        ("rules", f"{len(rules)}; {none} dresses are too short for one"),
        ("held-out variants of the own family caught", Rate(*caught).at_least()),
        ("rules that catch less than 90 % of theirs", ", ".join(under) or "none"),
        ("CPU s a rule, with its cost on 300 texts", f"{spent / max(len(rules), 1):.2f}"),
    ]
    for name, texts in benign.items():
        hit = sum(any(_hits(one, seen) for one in rules) for seen in texts)
        rows.append((f"benign texts that any rule hits: {name}", Rate(hit, len(texts)).at_most()))
    return [Table("Hot rules", ("what", "measured"), tuple(rows))]


def _hits(rules: RuleSet, seen: Sequence[str]) -> bool:
    return any(rules.search(view) is not None for view in seen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    for table in run(parser.parse_args().quick):
        print(table.markdown())
