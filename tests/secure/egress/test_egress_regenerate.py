"""Hidden bits of replies that an upstream generates again."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator, Sequence

import pytest

from safehold.secure.egress.explain.regenerate import (
    DrawnToken,
    UpstreamSampling,
    UpstreamTracer,
    traced,
)
from safehold.secure.egress.interface import ExplainedRowError

WORDS = ("soap ", "is ", "made ", "of ", "fat ", "and ", "lye ")
OTHER = "oil "
LIKELY = {OTHER: -1.0, "tallow ": -3.0, "sand ": -9.0}
SAMPLING = UpstreamSampling(1, 0.0, 1.0)


def says(begun: str) -> list[DrawnToken]:
    """Goes on with the sentence by the number of words that stand there already."""
    rest = WORDS[begun.count(" ") :]
    return [DrawnToken(word, {word: -0.5, **LIKELY}) for word in rest]


def test_reply_as_generated_hides_nothing() -> None:
    """Every token came out the same, in one question."""
    asked = []

    def draw(begun: str) -> Sequence[DrawnToken]:
        asked.append(begun)
        return says(begun)

    found = traced(draw, "".join(WORDS), vocabulary=1000, temperature=0.0)
    assert (found.tokens, found.agreed, found.choices) == (7, 7, ())
    assert asked == [""]


@pytest.mark.parametrize(
    ("put", "temperature", "choices"),
    [
        (OTHER, 0.0, 3),
        ("tallow ", 1.0, 3),
        # Known, but too unlikely to have been drawn: somebody put it there.
        ("sand ", 0.0, 1000),
        # Heat lifts what the list shows as unlikely.
        (OTHER, 1.5, 1000),
    ],
)
def test_token_given_otherwise_counts_its_choices(
    put: str, temperature: float, choices: int
) -> None:
    """One token in the middle was another: its choices count, and what follows agrees again."""
    reply = "".join((*WORDS[:4], put, *WORDS[5:]))
    found = traced(says, reply, vocabulary=1000, temperature=temperature)
    assert (found.tokens, found.agreed, found.choices) == (7, 6, (choices,))


def test_list_that_is_cut_off_counts_all_that_could_be_below_it() -> None:
    """Twenty likely tokens shown say nothing of the twenty-first."""

    def draw(begun: str) -> Sequence[DrawnToken]:
        return [] if begun else [DrawnToken("a", {"a": -0.1, "b": -4.0})]

    assert traced(draw, "b", vocabulary=5000, temperature=0.0).choices == (1000,)


def test_text_that_the_model_never_gives_counts_whole() -> None:
    """Text after the upstream's end, and past the last question, is chosen freely."""
    found = traced(lambda _: [], "xyz", vocabulary=1000, temperature=0.0)
    assert (found.agreed, found.choices) == (0, (1000, 1000, 1000))
    found = traced(says, "q" * 50, vocabulary=1000, temperature=0.0, most_asked=3)
    assert (found.tokens, found.agreed, set(found.choices)) == (50, 0, {1000})


@contextlib.contextmanager
def server(answer: object, seen: list[dict[str, object]]) -> Iterator[str]:
    """An upstream that gives each question the same answer, or goes on with the sentence."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({**asked, "path": self.path, "key": self.headers["Authorization"]})
            begun = asked["messages"][-1]
            begun = begun["content"] if begun["role"] == "assistant" else ""
            content = [
                {
                    "token": one.text,
                    "top_logprobs": [{"token": t, "logprob": p} for t, p in one.likely.items()],
                }
                for one in says(begun)
            ]
            body = {"choices": [{"logprobs": {"content": content}}]} if answer is None else answer
            raw = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}/v1"
        finally:
            served.shutdown()
            thread.join()


def test_upstream_is_asked_to_go_on_with_the_reply() -> None:
    """Seed, log-probabilities and the reply's own beginning are in the questions."""
    seen: list[dict[str, object]] = []
    with server(None, seen) as url:
        tracer = UpstreamTracer(url, "served", vocabulary=1000, key="k")
        reply = "".join((*WORDS[:4], OTHER, *WORDS[5:]))
        found = tracer.traced([{"role": "user", "content": "soap?"}], reply, SAMPLING)
    assert (found.tokens, found.agreed, found.choices) == (7, 6, (3,))
    first, second = seen
    assert (first["path"], first["key"]) == ("/v1/chat/completions", "Bearer k")
    assert (first["seed"], first["model"], first["logprobs"]) == (1, "served", True)
    assert "continue_final_message" not in first
    assert second["continue_final_message"] is True
    assert second["messages"][-1] == {  # type: ignore[index]
        "role": "assistant",
        "content": "soap is made of oil ",
    }


def test_upstream_without_log_probabilities_is_refused() -> None:
    """Nothing measured is no bound: the error says what is missing."""
    with server({"choices": [{"message": {"content": "soap"}}]}, []) as url:
        tracer = UpstreamTracer(url, "served", vocabulary=1000)
        with pytest.raises(ExplainedRowError, match="log-probabilities"):
            tracer.traced([{"role": "user", "content": "hi"}], "soap", SAMPLING)
    with pytest.raises(ExplainedRowError, match="did not answer"):
        tracer.traced([{"role": "user", "content": "hi"}], "soap", SAMPLING)
    with pytest.raises(ExplainedRowError, match="URL"):
        UpstreamTracer("ftp://x", "served", vocabulary=10)
