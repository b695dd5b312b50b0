"""What every drill of a response stands on: champion, gateway, client, persons, clock."""

import asyncio
import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import SafeholdError
from safehold.guard.bundle.load import Bundle
from safehold.guard.ledger.interface import PromptRow
from safehold.guard.session.cascade import Thresholds
from safehold.http_ask import ask, object_of
from safehold.improve.response.corpus import Corpus
from safehold.improve.response.gates import GateReport
from safehold.improve.response.rule_book import RuleBook
from safehold.progress import Progress

if TYPE_CHECKING:
    from safehold.demo.gateways import DemoGateway
    from safehold.detect.redteam.interface import QuestionSet
    from safehold.guard.overlay.interface import HotRule
    from safehold.improve.response.case import IncidentCase

PERSONS = ("duty-officer", "safety-lead")
DOMAIN = "homebrewing"
WAIT_S = 60.0
_PAUSE_S = 0.2
Say = Callable[[str], None]
Weaken = Callable[[Bundle, Corpus], Thresholds]
"""Says at which thresholds of prompts the stock bundle is the drill's champion."""


class Mark(msgspec.Struct, frozen=True):
    """One reading of the drill's clock: what was reached, after how long, and what was seen."""

    what: str
    seconds: float
    says: str


class DrillResult(msgspec.Struct, frozen=True):
    """The clock, the gates, and the two bundles."""

    marks: tuple[Mark, ...]
    report: GateReport
    champion: str
    challenger: str
    verified: bool


class DrillClock:
    def __init__(self, say: Say) -> None:
        self._began = time.monotonic()
        self._say = say
        self.marks: list[Mark] = []

    def mark(self, what: str, says: str) -> None:
        seconds = time.monotonic() - self._began
        self.marks.append(Mark(what, seconds, says))
        self._say(f"{seconds:7.1f} s  {what:14}  {says}")


@contextlib.contextmanager
def complying_target(found: "QuestionSet") -> Iterator[str]:
    """Serve the always-complying target on a thread; yield its base URL."""
    from safehold.detect.redteam.target import Complier
    from safehold.detect.redteam.target_server import serving

    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with serving(Complier(found)) as url:
            urls.append(url)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        if not ready.wait(WAIT_S):
            raise SafeholdError("the drill's target did not start")
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(WAIT_S)
        loop.close()


def post(url: str, body: dict[str, Any], key: str = "") -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    answer = ask(url, data=json.dumps(body).encode(), headers=headers, timeout_s=WAIT_S)
    return object_of(answer, of=url)


class DrillAnswer(msgspec.Struct, frozen=True):
    """What a client got, and what the ledger says of the prompt."""

    text: str
    asked: PromptRow

    @property
    def stopped(self) -> bool:
        """Whether the prompt itself was refused."""
        from safehold.guard.ledger.interface import LedgerVerdict

        return self.asked.verdict is LedgerVerdict.BLOCK


class DrillClient:
    """A client of the gateway, who also reads its ledger."""

    def __init__(self, served: "DemoGateway") -> None:
        from safehold.guard.ledger.reader import LedgerReader

        self._url = f"{served.url}/v1/chat/completions"
        self._ledger = LedgerReader.open(str(served.ledger))

    def ask(self, text: str) -> DrillAnswer:
        answer = post(
            self._url, {"model": "drill", "messages": [{"role": "user", "content": text}]}
        )
        rows = [one.row for one in self._ledger.tail(20)]
        asked = [row for row in rows if isinstance(row, PromptRow)]
        if not asked:
            raise SafeholdError("the gateway's ledger holds no row of the drill's request")
        return DrillAnswer(str(answer["choices"][0]["message"]["content"] or ""), asked[-1])


class DrillStage(msgspec.Struct, frozen=True):
    """What an operator has long had before the clock starts."""

    folder: Path
    short: bool
    seed: int
    champion: Bundle
    champion_folder: Path
    key: Ed25519PrivateKey
    corpus: Corpus
    persons: dict[str, Ed25519PrivateKey]
    book: RuleBook
    admin: str

    @property
    def benign(self) -> list[str]:
        """The operator's own benign texts."""
        return self.corpus.benign(600 if self.short else 1_600, self.seed)


def set_up(folder: Path, *, short: bool, seed: int, weaken: Weaken) -> DrillStage:
    """Prepare a new folder: keys of two persons, a book of rules, and the champion.

    Raises:
        SafeholdError: The folder exists, or the domain has no books.
    """
    from safehold.constitution.library import load
    from safehold.guard.bundle.load import SignedBy, load_bundle
    from safehold.guard.bundle.overlay_file import quorum_of
    from safehold.guard.bundle.signing import load_or_make_key, load_public_key
    from safehold.improve.response.corpus import of_seed_books

    if folder.exists():
        raise SafeholdError(f"{folder}: exists already; the drill needs a folder of its own")
    folder.mkdir(parents=True)
    key = load_or_make_key(folder / "bundle-key.pem")
    champion_folder = folder / "bundles" / "champion"
    corpus = of_seed_books(load(DOMAIN), seed)
    _plant(champion_folder, key, corpus, weaken)
    trust = SignedBy((load_public_key(folder / "bundle-key.pub"),))
    persons = {name: load_or_make_key(folder / f"{name}.pem") for name in PERSONS}
    quorum = quorum_of({name: str(folder / f"{name}.pub") for name in PERSONS}, 2)
    book = RuleBook(folder / "hot-rules.json", quorum, PERSONS[0], persons[PERSONS[0]])
    book.begin(int(time.time()))
    return DrillStage(
        folder=folder,
        short=short,
        seed=seed,
        champion=load_bundle(champion_folder, trust),
        champion_folder=champion_folder,
        key=key,
        corpus=corpus,
        persons=persons,
        book=book,
        admin=secrets.token_urlsafe(32),
    )


def _plant(folder: Path, key: Ed25519PrivateKey, corpus: Corpus, weaken: Weaken) -> None:
    """Write the drill's champion: the stock bundle at other thresholds of prompts."""
    from safehold.guard.bundle.load import load_bundle
    from safehold.guard.bundle.stock import stock_bundle
    from safehold.guard.bundle.write import write_bundle
    from safehold.improve.response.measure import repeats
    from safehold.improve.response.warm import at

    place, pinned = stock_bundle(DOMAIN)
    stock = load_bundle(place, pinned)
    prompt = weaken(stock, corpus)
    weak = at(stock, prompt)
    kept = [
        one for one, same in zip(stock.golden, repeats(weak, stock.golden), strict=True) if same
    ]
    files = {name: (place / name).read_bytes() for name in stock.manifest.files}
    files[stock.manifest.golden] = b"".join(msgspec.json.encode(one) + b"\n" for one in kept)
    write_bundle(folder, msgspec.structs.replace(stock.manifest, prompt=prompt), files, key)


def challenged(
    stage: DrillStage,
    case: "IncidentCase",
    clock: DrillClock,
    *,
    stage2: bool = False,
    acting: "HotRule | None" = None,
) -> tuple[Bundle, GateReport]:
    """Make the challenger, with a fine-tuned stage 2 or without, and put it before the gates.

    `acting` is the hot rule that acts against the incident.
    """
    from safehold.improve.response.gating import gated
    from safehold.improve.response.refine import RefineSettings, refined
    from safehold.improve.response.warm import WarmSettings, challenger

    began = time.process_time()
    found = None
    record = stage.champion.manifest.stage2
    if stage2 and record is not None:
        found = refined(
            stage.champion,
            stage.champion_folder,
            case.incident(),
            case.variants(),
            stage.corpus.pairs(record.clauses, stage.seed),
            RefineSettings(seed=stage.seed),
            Progress(),
        )
        clock.mark("stage 2", f"{time.process_time() - began:.1f} s CPU")
        began = time.process_time()
    fresh = challenger(
        stage.champion,
        stage.champion_folder,
        incident=case.incident(),
        made=case.variants(),
        replay=stage.corpus.replay(1_000 if stage.short else 2_000, stage.seed),
        benign=stage.benign,
        settings=WarmSettings(seed=stage.seed),
        out=stage.folder / "bundles" / "challenger",
        key=stage.key,
        progress=Progress(),
        stage2=found,
        replies=stage.corpus.benign_replies(60 if stage.short else 200, stage.seed),
    )
    clock.mark("retrained", f"stage 1 and thresholds, {time.process_time() - began:.1f} s CPU")
    report = gated(
        stage.champion,
        fresh,
        case,
        stage.corpus,
        domain=DOMAIN,
        short=stage.short,
        seed=stage.seed,
        acting=acting,
    )
    case.keep_report(report)
    clock.mark("gates", "passed" if report.passed else "REFUSED: nothing is released")
    return fresh, report


def options(folder: Path, champion: Path, admin: str) -> tuple[str, ...]:
    """Write the gateway's settings; return the options that it is started with."""
    settings = {
        "bundles": str(folder / "bundles"),
        "bundle_keys": [str(folder / "bundle-key.pub")],
        "keys": [
            {"id": "admin", "sha256": hashlib.sha256(admin.encode()).hexdigest(), "admin": True}
        ],
        "canary": {"enabled": False},
        "log": "none",
        "hot_rules": {
            "file": str(folder / "hot-rules.json"),
            "memory": str(folder / "hot-rules.memory"),
            "keys": {name: str(folder / f"{name}.pub") for name in PERSONS},
        },
    }
    path = folder / "safehold.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return ("--config", str(path), "--bundle", str(champion))


def until(true: Callable[[], object], what: str) -> None:
    """Wait until something is true.

    Raises:
        SafeholdError: It was not within a minute.
    """
    deadline = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > deadline:
            raise SafeholdError(f"the drill waited {WAIT_S:.0f} s in vain: {what}")
        time.sleep(_PAUSE_S)
