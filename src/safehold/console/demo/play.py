"""`safehold console --demo`: a day is played through a real gateway, then the pages are served.

Every exchange goes through the gateway and its guard; only its clock is turned, so that a day
passes in seconds. What people decide (verdicts, approvals, an exemption) is done by the same code
that serves people, with real keys.
"""

import asyncio
import contextlib
import dataclasses
import multiprocessing
import random
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.console.demo import reporting, response
from safehold.console.demo.attackers import attack, submit_bounties
from safehold.console.demo.host import egress_day, endpoint_day, touched_decoy
from safehold.console.demo.partners import share
from safehold.console.demo.people import decide
from safehold.console.demo.questions import DemoQuestion, search_walk, traffic
from safehold.console.demo.releases import DemoReleases, released_bundle, released_settings
from safehold.console.demo.stage import DemoStage
from safehold.console.demo.watchers import decide_standing, watch
from safehold.console.server import serve_console
from safehold.console.sources import GatewayLink
from safehold.detect.monitoring.account_book import AccountBook
from safehold.detect.monitoring.accounts import Caps
from safehold.detect.redteam.questions import questions
from safehold.errors import ConfigError
from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.facts.host import LocalHost
from safehold.govern.controls.library import read_site, stock_catalogue
from safehold.guard.bundle.interface import Manifest
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.bundle.write import write_bundle
from safehold.guard.gateway.bundles.loading import loader_for
from safehold.guard.gateway.policy import Key, Settings, Upstream, digest_key
from safehold.guard.gateway.server import Parts
from safehold.testing.gateway import RunningGateway
from safehold.testing.upstream import MockUpstream, SaidRun, Script, split
from safehold.trust.release.interface import Artefact
from safehold.trust.released.follow import ReleaseLog

HOURS = 24
_AN_HOUR = 18
_HOUR_S = 3600.0
_AT_ONCE = 6
_DELTA_CHARS = 24
_TENANTS = ("bakery", "library", "school", "studio")
_NAMES = ("front-desk", "app", "night-batch", "helpdesk", "tutor", "search", "mail", "kiosk")
_WALKER = 5
_STRICTER = 0.05


class StoryClock:
    """A clock that is turned while the history is played, and the true one afterwards."""

    def __init__(self) -> None:
        self._at: float | None = None

    def __call__(self) -> float:
        """Return the time that the history has reached."""
        return time.time() if self._at is None else self._at

    def turn(self, at: float | None) -> None:
        """Set the time; None lets it run by itself."""
        self._at = at


class ScriptedModel(MockUpstream):
    """A model server that knows beforehand what it will say to each prompt."""

    keep = False

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, str] = {}

    async def _answer(self, path: str, given: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        messages = given.get("messages") or [{}]
        asked = str(messages[-1].get("content", ""))
        text = self.answers.get(asked, "I would rather talk about something else.")
        self.script = Script(said=(SaidRun(split(text, _DELTA_CHARS)),))
        return await super()._answer(path, given, writer)


class Play:
    """A stage, a gateway before it, and a day of traffic."""

    def __init__(self, folder: Path, *, origin: str, seed: int = 7) -> None:
        """Lay the stage under a new folder; the history begins a day before now."""
        if folder.exists():
            shutil.rmtree(folder)
        self.clock, self.random, self.folder = StoryClock(), random.Random(seed), folder
        self.now = time.time()
        self.begins = (self.now - HOURS * _HOUR_S) // _HOUR_S * _HOUR_S
        self.clock.turn(self.begins - _HOUR_S)
        self.stage = DemoStage(folder, origin=origin, clock=self.clock)
        self.model = ScriptedModel()
        self.restricted: set[str] = set()
        self.keys = [f"demo-key-{name}-{secrets.token_hex(12)}" for name in _NAMES]
        self.admin_key = f"demo-admin-{secrets.token_hex(16)}"
        self.releases = DemoReleases(self.stage, folder / "releases")
        self.digests: dict[str, str] = {}
        self._released: list[Artefact] = []
        self._public = folder / "bundles.pub"

    @contextlib.contextmanager
    def gateway(self) -> Iterator[RunningGateway]:
        """Run the gateway with the stock guard, signed for this demo, and a stricter sibling."""
        bundles, public = self._bundles(), self._public
        keys = [
            Key(id=name, sha256=digest_key(key), tenant=_TENANTS[index % len(_TENANTS)])
            for index, (name, key) in enumerate(zip(_NAMES, self.keys, strict=True))
        ]
        keys.append(Key(id="console", sha256=digest_key(self.admin_key), admin=True))
        with self.model:
            settings = Settings(
                port=0,
                upstream=Upstream(url=self.model.url),
                bundle=str(bundles / "guard-a"),
                bundle_keys=(str(public),),
                bundles=str(bundles),
                ledger=self.stage.ledger,
                keys=tuple(keys),
                releases=self.releases.verifier("gateway"),
                log="none",
            )
            self._released = [released_settings(settings)]
            self.release("guard-a", purpose="The guard's first release", ticket="REL-1")
            parts = Parts(loader=loader_for(settings), clock=self.clock)
            with RunningGateway(settings, parts) as running:
                yield running

    def day(self, gateway: RunningGateway, say: Callable[[str], None]) -> None:
        """Play the day, hour by hour, with what people do in it."""
        link = GatewayLink(gateway.url, self.admin_key)
        topic = questions("homebrewing").topics[0]
        for hour in range(HOURS):
            start = self.begins + hour * _HOUR_S
            busy = 1.0 + 0.6 * (9 <= (hour + 8) % 24 <= 18)
            asked = list(traffic(self.random, int(_AN_HOUR * busy), len(self.keys)))
            if hour in {14, 15, 16}:
                asked += search_walk(self.random, topic, _WALKER, 22)
                self.random.shuffle(asked)
            asyncio.run(self._play(gateway.url, asked, start, _HOUR_S))
            if hour == HOURS - 7:
                self.clock.turn(start + _HOUR_S - 1)
                self.release("guard-b", purpose="A stricter prompt threshold", ticket="REL-2")
                link.swap("guard-b")
            if hour % 6 == 5:
                say(f"  played {hour + 1} of {HOURS} hours")
        self.clock.turn(self.now - 60.0)
        book = AccountBook(self._monitor(), caps=Caps())
        book.follow(self.stage.sources.reader)
        self.stage.sources.index.follow()
        decide(self.stage, self.restricted, self.now)
        self.release(
            "guard-c", purpose="Stricter still, after the incident", ticket="REL-3", waits=True
        )
        touched_decoy(self.stage, self.folder / "decoys")
        decide_standing(self.stage)
        watch(self.stage, self.now)
        share(self.stage, self.now, fixes=(self.digests["guard-b"],))
        say("  people have judged, approved and reported")
        self.clock.turn(None)
        self.stage.sources.index.refresh_coverage()

    def measure(self, say: Callable[[str], None]) -> None:
        """Attack the guard, answer what got through, judge the controls; watch a host; report."""
        records = self.folder / "redteam"
        records.mkdir()
        attack(self.folder / "bundles" / "guard-a", self._public, records)
        say("  the red team has attacked the guard")
        response.answered(self.folder / "responses", self._guard, self._public)
        say("  a prompt that passed is answered with a rule; the guard will be trained again")
        run = self.folder / "controls-run.json"
        found = run_controls(stock_catalogue(), LocalHost(), read_site(None))
        run.write_bytes(msgspec.json.encode(found))
        say("  the controls of this host are judged (this is no production host: few hold)")
        submit_bounties(self.stage)
        timeline = egress_day(self.folder / "egress", self.begins, self.now)
        denials = endpoint_day(self.folder / "endpoint.jsonl", self.begins, self.now, self.random)
        say("  a simulated host was watched for a day: its bytes and its programs")
        self.stage.sources = dataclasses.replace(
            self.stage.sources,
            redteam=records,
            controls=run,
            timeline=timeline,
            endpoint=denials,
            response=self.folder / "responses",
            releases=ReleaseLog(self.releases.verifier("console"), self.clock),
            report=self.report(),
        )

    def report(self) -> Path:
        """Build the safeguards report over what is there by now."""
        return reporting.build(
            self.stage,
            self.folder / "report.json",
            run=self.folder / "controls-run.json",
            record=self.folder / "redteam" / "nightly-homebrewing.jsonl",
            bundle=self.digests["guard-b"],
        )

    def respond(self) -> None:
        """Train the incident's challenger and put it before the gates, in a process of its own."""
        spawn = multiprocessing.get_context("spawn")
        args = (self.folder / "responses", self._guard, self._public)
        worker = spawn.Process(target=response.retrained_beside, args=args, daemon=True)
        worker.start()
        worker.join()

    def release(self, name: str, *, purpose: str, ticket: str, waits: bool = False) -> None:
        """Ask for a release with this bundle too; three approve, or two while one is waited for."""
        self._released.append(released_bundle(name, self.digests[name]))
        asked = self.releases.ask(*self._released, purpose=purpose, ticket=ticket)
        names = ("Mara Okoye", "Ines Pereira", "Wei Zhang")
        self.stage.enclave.approve(asked, *names[: 2 if waits else 3])

    @property
    def _guard(self) -> Path:
        return self.folder / "bundles" / "guard-b"

    async def trickle(self, url: str, stop: threading.Event) -> None:
        """Play an exchange now and then, so that open pages have news."""
        while not stop.is_set():
            asked = list(traffic(self.random, 1, len(self.keys)))
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._play(url, asked, None, 0.0)
            await asyncio.sleep(4.0)

    def _monitor(self) -> Any:
        return self.stage.sources.monitor

    async def _play(
        self, url: str, asked: Sequence[DemoQuestion], start: float | None, length_s: float
    ) -> None:
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for first in range(0, len(asked), _AT_ONCE):
                if start is not None:
                    self.clock.turn(start + length_s * first / len(asked))
                some = asked[first : first + _AT_ONCE]
                await asyncio.gather(*(self._one(session, url, one) for one in some))

    async def _one(self, session: aiohttp.ClientSession, url: str, one: DemoQuestion) -> None:
        self.model.answers[one.prompt] = one.reply
        if one.restricted:
            self.restricted.add(one.prompt)
        path = "/v1/messages" if one.messages else "/v1/chat/completions"
        body = {
            "model": "demo-model",
            "max_tokens": 400,
            "stream": one.stream,
            "messages": [{"role": "user", "content": one.prompt}],
        }
        head = {"authorization": f"Bearer {self.keys[one.key]}"}
        async with session.post(url + path, json=body, headers=head) as answer:
            await answer.read()

    def _bundles(self) -> Path:
        """Write the stock guard and stricter ones, signed by a key of the demo."""
        folder = self.folder / "bundles"
        key = Ed25519PrivateKey.generate()
        self._public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        stock, _ = stock_bundle()
        manifest = msgspec.json.decode((stock / "manifest.json").read_bytes(), type=Manifest)
        files = {name: (stock / name).read_bytes() for name in manifest.files}
        for steps, name in enumerate(("guard-a", "guard-b", "guard-c")):
            block = manifest.prompt.block - steps * _STRICTER
            prompt = msgspec.structs.replace(manifest.prompt, block=block)
            title = f"homebrewing{'-stricter' if steps else ''}{f'-{steps}' if steps > 1 else ''}"
            made = msgspec.structs.replace(manifest, name=title, prompt=prompt)
            self.digests[name] = write_bundle(folder / name, made, files, key)
        return folder


def serve_demo(folder: Path, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Play the history, say the link, and serve until interrupted.

    Raises:
        ConfigError: the address is not this machine's own.
    """
    if host not in {"127.0.0.1", "localhost", "::1"}:
        raise ConfigError("the demo's link logs anybody in: it stays on 127.0.0.1")
    origin = f"http://localhost:{port}"
    play = Play(folder, origin=origin)
    say("Playing a day through a guarded gateway (home-brewing stands in for what is restricted)")
    with play.gateway() as running:
        play.day(running, say)
        play.measure(say)
        token = secrets.token_urlsafe(24)
        console = play.stage.console(
            demo=play.stage.door(token, "Ada Novak"),
            gateway=GatewayLink(running.url, play.admin_key),
        )
        say(f"Open {origin}/login/demo?token={token}")
        say("Ctrl-C ends it.")
        stop = threading.Event()
        more = threading.Thread(
            target=lambda: asyncio.run(play.trickle(running.url, stop)), daemon=True
        )
        more.start()
        threading.Thread(target=play.respond, daemon=True).start()
        try:
            serve_console(console, host=host, port=port)
        finally:
            stop.set()
            more.join(10)
