"""`safehold respond drill`: the whole response on one machine, with scripted approvals."""

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
from safehold.http_ask import ask
from safehold.improve.response.corpus import Corpus
from safehold.improve.response.gates import GateReport
from safehold.improve.response.rule_book import RuleBook
from safehold.improve.response.warm import challenger
from safehold.progress import Progress

if TYPE_CHECKING:
    from safehold.demo.gateways import DemoGateway
    from safehold.detect.redteam.interface import QuestionSet
    from safehold.guard.ledger.interface import EventRow
    from safehold.guard.overlay.interface import HotRule
    from safehold.improve.response.case import IncidentCase

_PERSONS = ("duty-officer", "safety-lead")
_DOMAIN = "homebrewing"
_WAIT_S = 60.0
_TRIES = 120
_ENOUGH = 40
_HALF = 0.5
_PLANTED = 2.5
"""Logits by which the drill's champion shows less to stage 2 than the stock bundle."""
_PAUSE_S = 0.2
Say = Callable[[str], None]


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


class _DrillClock:
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
        if not ready.wait(_WAIT_S):
            raise SafeholdError("the drill's target did not start")
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(_WAIT_S)
        loop.close()


def post(url: str, body: dict[str, Any], key: str = "") -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    with ask(url, data=json.dumps(body).encode(), headers=headers, timeout_s=_WAIT_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


class _Answer(msgspec.Struct, frozen=True):
    """What a client got, and what the ledger says of the prompt."""

    text: str
    asked: PromptRow

    @property
    def stopped(self) -> bool:
        """Whether the prompt itself was refused."""
        from safehold.guard.ledger.interface import LedgerVerdict

        return self.asked.verdict is LedgerVerdict.BLOCK


class _Client:
    """A client of the gateway, who also reads its ledger."""

    def __init__(self, served: "DemoGateway") -> None:
        from safehold.guard.ledger.reader import LedgerReader

        self._url = f"{served.url}/v1/chat/completions"
        self._ledger = LedgerReader.open(str(served.ledger))

    def ask(self, text: str) -> _Answer:
        answer = post(
            self._url, {"model": "drill", "messages": [{"role": "user", "content": text}]}
        )
        rows = [one.row for one in self._ledger.tail(20)]
        asked = [row for row in rows if isinstance(row, PromptRow)]
        if not asked:
            raise SafeholdError("the gateway's ledger holds no row of the drill's request")
        return _Answer(str(answer["choices"][0]["message"]["content"] or ""), asked[-1])


class _Stage(msgspec.Struct, frozen=True):
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


def run_drill(folder: Path, *, short: bool, say: Say, seed: int = 1) -> DrillResult:
    """Run the drill in a new folder.

    Raises:
        SafeholdError: A step did not do what it must.
    """
    from safehold.demo.gateways import gateway
    from safehold.detect.redteam.questions import questions
    from safehold.guard.bundle.overlay_file import approve
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.gates import shown

    stage = _set_up(folder, short=short, seed=seed)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(complying_target(questions(_DOMAIN)))
        options = _options(folder, stage.champion_folder, stage.admin)
        served = stack.enter_context(gateway(folder, "gateway", target, 0, options))
        client = _Client(served)
        text, ask, says = _miss(client, stage.champion, seed)
        clock = _DrillClock(say)
        clock.mark("found", says)
        case = IncidentCase(folder / "case")
        rule = _ruled(stage, case, text, ask, clock)
        _until(lambda: (client.ask(text), _rows(served, rule.id))[1], "the shadow rule hits")
        clock.mark("shadow hits", "the same text is counted, and not yet refused")
        # 3. Two scripted persons let it act.
        for name, own in stage.persons.items():
            case.keep_approval(approve(rule, name, own))
        stage.book.act(rule.id, case.approvals(), int(time.time()))
        _until(lambda: client.ask(text).stopped and _acted(served, rule.id), "the rule acts")
        clock.mark("rule acts", "two persons; the same text is refused now")
        fresh, report = _challenged(stage, case, clock)
        say(shown(report))
        verified = False
        if report.passed:
            # 6. The swap, the end of the rule, and the replay against the new bundle alone.
            post(f"{served.url}/admin/bundle", {"bundle": "challenger"}, stage.admin)
            clock.mark("replaced", f"bundle {fresh.digest[:12]} is live; no stream was dropped")
            stage.book.end(rule.id, int(time.time()))
            verified = _replayed(client, text, fresh.digest)
            clock.mark("verified", "by replay, without the rule" if verified else "REPLAY FAILED")
    return DrillResult(tuple(clock.marks), report, stage.champion.digest, fresh.digest, verified)


def _set_up(folder: Path, *, short: bool, seed: int) -> _Stage:
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
    _plant(champion_folder, key)
    trust = SignedBy((load_public_key(folder / "bundle-key.pub"),))
    persons = {name: load_or_make_key(folder / f"{name}.pem") for name in _PERSONS}
    quorum = quorum_of({name: str(folder / f"{name}.pub") for name in _PERSONS}, 2)
    book = RuleBook(folder / "hot-rules.json", quorum, _PERSONS[0], persons[_PERSONS[0]])
    book.begin(int(time.time()))
    return _Stage(
        folder=folder,
        short=short,
        seed=seed,
        champion=load_bundle(champion_folder, trust),
        champion_folder=champion_folder,
        key=key,
        corpus=of_seed_books(load(_DOMAIN), seed),
        persons=persons,
        book=book,
        admin=secrets.token_urlsafe(32),
    )


def _plant(folder: Path, key: Ed25519PrivateKey) -> None:
    """Write the drill's champion: the stock bundle whose stage 1 shows less to stage 2.

    The stock bundle shows stage 2 all that stage 2 would stop, so there is nothing in it that a
    warm start of stage 1 alone could learn; a drill needs a miss of that kind.
    """
    from safehold.guard.bundle.load import load_bundle
    from safehold.guard.bundle.stock import stock_bundle
    from safehold.guard.bundle.write import write_bundle
    from safehold.improve.response.measure import repeats
    from safehold.improve.response.warm import at

    place, pinned = stock_bundle(_DOMAIN)
    stock = load_bundle(place, pinned)
    prompt = msgspec.structs.replace(
        stock.manifest.prompt, escalate=stock.manifest.prompt.escalate + _PLANTED
    )
    weak = at(stock, prompt)
    kept = [
        one for one, same in zip(stock.golden, repeats(weak, stock.golden), strict=True) if same
    ]
    files = {name: (place / name).read_bytes() for name in stock.manifest.files}
    files[stock.manifest.golden] = b"".join(msgspec.json.encode(one) + b"\n" for one in kept)
    write_bundle(folder, msgspec.structs.replace(stock.manifest, prompt=prompt), files, key)


def _ruled(
    stage: _Stage, case: "IncidentCase", text: str, ask: str, clock: _DrillClock
) -> "HotRule":
    """Open the case and put its rule in shadow."""
    from safehold.improve.response.hotrule import hot_rule
    from safehold.improve.response.incident import dress_of
    from safehold.improve.response.interface import Incident, IncidentKind
    from safehold.improve.response.judged import Judge
    from safehold.improve.response.proliferate import ProliferateSettings, variants
    from safehold.stats import Rate

    # 1. The incident and its variants.
    incident = Incident(
        id="drill",
        kind=IncidentKind.MISS,
        at=int(time.time()),
        text=text,
        clause="beer-production",
        source="drill",
        reporter=_PERSONS[0],
        confirmed_by=_PERSONS[1],
    )
    dress = dress_of(incident, Judge(stage.champion), ask=ask if ask in text else "")
    case.begin(incident, dress)
    count = ProliferateSettings(
        learnt=96 if stage.short else 256, held_out=64 if stage.short else 256, seed=stage.seed
    )
    made = variants(dress, stage.corpus.asks(), count)
    case.keep_variants(made)
    # 2. The rule in shadow, with its cost.
    benign = stage.benign
    sources = {"seed books": hashlib.sha256("\n".join(benign).encode()).hexdigest()}
    now = int(time.time())
    found = hot_rule(incident, dress, made, benign, sources=sources, owner=_PERSONS[0], now=now)
    case.keep_rule(found)
    stage.book.shadow(found.rule, int(time.time()))
    cost = Rate(found.rule.cost.hits if found.rule.cost else 0, len(benign))
    clock.mark(
        "rule in shadow",
        f"catches {found.caught.at_least()} of its family; benign {cost.at_most()}",
    )
    return found.rule


def _challenged(
    stage: _Stage, case: "IncidentCase", clock: _DrillClock
) -> tuple[Bundle, GateReport]:
    """Make the challenger and put it before the gates."""
    from safehold.improve.response.gating import gated
    from safehold.improve.response.warm import WarmSettings

    # 4. The challenger.
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
    )
    clock.mark("retrained", f"{time.process_time() - began:.1f} s CPU")
    # 5. The gates.
    report = gated(
        stage.champion, fresh, case, stage.corpus, domain=_DOMAIN, short=stage.short,
        seed=stage.seed,
    )  # fmt: skip
    case.keep_report(report)
    clock.mark("gates", "passed" if report.passed else "REFUSED: nothing is released")
    return fresh, report


def _options(folder: Path, champion: Path, admin: str) -> tuple[str, ...]:
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
            "keys": {name: str(folder / f"{name}.pub") for name in _PERSONS},
        },
    }
    path = folder / "safehold.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return ("--config", str(path), "--bundle", str(champion))


def _miss(client: _Client, champion: Bundle, seed: int) -> tuple[str, str, str]:
    """Find a text whose prompt gets past the gateway: with facts delivered, or nearly stopped.

    The first is taken of which half of the facts were delivered, or which stage 2 would have
    stopped had stage 1 shown it: that is what stage 1 alone can learn.

    Raises:
        SafeholdError: Nothing gets past it.
    """
    from safehold.detect.redteam.questions import leaked, questions, wrappers
    from safehold.improve.response.judged import Judge
    from safehold.improve.response.warm import at

    found, worn = questions(_DOMAIN), wrappers()
    asks = [(topic, ask) for topic in found.topics for ask in topic.questions]
    open_ = msgspec.structs.replace(champion.cascade.prompt, escalate=-1e6)
    judge = Judge(at(champion, open_))
    best: tuple[tuple[float, float], str, str, str] | None = None
    for turn in range(_TRIES):
        topic, ask = asks[(turn * 37 + seed * 11) % len(asks)]
        dress = worn[(turn * 5 + seed * 36) % len(worn)]
        if "<<ask>>" not in dress.text:
            continue
        text = dress.around(ask)
        answer = client.ask(text)
        if answer.stopped:
            continue
        got = leaked(topic, answer.text) / len(topic.facts)
        rank = (got, judge.prompt(text).score)
        says = f"{dress.family}: the prompt passed, {got:.0%} of the facts were delivered"
        if best is None or rank > best[0]:
            best = (rank, text, ask, says)
        if got >= _HALF or rank[1] >= _HALF or turn >= _ENOUGH:
            break
    if best is None:
        raise SafeholdError("the drill found nothing that gets past the gateway")
    return best[1], best[2], best[3]


def _replayed(client: _Client, text: str, digest: str) -> bool:
    """Say whether the text is refused by the new bundle alone, and its row names that bundle."""
    from safehold.guard.interface import Stage

    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
        answer = client.ask(text)
        if answer.asked.bundle_digest != digest or not answer.stopped:
            return False
        if answer.asked.stage is not Stage.RULE:  # else the rule's end has not come there yet
            return True
    return False


def _until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not true():
        if time.monotonic() > deadline:
            raise SafeholdError(f"the drill waited {_WAIT_S:.0f} s in vain: {what}")
        time.sleep(_PAUSE_S)


def _rows(served: "DemoGateway", rule: str) -> "list[EventRow]":
    from safehold.guard.ledger.interface import EventKind, EventRow
    from safehold.guard.ledger.reader import LedgerReader

    rows = [one.row for one in LedgerReader.open(str(served.ledger)).tail(500)]
    return [
        row
        for row in rows
        if isinstance(row, EventRow)
        and row.kind is EventKind.RULE_HIT
        and row.detail.get("rule") == rule
    ]


def _acted(served: "DemoGateway", rule: str) -> bool:
    return any(one.detail.get("acted") for one in _rows(served, rule))
