"""Serve recorded answers behind the wire format of a model: no model speaks here.

    python bench/recorded_generator.py BOOKS CONSTITUTION

`BOOKS` is a folder of seed books. For a list, it returns messages of the books about the clause and
stage that the prompt names, one after the other; for a message, the recorded answer to it.
Whoever trains from it says that the answers are recorded. It prints its URL and runs until it is
killed.
"""

import argparse
import json
import re
import time
import zlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from safehold.constitution import Constitution, load
from safehold.improve.synthesis.seeds import folder_books
from safehold.testing.generator import GeneratorServer, generating

_FEW = 3
_COUNT = re.compile(r"numbered list of (\d+)")


class Recorded(GeneratorServer):
    """Answers from books; what it has no record of it declines.

    With a `share` below 1 it has forgotten messages without answer, and the rest of those with one,
    but for the first few of each clause and stage. A smaller share is a part of a larger one.
    """

    def __init__(self, books: Path, constitution: Constitution, share: float = 1.0) -> None:
        super().__init__()
        self._titles = {
            clause.title: clause.id
            for clause in (*constitution.restricted, *constitution.permitted)
        }
        self._stages = {" ".join(one.covers.split()): one.id for one in constitution.stages}
        self._asks: dict[tuple[str, str | None], list[str]] = defaultdict(list)
        self._replies: dict[str, str] = {}
        self._told: Counter[tuple[str, str | None]] = Counter()
        answered: Counter[tuple[str, str | None]] = Counter()
        for book in folder_books(books):
            for item in book.exchanges:
                prompt = " ".join(item.prompt.split())
                few = answered[book.clause, item.stage] < _FEW
                if not (few or zlib.crc32(prompt.encode()) < share * 2**32):
                    continue
                answered[book.clause, item.stage] += 1
                while prompt in self._replies:
                    prompt += " Please."
                self._replies[prompt] = item.reply
                self._asks[book.clause, item.stage].append(prompt)
            for ask in book.prompts:
                text = " ".join(ask.text.split())
                if share == 1.0:
                    self._asks[book.clause, ask.stage].append(text)

    def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return recorded text, or a refusal where there is none."""
        said = body["messages"][-1]["content"]
        self.asked.append(said)
        count = _COUNT.search(said)
        if count is None:
            reply = self._replies.get(" ".join(said.split()))
            return declined() if reply is None else _answer(reply)
        subject = said.splitlines()[0].removeprefix("Subject: ")
        clause = next((c for title, c in self._titles.items() if subject.startswith(title)), "")
        step = re.search(r"The step in question: (.+)", said)
        stage = self._stages.get(step[1]) if step else None
        every = self._asks.get((clause, stage)) or [
            ask for key, asks in self._asks.items() if key[0] == clause for ask in asks
        ]
        every = sorted(every, key=lambda ask: ask not in self._replies)
        if not every:
            return declined()
        start = self._told[clause, stage]
        self._told[clause, stage] += int(count[1])
        taken = [every[at % len(every)] for at in range(start, start + int(count[1]))]
        return _answer("\n".join(f"{n}. {ask}" for n, ask in enumerate(taken, 1)))


def declined() -> tuple[int, bytes]:
    """Return the answer of who has nothing recorded."""
    return _answer("Sorry, nothing is recorded.")


def _answer(text: str) -> tuple[int, bytes]:
    message = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return 200, json.dumps(message).encode()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("books", type=Path, help="folder of seed books")
    parser.add_argument("constitution", help="name or file")
    given = parser.parse_args()
    with generating(Recorded(given.books, load(given.constitution))) as running:
        print(running.url, flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
