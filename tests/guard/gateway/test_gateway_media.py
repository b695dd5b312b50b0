"""Images and files that go to a scorer: nothing of them passes without a score from it."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from gateway_wire import PATHS, body_for, ending, post

from safehold.errors import ConfigError
from safehold.guard.gateway.interface import REFUSAL, Rules
from safehold.guard.gateway.media_settings import MediaScorer
from safehold.guard.gateway.policy import Settings, SurfacePolicy
from safehold.guard.ledger.interface import Action, EventKind, EventRow, LedgerVerdict
from safehold.testing.guards import MARKER
from safehold.testing.upstream import says

GOOD, BAD, SLOW, BROKEN, ODD, NOT_A_NUMBER, LONG, AWAY, TWO = (
    f"image-{name}".encode()
    for name in ("good", "bad", "slow", "broken", "odd", "nan", "long", "away", "two")
)
FAILS = (SLOW, BROKEN, ODD, NOT_A_NUMBER, LONG, AWAY, TWO)
SCORES = {GOOD: 0.1, BAD: 0.9}


class Scorer(BaseHTTPRequestHandler):
    """A scorer that knows an image by its bytes; it speaks both forms."""

    asked: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        """Answer with a score, or fail as the image says."""
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))
        plain = "data" in given
        image = given if plain else given["input"][0]["image_url"]
        data = base64.b64decode(image["data"] if plain else image["url"].partition(",")[2])
        self.asked.append(data)
        score: Any = {ODD: 7, NOT_A_NUMBER: float("nan")}.get(data, SCORES.get(data, 0.2))
        result = {"flagged": False, "category_scores": {"weapons": score, "other": 0.0}}
        answer = {"score": score} if plain else {"results": [result] * (1 + (data == TWO))}
        body = json.dumps({} if plain and data == TWO else answer).encode()
        if data == SLOW:
            time.sleep(1.5)
        if data == BROKEN:
            body = b'{"score": '
        if data == LONG:
            body += b" " * (2 << 20)
        self.send_response(503 if data == AWAY else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def scorer() -> Iterator[str]:
    """Return the address of a running scorer."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scorer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def image_part(path: str, data: bytes, url: str | None = None) -> dict[str, Any]:
    """Return an image as a protocol's clients send it."""
    text = base64.b64encode(data).decode()
    shown = url or f"data:image/png;base64,{text}"
    if path == PATHS[0]:
        return {"type": "image_url", "image_url": {"url": shown, "detail": "low"}}
    if path == PATHS[2]:
        return {"type": "input_image", "image_url": shown, "detail": "auto"}
    source = {"type": "base64", "media_type": "image/png", "data": text}
    return {"type": "image", "source": {"type": "url", "url": url} if url else source}


def asks(path: str, *parts: dict[str, Any], stream: bool = False, text: str = "look") -> bytes:
    """Return a request with parts beside a text."""
    kind = "input_text" if path == PATHS[2] else "text"
    content = [{"type": kind, "text": text}, *parts]
    body = body_for(path, "hi", stream=stream)
    body["input" if path == PATHS[2] else "messages"] = [{"role": "user", "content": content}]
    return json.dumps(body).encode()


def scoring(stage: Callable, url: str, *, form: str = "plain", **more: Any) -> Any:
    """Start a gateway whose images go to a scorer."""
    return stage(
        says("It is a zebra."),
        default=SurfacePolicy(rules=Rules(images="score")),
        media_scorer=MediaScorer(url=url, form=form, **{"timeout_s": 60.0} | more),
    )


def media_rows(at: Any) -> list[EventRow]:
    """Return the events of scored images."""
    return [
        row for row in at.ledger.rows if isinstance(row, EventRow) and row.kind is EventKind.MEDIA
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["plain", "moderations"])
@pytest.mark.parametrize("path", PATHS)
def test_image_passes_or_is_blocked_by_its_score(
    stage: Callable, scorer: str, path: str, form: str, *, stream: bool
) -> None:
    """A harmless image is answered, a restricted one refused; each score is in the ledger."""
    at = scoring(stage, scorer, form=form)
    status, _, body = post(at.gateway.port, path, asks(path, image_part(path, GOOD), stream=stream))
    assert status == 200
    assert "zebra" in "".join(item.text for item in at.finals()[-1].delivered)
    assert not stream or ending(path, body) == "done"
    parts = (image_part(path, GOOD), image_part(path, BAD))
    status, _, body = post(at.gateway.port, path, asks(path, *parts, stream=stream))
    assert status == 200
    assert REFUSAL.encode() in body
    assert b"zebra" not in body
    row = at.prompts()[-1]
    assert (row.action, row.verdict, row.clause) == (
        Action.BLOCK,
        LedgerVerdict.BLOCK,
        "media/restricted",
    )
    assert [row.detail["score"] for row in media_rows(at)] == [0.1, 0.1, 0.9]
    assert str(media_rows(at)[0].detail["sha256"]) in str(at.prompts()[0].exchange)


@pytest.mark.parametrize("form", ["plain", "moderations"])
@pytest.mark.parametrize("image", FAILS)
def test_image_without_a_score_releases_nothing(
    stage: Callable, scorer: str, form: str, image: bytes
) -> None:
    """A scorer that is late, broken, away or says nonsense fails closed, with rows."""
    at = scoring(stage, scorer, form=form, timeout_s=0.5 if image == SLOW else 60.0)
    status, _, body = post(at.gateway.port, PATHS[0], asks(PATHS[0], image_part(PATHS[0], image)))
    assert status == 500
    assert b"zebra" not in body
    assert at.prompts()[-1].verdict is LedgerVerdict.UNSCORED
    assert at.finals()[-1].delivered == ()
    assert media_rows(at)[-1].detail["score"] is None


def test_scorer_that_is_not_there_releases_nothing(stage: Callable) -> None:
    """Nobody at the address is a failure like any other; a prompt without images is served."""
    at = scoring(stage, "http://127.0.0.1:9/")
    asked = asks(PATHS[0], image_part(PATHS[0], GOOD))
    assert post(at.gateway.port, PATHS[0], asked)[0] == 500
    assert post(at.gateway.port, PATHS[0], asks(PATHS[0]))[0] == 200


@pytest.mark.parametrize("path", PATHS)
def test_image_that_could_change_is_refused(stage: Callable, scorer: str, path: str) -> None:
    """A link, a stored file, a second picture in one part or broken base64 can't be scored."""
    at = scoring(stage, scorer)
    part = image_part(path, GOOD)
    source = {PATHS[0]: part.get("image_url"), PATHS[1]: part.get("source"), PATHS[2]: part}[path]
    field = {PATHS[0]: "url", PATHS[1]: "data", PATHS[2]: "image_url"}[path]
    before = len(Scorer.asked)
    broken = ["%%%%", "data:image/png;base64,AAA", "data:image/png,AAAA", "aGk=\n", "aGk=="]
    bodies = [asks(path, image_part(path, b"", "https://a.test/cat.png"))]
    for value in broken:
        source[field] = value
        bodies.append(asks(path, part))
    for body in bodies:
        status, _, said = post(at.gateway.port, path, body)
        assert status == 400
        assert b"rules.images" in said
    assert len(Scorer.asked) == before


def test_two_contents_in_one_part_are_refused(stage: Callable, scorer: str) -> None:
    """A file with data and an id beside it would show one thing here and another there."""
    at = scoring(stage, scorer, media_types=("image/", "application/pdf"))
    data = f"data:application/pdf;base64,{base64.b64encode(GOOD).decode()}"
    file = {"filename": "a.pdf", "file_data": data}
    assert post(at.gateway.port, PATHS[0], asks(PATHS[0], {"type": "file", "file": file}))[0] == 200
    both = {"type": "file", "file": file | {"file_id": "file-1"}}
    assert post(at.gateway.port, PATHS[0], asks(PATHS[0], both))[0] == 400


def test_image_inside_a_document_is_no_way_around(stage: Callable, scorer: str) -> None:
    """A picture among a document's text blocks is refused or scored like any other."""
    image = image_part(PATHS[1], BAD)
    blocks = [{"type": "text", "text": "a page"}, image]
    document = {"type": "document", "source": {"type": "content", "content": blocks}}
    at = scoring(stage, scorer)
    assert REFUSAL.encode() in post(at.gateway.port, PATHS[1], asks(PATHS[1], document))[2]
    blocks[1] = {"type": "image"}
    assert post(at.gateway.port, PATHS[1], asks(PATHS[1], document))[0] == 400
    blocks[1] = image
    at = stage(says("It is a zebra."))
    status, _, body = post(at.gateway.port, PATHS[1], asks(PATHS[1], document))
    assert (status, b"rules.images" in body) == (400, True)
    blocks[1] = {"type": "text", "text": "another page"}
    assert post(at.gateway.port, PATHS[1], asks(PATHS[1], document))[0] == 200


def test_name_of_a_file_is_a_part_of_the_prompt(stage: Callable, scorer: str) -> None:
    """A file's name is text that the model may read."""
    at = scoring(stage, scorer, media_types=("image/", "application/pdf"))
    data = f"data:application/pdf;base64,{base64.b64encode(GOOD).decode()}"
    file = {"type": "file", "file": {"filename": f"{MARKER}.pdf", "file_data": data}}
    _, _, body = post(at.gateway.port, PATHS[0], asks(PATHS[0], file))
    assert REFUSAL.encode() in body


def test_type_that_the_scorer_does_not_read_and_too_many_are_refused(
    stage: Callable, scorer: str
) -> None:
    """What the scorer can't read, or would get too much of, is refused by name of the setting."""
    at = scoring(stage, scorer, max_items=2)
    sound = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
    status, _, body = post(at.gateway.port, PATHS[0], asks(PATHS[0], sound))
    assert (status, b"media_scorer.media_types" in body) == (400, True)
    three = [image_part(PATHS[0], GOOD)] * 3
    assert post(at.gateway.port, PATHS[0], asks(PATHS[0], *three))[0] == 413


def test_restricted_words_beside_an_image_ask_no_scorer(stage: Callable, scorer: str) -> None:
    """A prompt that is blocked by its words needs no score of its image."""
    at = scoring(stage, scorer)
    before = len(Scorer.asked)
    asked = asks(PATHS[0], image_part(PATHS[0], GOOD), text=f"say {MARKER}")
    assert REFUSAL.encode() in post(at.gateway.port, PATHS[0], asked)[2]
    assert len(Scorer.asked) == before


def test_categories_choose_what_counts(stage: Callable, scorer: str) -> None:
    """With named categories only their scores count, and a missing one is a failure."""
    at = scoring(stage, scorer, form="moderations", categories=("other",))
    asked = asks(PATHS[0], image_part(PATHS[0], BAD))
    assert REFUSAL.encode() not in post(at.gateway.port, PATHS[0], asked)[2]
    at = scoring(stage, scorer, form="moderations", categories=("unheard",))
    assert post(at.gateway.port, PATHS[0], asked)[0] == 500


def test_score_without_a_scorer_is_refused_at_the_start() -> None:
    """`images: score` without `media_scorer` would let nothing through, or everything."""
    policy = SurfacePolicy(rules=Rules(images="score"))
    with pytest.raises(ConfigError, match="media_scorer"):
        Settings(default=policy)
    Settings(default=policy, media_scorer=MediaScorer(url="http://127.0.0.1:1/"))
