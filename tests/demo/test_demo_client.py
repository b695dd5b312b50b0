"""The demo's client reads both protocols as any client would, from a real gateway."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from safehold.demo.client import play
from safehold.demo.scenes import Scene, SceneProtocol, SceneVerdict
from safehold.errors import UpstreamError
from safehold.guard.gateway.policy import Canary, Settings, Upstream
from safehold.guard.gateway.server import Parts
from safehold.testing.gateway import PATIENT, RunningGateway
from safehold.testing.guards import MARKER, held_rules
from safehold.testing.upstream import MockUpstream, says


class NoLoader:
    """A loader that is never asked."""

    def __call__(self, path: Path) -> object:
        """Refuse."""
        raise UpstreamError(str(path))


@pytest.fixture
def upstream() -> Iterator[MockUpstream]:
    """A scripted model server."""
    with MockUpstream() as server:
        yield server


@pytest.fixture
def base(upstream: MockUpstream, tmp_path: Path) -> Iterator[str]:
    """The URL of a gateway with one written rule in front of the scripted server."""
    settings = Settings(
        port=0,
        upstream=Upstream(url=upstream.url),
        limits=PATIENT,
        ledger=str(tmp_path / "ledger.db"),
        canary=Canary(enabled=False),
        log="none",
    )
    parts = Parts(loader=NoLoader(), held=held_rules())  # type: ignore[arg-type]
    with RunningGateway(settings, parts) as gateway:
        yield gateway.url


@pytest.mark.parametrize("wire", list(SceneProtocol))
@pytest.mark.parametrize("stream", [True, False])
def test_answers_and_blocks_are_read(
    base: str,
    upstream: MockUpstream,
    wire: SceneProtocol,
    stream: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A pass, a block at the prompt and a block in the reply look as the protocol says."""

    def heard(said: str, reply: str) -> tuple[SceneVerdict, str]:
        upstream.script = says(reply)
        found = asyncio.run(play(base, Scene("t", (said,), wire=wire, stream=stream)))
        assert found.decision_id.startswith("sh_")
        return found.verdict, found.text

    assert heard("hello", "Good morning to you.") == (SceneVerdict.ANSWERED, "Good morning to you.")
    assert heard(f"say {MARKER}", "Good morning.")[0] is SceneVerdict.BLOCKED
    verdict, text = heard("hello", f"word {'more ' * 40} {MARKER} and on")
    assert verdict is SceneVerdict.BLOCKED
    assert MARKER not in text


def test_gateway_that_is_not_there_is_one_clear_error() -> None:
    """A refused connection becomes a Safehold error."""
    with pytest.raises(UpstreamError, match="did not answer"):
        asyncio.run(play("http://127.0.0.1:9", Scene("t", ("hello",))))
