"""What decoded views cost, and how often ordinary text gets one that it should not.

Run `python bench/views.py`. Times are processor time, the least of several runs.
"""

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from safehold.exchange.views import StreamingViews, views
from safehold.stats import upper_bound

_SEEDS = Path(__file__).parents[1] / "src/safehold/improve/synthesis/seeds"
_ENGLISH = (
    "How is malt made, and why does the grain have to be dried before it is milled? I read about "
    "it in a book about farming, and the author said that the germ must be stopped. "
)


def least(work: Callable[[], object], *, runs: int = 7, each: int = 50) -> float:
    """Return the least processor time of one call, in microseconds."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        for _ in range(each):
            work()
        times.append((time.process_time() - start) / each)
    return min(times) * 1e6


def stream(text: str) -> None:
    """Feed a text in deltas of four characters."""
    state = StreamingViews()
    for at in range(0, len(text), 4):
        state.feed(text[at : at + 4])
    state.finish()


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and " " in value:
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def main() -> None:
    """Measure and print."""
    english = (_ENGLISH * 4)[:500]
    hidden = base64.b64encode(english.encode()).decode()
    print(f"views of 500 characters of English:  {least(lambda: views(english)):7.0f} us")
    print(f"views of the same in base64:         {least(lambda: views(hidden)):7.0f} us")
    for name, text in (("English", _ENGLISH * 25), ("base64", hidden * 6)):
        cost = least(lambda text=text: stream(text), runs=3, each=1) / (len(text) / 4)
        print(f"streamed {name}, per 4-character delta: {cost:5.1f} us")
    texts = [
        text
        for file in sorted(_SEEDS.glob("*/*.yaml"))
        for text in _texts(yaml.safe_load(file.read_text("utf-8")))
    ]
    wrong = sum(len(views(text)) > 1 for text in texts)
    bound = upper_bound(wrong, len(texts))
    print(
        f"ordinary texts with a decoded view: {wrong} of {len(texts)}"
        f" ({wrong / len(texts):.2%}, at most {bound:.2%} at 95 %)"
    )


if __name__ == "__main__":
    main()
