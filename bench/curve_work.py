"""What each curve runs: a function of a size returns the work, ready to be measured.

What is built before the work starts is not measured.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from bench.egress_flows import look, register_text
from bench.trust_scale import make

from safehold.exchange import Exchange, Lane, Role, TextPart, Turn, user_says
from safehold.guard.bundle.load import load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.gateway.access.admission import Gate
from safehold.guard.gateway.access.store import MemoryStore
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.policy import Budget, Key, digest_key
from safehold.guard.interface import SessionPolicy
from safehold.guard.ledger import retention
from safehold.guard.ledger.coverage import StallLimits, audit, audit_since
from safehold.guard.ledger.export import export
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.guard.scorers.rules import Rule, RuleSet, RuleStream
from safehold.guard.scorers.similar import KnownAttack
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import drive, no_stage2
from safehold.guard.session.remembered import ScoreMemory
from safehold.guard.session.session import Guard
from safehold.secure.egress.bounds.budget import prove
from safehold.secure.egress.declare.register import parse_register
from safehold.secure.egress.kernel.ruleset import Desired, Quota, budgets_of, transaction
from safehold.secure.egress.watch.timeline_files import TimelineFile, timeline_rows
from safehold.testing.egress import TODAY, plan, row
from safehold.testing.guards import rule_guard
from safehold.testing.ledger import NOW, RowMaker
from safehold.testing.trust import vetted
from safehold.trust.exemptions import (
    Caller,
    Exemption,
    ExemptionAction,
    ExemptionBook,
    ExemptionTerms,
    Relaxation,
    Subject,
    SubjectKind,
)
from safehold.trust.log import DirectorySource, TileReader
from safehold.trust.log.audit import audit as audit_log
from safehold.trust.log.checkpoint import parse_checkpoint
from safehold.trust.log.keys import read_keys
from safehold.trust.log.merkle import prove_inclusion

Run = Callable[[int], Callable[[], Any]]
WORDS = "how long should the bread rise before it goes into a hot oven today "


def _ledger(n: int, *, old: int) -> str:
    """Return a ledger of `n` exchanges, `old` of them too old to keep."""
    url = f"{tempfile.mkdtemp()}/ledger.db"
    rows = RowMaker()

    async def fill() -> None:
        ledger = await Ledger.open(url)
        for start in range(0, n, 500):
            some: list[Any] = []
            for number in range(start, min(start + 500, n)):
                at = 0.0 if number < old else NOW
                some += [rows.prompt(f"d{number}", at=at), rows.final(f"d{number}", at=at)]
            await ledger.append(*some)
        await ledger.close()

    asyncio.run(fill())
    return url


def prune(n: int) -> Callable[[], Any]:
    """Half of a ledger pruned."""
    url = _ledger(n, old=n // 2)
    return lambda: retention.prune(url, older_than_s=86_400, clock=lambda: NOW)


def coverage(n: int) -> Callable[[], Any]:
    """The coverage audit of a ledger."""
    reader = LedgerReader.open(_ledger(n, old=0))
    return lambda: audit(reader, now=NOW, limits=StallLimits())


def coverage_on(n: int) -> Callable[[], Any]:
    """The coverage audit that goes on from a mark below which n exchanges lie."""
    url = _ledger(n, old=0)
    _, mark = audit_since(None, LedgerReader.open(url), now=NOW, limits=StallLimits())
    rows = RowMaker()

    async def more() -> None:
        ledger = await Ledger.open(url)
        for number in range(1_000):
            await ledger.append(rows.prompt(f"new{number}"), rows.final(f"new{number}"))
        await ledger.close()

    asyncio.run(more())
    reader = LedgerReader.open(url)
    return lambda: audit_since(mark, reader, now=NOW, limits=StallLimits())


def written_rules(n: int) -> Callable[[], Any]:
    """1,000 deltas of 40 characters under n written rules."""
    rules = RuleSet([Rule(f"r{i}", "c/d", rf"marker{i}\s+protocol") for i in range(n)])

    def go() -> None:
        stream = RuleStream(rules)
        for _ in range(1000):
            stream.feed("quite harmless words of some forty letters ")

    return go


def known_attacks(n: int) -> Callable[[], Any]:
    """1,000 deltas of 40 characters beside n known attacks of 400 characters."""
    known = [
        KnownAttack(id=f"k{i}", clause="c/d", text=" ".join(f"word{i}x{j}" for j in range(40)))
        for i in range(n)
    ]
    rules = RuleSet([], known)

    def go() -> None:
        stream = RuleStream(rules)
        for _ in range(1000):
            stream.feed("quite harmless words of some forty letters ")

    return go


def exemptions(n: int) -> Callable[[], Any]:
    """10,000 lookups in a book of n exemptions."""

    def one(number: int) -> Exemption:
        terms = ExemptionTerms(
            subject=Subject(SubjectKind.ORGANISATION, f"org-{number}"),
            relaxations=(Relaxation("c", ExemptionAction.AUDIT),),
            surfaces=("api",),
            use_case="u",
            seats=2,
            rate_per_hour=3,
            vetting=vetted(),
        )
        return Exemption(grant=f"g{number}", terms=terms, not_before=0, expires=10**9)

    book = ExemptionBook(tuple(map(one, range(n))), frozenset({"c"}))
    caller = Caller(organisation=f"org-{n - 1}", user="u", key="k", use_case="u")

    def go() -> None:
        for _ in range(10_000):
            book.action_for(caller, "c", "api", 5)

    return go


def register(n: int) -> Callable[[], Any]:
    """A register of n flows read and checked."""
    nets = [f'["10.{i // 256}.{i % 256}.0/24"]' for i in range(n)]
    text = "\n".join(row(f"f{i}", destination=net) for i, net in enumerate(nets))
    return lambda: parse_register("version = 1\n" + text)


def conversation(n: int) -> Callable[[], Any]:
    """A conversation of n turns kept, each turn on top of the last."""
    store = MemoryStore()

    def go() -> None:
        async def turns() -> None:
            for number in range(n):
                await store.put(f"history:{number}", b"x" * 1000, 3600)
                await store.get(f"history:{number}")

        asyncio.run(turns())

    return go


# -- the ledger ----------------------------------------------------------------------------------


def appends(n: int) -> Callable[[], Any]:
    """N exchanges appended, a hundred at once."""
    return lambda: _ledger(n, old=0)


def tail(n: int) -> Callable[[], Any]:
    """The newest 100 rows, 20 times, beside n exchanges."""
    reader = LedgerReader.open(_ledger(n, old=0))
    return lambda: [reader.tail(100) for _ in range(20)]


def show(n: int) -> Callable[[], Any]:
    """200 decisions looked up beside n exchanges."""
    reader = LedgerReader.open(_ledger(n, old=0))
    return lambda: [reader.decision(f"d{number}") for number in range(200)]


def exported(n: int) -> Callable[[], Any]:
    """A ledger written as Parquet."""
    reader = LedgerReader.open(_ledger(n, old=0))
    return lambda: export(reader, Path(tempfile.mkdtemp()) / "out")


# -- the guard -----------------------------------------------------------------------------------


def rules_start(n: int) -> Callable[[], Any]:
    """N written rules compiled."""
    rules = [Rule(f"r{i}", "c/d", rf"marker{i}\s+protocol") for i in range(n)]
    return lambda: RuleSet(rules)


def rules_tested(n: int) -> Callable[[], Any]:
    """A file of n rules loaded and self-tested, as a gateway does when it starts."""
    from safehold.guard.gateway.bundles.loading import RulesLoader  # noqa: PLC0415 - one curve's
    from safehold.guard.gateway.bundles.swap import self_test  # noqa: PLC0415 - as above

    rules = [
        {"id": f"r{i}", "clause": "c/d", "pattern": rf"marker{i}\s+x", "example": f"marker{i} x"}
        for i in range(n)
    ]
    path = Path(tempfile.mkdtemp()) / "rules.yaml"
    path.write_bytes(msgspec.yaml.encode({"rules": rules}))

    def go() -> None:
        loaded = RulesLoader()(path)
        asyncio.run(self_test(loaded.held, loaded.golden))

    return go


def attacks_start(n: int) -> Callable[[], Any]:
    """N known attacks of 400 characters folded and indexed."""
    texts = [" ".join(f"word{i}x{j}" for j in range(40)) for i in range(n)]
    known = [KnownAttack(id=f"k{i}", clause="c/d", text=text) for i, text in enumerate(texts)]
    return lambda: RuleSet([], known)


def _stock() -> tuple[Guard, InlineStage2]:
    bundle = load_bundle(*stock_bundle())
    if bundle.stage2 is None:
        raise SystemExit("this curve needs a bundle with a stage 2")
    return Guard(bundle.cascade, ViewDecoder()), InlineStage2(bundle.stage2)


def _said(chars: int, number: int = 0) -> str:
    return (f"{number} " + WORDS * (chars // len(WORDS) + 1))[:chars]


def prompt_length(n: int) -> Callable[[], Any]:
    """A prompt of n characters judged by the stock guard."""
    guard, ask = _stock()
    said = user_says(_said(n))
    return lambda: drive(guard.session(said, SessionPolicy()).judge_prompt(), ask)


def reply_length(n: int) -> Callable[[], Any]:
    """A reply of n characters in deltas of 40, judged by the stock guard."""
    guard, ask = _stock()
    return lambda: _streamed(guard, ask, n)


def _streamed(guard: Guard, ask: InlineStage2, chars: int) -> None:
    session = guard.session(user_says("Please go on."), SessionPolicy())
    drive(session.judge_prompt(), ask)
    text = _said(chars)
    for at in range(0, chars, 40):
        drive(session.feed(Lane(), text[at : at + 40]), ask)
    drive(session.finish(), ask)


def streams(n: int) -> Callable[[], Any]:
    """N replies of 4,000 characters beside each other, delta by delta, under a rule."""
    guard = rule_guard()
    text = _said(4_000)

    def go() -> None:
        opened = [guard.session(user_says("go on"), SessionPolicy()) for _ in range(n)]
        for at in range(0, len(text), 40):
            for one in opened:
                drive(one.feed(Lane(), text[at : at + 40]), no_stage2)

    return go


def decoding(n: int) -> Callable[[], Any]:
    """A text of n characters of hexadecimal digits, in all its views."""
    text = _said(n).encode().hex()[:n]
    return lambda: ViewDecoder().views(text)


def chat(turns: int) -> Exchange:
    """Return a conversation of different turns of 300 characters."""
    return Exchange(
        turns=tuple(
            Turn(
                role=Role.USER if turn % 2 == 0 else Role.ASSISTANT,
                parts=(TextPart(text=_said(300, turn)),),
            )
            for turn in range(turns)
        )
    )


def all_turns(n: int) -> Callable[[], Any]:
    """Every request of a conversation of n turns judged by the stock guard, with its memory."""
    guard, ask = _stock()
    whole, memory = chat(n), ScoreMemory()

    def go() -> None:
        for end in range(1, n + 1, 2):
            asked = Exchange(turns=whole.turns[:end])
            session = guard.session(asked, SessionPolicy(), memory=memory, account="t/k")
            drive(session.judge_prompt(), ask)

    return go


def one_turn(n: int) -> Callable[[], Any]:
    """The last request of a conversation of n turns judged by the stock guard, alone."""
    guard, ask = _stock()
    said = chat(n)
    return lambda: drive(guard.session(said, SessionPolicy()).judge_prompt(), ask)


# -- the gateway's state -------------------------------------------------------------------------


def keys(n: int) -> Callable[[], Any]:
    """10,000 requests admitted beside n keys."""
    secrets = [f"sk-{hashlib.sha256(str(i).encode()).hexdigest()}" for i in range(n)]
    known = [
        Key(id=f"k{i}", sha256=digest_key(secret), budget=Budget(requests_per_minute=10**9))
        for i, secret in enumerate(secrets)
    ]
    gate = Gate(known, MemoryStore())

    async def go() -> None:
        for number in range(10_000):
            key = gate.client(secrets[number % n])
            await gate.admit(key, Surface.CHAT)

    return lambda: asyncio.run(go())


def counters(n: int) -> Callable[[], Any]:
    """N counters, each counted once."""
    store = MemoryStore()

    async def go() -> None:
        for number in range(n):
            await store.add(f"flags:{number}", 1, 86_400)

    return lambda: asyncio.run(go())


def memory_of_scores(n: int) -> Callable[[], Any]:
    """10,000 texts looked up in a memory of n."""
    memory = ScoreMemory()
    mine = memory.of("b", SessionPolicy(), "t/k")
    from safehold.guard.session.remembered import TextScores  # noqa: PLC0415 - one curve's

    for number in range(n):
        mine.keep(mine.name(b"t", _said(100, number)), TextScores((100,), ((0.0,),)))
    said = [_said(100, number) for number in range(10_000)]
    return lambda: [mine.scores(mine.name(b"t", one)) for one in said]


# -- egress --------------------------------------------------------------------------------------


def compiled(n: int) -> Callable[[], Any]:
    """The kernel's transaction of n flows."""
    flows, limits = parse_register(register_text(n)).live(TODAY), plan()
    quotas = {
        (name, window): Quota(limit=size, fresh=True)
        for name, windows in budgets_of(flows, limits).items()
        for window, size in windows.items()
    }
    return lambda: msgspec.json.encode(transaction(Desired(flows, limits, {}, {}, quotas)))


def proved(n: int) -> Callable[[], Any]:
    """The proof of the bound for n flows."""
    flows, limits = parse_register(register_text(n)).live(TODAY), plan()

    def go() -> None:
        import contextlib  # noqa: PLC0415 - one curve's

        with contextlib.suppress(Exception):
            prove(flows, limits)

    return go


def timeline_written(n: int) -> Callable[[], Any]:
    """100 looks at n flows written, all of which sent."""
    looks = [look(at, n) for at in range(100)]
    file = TimelineFile(Path(tempfile.mkdtemp()) / "timeline.jsonl")
    return lambda: [file.append(one) for one in looks]


def timeline_read(n: int) -> Callable[[], Any]:
    """100 looks at n flows read again."""
    path = Path(tempfile.mkdtemp()) / "timeline.jsonl"
    file = TimelineFile(path)
    for at in range(100):
        file.append(look(at, n))
    return lambda: sum(1 for _ in timeline_rows(path))


# -- trust ---------------------------------------------------------------------------------------


def _desk(n: int, *, warm: bool) -> Callable[[], Any]:
    from safehold.cli._trust import open_desk  # noqa: PLC0415 - the command's own way in

    folder = Path(tempfile.mkdtemp())
    log = make(folder, n)
    if warm:
        _ = open_desk(log, None).state
    return lambda: len(open_desk(log, None).state.cases)


def replay(n: int) -> Callable[[], Any]:
    """A log of n leaves about trust judged again."""
    return _desk(n, warm=False)


def after_first(n: int) -> Callable[[], Any]:
    """The state of a log of n leaves, by the snapshot of the command before."""
    return _desk(n, warm=True)


def log_verified(n: int) -> Callable[[], Any]:
    """Every leaf, tile and checkpoint of a log of n leaves verified."""
    log = make(Path(tempfile.mkdtemp()), n)
    keys = read_keys(log / "log.json")
    return lambda: audit_log(DirectorySource(log), keys)


def log_proofs(n: int) -> Callable[[], Any]:
    """200 inclusion proofs in a log of n leaves."""
    log = make(Path(tempfile.mkdtemp()), n)
    head = parse_checkpoint((log / "checkpoint").read_text().partition("\n\n")[0] + "\n")
    source = DirectorySource(log)
    return lambda: [
        prove_inclusion(index * head.size // 200, head.size, TileReader(source, head).node)
        for index in range(200)
    ]


# name: what runs, at which sizes, and the exponent that it may have.
CURVES: dict[str, tuple[Run, tuple[int, int, int], float]] = {
    "ledger appends": (appends, (1_000, 5_000, 20_000), 1.1),
    "ledger tail, 20 times": (tail, (1_000, 5_000, 20_000), 0.3),
    "ledger show, 200 decisions": (show, (1_000, 5_000, 20_000), 0.3),
    "ledger export": (exported, (1_000, 5_000, 20_000), 1.1),
    "ledger prune, half": (prune, (1_000, 10_000, 40_000), 1.1),
    "ledger coverage": (coverage, (1_000, 10_000, 40_000), 1.2),
    "ledger coverage, 1,000 exchanges after a mark": (coverage_on, (1_000, 10_000, 40_000), 0.5),
    "written rules, 1,000 deltas": (written_rules, (1, 100, 1_000), 0.5),
    "written rules, loaded and self-tested": (rules_tested, (10, 100, 1_000), 1.2),
    "written rules, start": (rules_start, (10, 100, 1_000), 1.2),
    "known attacks, 1,000 deltas": (known_attacks, (1, 1_000, 10_000), 0.5),
    "known attacks, start": (attacks_start, (10, 100, 1_000), 1.2),
    "prompt, by its length": (prompt_length, (1_000, 10_000, 100_000), 1.1),
    "reply, by its length": (reply_length, (1_000, 4_000, 16_000), 1.2),
    "replies beside each other": (streams, (10, 100, 400), 1.1),
    "decoding, by length": (decoding, (1_000, 10_000, 100_000), 1.1),
    "a conversation, every turn": (all_turns, (20, 60, 180), 1.2),
    "a conversation, its last turn alone": (one_turn, (20, 60, 180), 1.1),
    "scores remembered, 10,000 lookups": (memory_of_scores, (100, 10_000, 100_000), 0.2),
    "keys, 10,000 requests": (keys, (10, 1_000, 10_000), 0.2),
    "counters": (counters, (1_000, 10_000, 100_000), 1.1),
    "responses kept": (conversation, (1_000, 10_000, 40_000), 1.1),
    "exemptions, 10,000 lookups": (exemptions, (10, 1_000, 10_000), 0.2),
    "egress register": (register, (10, 100, 1_000), 1.2),
    "egress rules compiled": (compiled, (1_000, 3_000, 10_000), 1.2),
    "egress bound proved": (proved, (10, 100, 1_000), 1.2),
    "egress timeline written": (timeline_written, (10, 100, 1_000), 1.1),
    "egress timeline read": (timeline_read, (10, 100, 1_000), 1.1),
    "trust log replayed": (replay, (300, 1_200, 6_000), 1.1),
    "trust command after the first": (after_first, (1_200, 6_000, 12_000), 1.0),
    "trust log verified": (log_verified, (300, 1_200, 6_000), 1.1),
    "trust log, 200 proofs": (log_proofs, (300, 1_200, 6_000), 0.5),
}
