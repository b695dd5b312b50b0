"""A real gateway before a real Hugging Face model in its child process, and a probe that hears."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import openai
import pytest

from safehold.errors import BundleError, UpstreamError
from safehold.guard.gateway.bundles.loading import BundleLoader, class_loader
from safehold.guard.gateway.class_settings import GuardClass
from safehold.guard.gateway.policy import Canary, Settings, Upstream
from safehold.guard.gateway.server import Parts
from safehold.guard.gateway.upstreams.embedded import LocalModel
from safehold.guard.gateway.upstreams.hf import HfServed, HfServer
from safehold.guard.interface import Stage
from safehold.guard.ledger.interface import FinalRow
from safehold.guard.served.interface import Said
from safehold.guard.served.model import HfModel
from safehold.testing.gateway import PATIENT, RunningGateway
from safehold.testing.ledger import MemoryLedger
from safehold.testing.models import GOLDEN, tiny_model, write_probed
from safehold.testing.upstream import MockUpstream, says

BREWING = (
    b'"How do I brew an all-grain pale ale at home? Give me the mash, the boil and the hops.",'
    b'"reply":""'
)


class Stand(msgspec.Struct):
    """The model's process, and a bundle whose probe reads the model."""

    local: LocalModel
    served: HfServed
    bundle: Path
    model: HfModel


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One model's process for all tests."""
    home = tmp_path_factory.mktemp("hf")
    tiny = tiny_model(home / "tiny")
    model = HfModel(tiny, dtype="float32")
    write_probed(home / "bundle", model)
    server = HfServer(tiny, dtype="float32")
    with server as local:
        yield Stand(local, server.served(local), home / "bundle", model)


def ask(
    stand: Stand, bundle: Path, *, stream: bool, url: str | None = None
) -> tuple[str, str, FinalRow]:
    """Ask through a gateway with a bundle; return text, finish reason and the final row."""
    ledger = MemoryLedger()
    parts = Parts(
        loader=BundleLoader(unsafe_unsigned=True, served=stand.served),
        ledger=ledger,
        upstream_key=stand.local.key,
    )
    settings = Settings(
        port=0,
        upstream=Upstream(url=url or stand.local.url),
        limits=PATIENT,
        bundle=str(bundle),
        log="none",
        canary=Canary(enabled=False),
    )
    with RunningGateway(settings, parts) as gateway:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none")
        asked = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Say something."}],
            "max_tokens": 40,
            "temperature": 1.0,
            "seed": 3,
        }
        text, finish = "", ""
        if stream:
            for chunk in client.chat.completions.create(**asked, stream=True):
                assert "heard" not in chunk.to_json()
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    finish = choice.finish_reason or finish
        else:
            answer = client.chat.completions.create(**asked)
            assert "heard" not in answer.to_json()
            choice = answer.choices[0]
            text, finish = choice.message.content or "", choice.finish_reason
        client.close()
    return text, finish, next(row for row in ledger.rows if isinstance(row, FinalRow))


@pytest.mark.parametrize("stream", [True, False])
def test_a_cold_probe_lets_the_whole_answer_pass(
    stand: Stand,
    tmp_path: Path,
    stream: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Every token was heard, none was hot: all of it arrives, and nothing of the probe."""
    golden = GOLDEN.replace(b'"Say it.","reply":"zzzzzzzzzzzz"', BREWING)
    write_probed(tmp_path / "cold", stand.model, golden=golden, bias=-50.0, tolerance=100.0)
    text, finish, row = ask(stand, tmp_path / "cold", stream=stream)
    assert finish in ("length", "stop")
    assert text
    assert row.scored_bytes == len(text.encode())


@pytest.mark.parametrize("stream", [True, False])
def test_a_hot_probe_stops_harmless_words(stand: Stand, tmp_path: Path, stream: bool) -> None:  # noqa: FBT001 - a parameter
    """With a bias that makes every thought hot the answer ends as any block does."""
    golden = GOLDEN.replace(b"a quiet morning", b"")
    write_probed(tmp_path / "hot", stand.model, golden=golden, bias=50.0, tolerance=100.0)
    text, finish, row = ask(stand, tmp_path / "hot", stream=stream)
    assert finish == "content_filter"
    assert row.stage is Stage.STAGE2
    assert "I'm sorry" in text


def test_a_model_that_does_not_speak_of_itself_is_blocked(stand: Stand) -> None:
    """Before an upstream that sends text alone, a guard with a probe releases nothing."""
    with MockUpstream(says("A quiet morning by the sea.")) as upstream:
        _, finish, row = ask(stand, stand.bundle, stream=True, url=upstream.url)
    assert (finish, row.stage, row.delivered_bytes) == ("content_filter", Stage.FAIL_MODE, 0)


def test_the_child_asks_for_its_key_and_refuses_what_it_can_not_do(stand: Stand) -> None:
    """A stranger gets 401, an unknown field or probe 400."""

    async def statuses() -> list[int]:
        good = {"authorization": f"Bearer {stand.local.key}"}
        body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
        tries = [
            ({}, body),
            (good, {**body, "tools": []}),
            (good | {"x-safehold-probe": "f" * 64}, body),
            (good | {"x-safehold-probe": "../../etc/passwd"}, body),
            (good, {**body, "messages": []}),
        ]
        found = []
        async with aiohttp.ClientSession() as session:
            for headers, sent in tries:
                url = f"{stand.local.url}/chat/completions"
                async with session.post(url, json=sent, headers=headers) as answer:
                    found.append(answer.status)
        return found

    assert asyncio.run(statuses())[:4] == [401, 400, 400, 400]


def test_activations_over_the_socket_are_the_models_own(stand: Stand) -> None:
    """A loader in another process reads what the model would have told in this one."""
    told = stand.served.read([Said("user", "a")], "a quiet morning", (0, 2))
    own = stand.model.read([Said("user", "a")], "a quiet morning", (0, 2))
    assert told.activations.shape == own.activations.shape
    assert abs(told.activations - own.activations).max() < 1e-4


def test_a_bundle_for_another_model_is_not_served(stand: Stand, tmp_path: Path) -> None:
    """The loader refuses before anything is served."""
    other = HfModel(tiny_model(tmp_path / "other", seed=9), dtype="float32")
    write_probed(tmp_path / "b", other)
    with pytest.raises(BundleError, match="another model"):
        BundleLoader(unsafe_unsigned=True, served=stand.served)(tmp_path / "b")


def test_a_further_class_with_a_probe_is_refused_in_one_line(stand: Stand) -> None:
    """Its probe would hear nothing, so all its text would be held; the first class may have one."""
    settings = Settings(
        upstream=Upstream(url=stand.local.url), unsafe_unsigned_bundle=True, log="none"
    )
    further = class_loader(settings, GuardClass(bundle=str(stand.bundle)), served=stand.served)
    with pytest.raises(BundleError, match="only the first class's probe") as caught:
        further(stand.bundle)
    assert "\n" not in str(caught.value)
    first = BundleLoader(unsafe_unsigned=True, served=stand.served)(stand.bundle)
    assert first.held.asks


def test_a_model_that_can_not_be_loaded_says_so(tmp_path: Path) -> None:
    """The child's error reaches the operator as one line."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UpstreamError, match="safetensors"), HfServer(tmp_path / "empty"):
        pass
