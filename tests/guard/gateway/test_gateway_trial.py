"""A challenger beside the champion in a real gateway: forward by hand, back by itself."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gateway_process import served
from test_gateway_hot_rules import put, rule

from safehold.guard.gateway.bundles.loading import RulesLoader
from safehold.guard.gateway.bundles.trial_file import TrialPlan, encoded, signed, written
from safehold.guard.gateway.bundles.trial_memory import Kept, TrialMemory
from safehold.guard.gateway.bundles.trial_steps import TrialStep, bucket
from safehold.guard.gateway.policy import Canary, Key
from safehold.guard.gateway.server import Parts
from safehold.guard.gateway.trial_settings import TrialSettings
from safehold.guard.ledger.interface import EventKind, EventRow, PromptRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.guards import MARKER
from safehold.testing.upstream import MockUpstream

KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode() * 8) for name in ("anna", "bela")}
SECRET = b"a secret of this gateway"
CLIENTS = tuple(f"client-{n}" for n in range(40))
BARREL = "a red barrel"
WEB = httpx.Client(timeout=60)


def rules_at(path: Path, *patterns: str) -> str:
    """Write a rules file; return its digest."""
    rules = [
        {"id": f"r{n}", "clause": "test/rule", "pattern": one, "example": one}
        for n, one in enumerate(patterns)
    ]
    path.write_text(json.dumps({"rules": rules}))
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Site:
    """A gateway's folder: the champion, a challenger that also stops red barrels, and two keys."""

    def __init__(self, folder: Path, *patterns: str) -> None:
        self.folder = folder
        (folder / "bundles").mkdir()
        self.champion = rules_at(folder / "rules.yaml", MARKER)
        self.challenger = rules_at(
            folder / "bundles" / "next.yaml", *(patterns or (MARKER, BARREL))
        )
        (folder / "secret").touch(mode=0o600)
        (folder / "secret").write_bytes(SECRET)
        files = {}
        for name, key in KEYS.items():
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            (folder / f"{name}.pub").write_bytes(public)
            files[name] = str(folder / f"{name}.pub")
        self.settings = TrialSettings(
            file=str(folder / "trial.json"),
            memory=str(folder / "trial.memory"),
            keys=files,
            secret_file=str(folder / "secret"),
            reload_s=0.05,
        )
        self.memory = TrialMemory(folder / "trial.memory")
        self.plan = TrialPlan(
            id="t1",
            serial=1,
            champion=self.champion,
            challenger=self.challenger,
            folder="next.yaml",
            report="0" * 64,
            least=6,
        )

    def gateway(self, stage: Callable, **settings: object) -> object:
        """Start a gateway of this folder."""
        given = {
            "bundle": str(self.folder / "rules.yaml"),
            "bundles": str(self.folder / "bundles"),
            "trial": self.settings,
            "canary": Canary(enabled=False),
            "keys": tuple(
                Key(id=one, sha256=hashlib.sha256(one.encode()).hexdigest(), tenant="t")
                for one in CLIENTS
            ),
        }
        return stage(parts=Parts(loader=RulesLoader()), **(given | settings))

    def put(self, *persons: str, **changes: object) -> None:
        """Put the trial's next file in place, signed by these persons."""
        changes = {"serial": self.plan.serial + 1} | changes
        self.plan = msgspec.structs.replace(self.plan, **changes)
        file = written(self.plan)
        for name in persons:
            file = signed(file, name, KEYS[name])
        draft = self.folder / "trial.draft"
        draft.write_bytes(encoded(file))
        draft.replace(self.folder / "trial.json")

    def kept(self) -> Kept:
        """Return what the workers remember."""
        kept = self.memory.read()
        assert kept is not None
        return kept

    def at(self, step: TrialStep) -> bool:
        """Tell whether the trial is there."""
        kept = self.memory.read()
        return kept is not None and kept.trial.step is step


def until(true: Callable[[], bool], within_s: float = 30) -> None:
    """Wait for something."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s
        time.sleep(0.02)


def ask(url: str, text: str, client: str = CLIENTS[0]) -> str:
    """Return what a client is answered."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    headers = {"authorization": f"Bearer {client}", "connection": "close"}
    answer = WEB.post(f"{url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200
    return str(answer.json()["choices"][0]["message"]["content"])


def events(rows: list[object], kind: EventKind = EventKind.TRIAL) -> list[EventRow]:
    """Return the rows of one kind of event."""
    return [row for row in rows if isinstance(row, EventRow) and row.kind is kind]


def steps(rows: list[object]) -> list[object]:
    """Return the steps that a worker told of, in their order."""
    return [row.detail["step"] for row in events(rows) if "step" in row.detail]


def forward(site: Site, url: str, step: TrialStep) -> None:
    """Have enough exchanges judged by both, then let two persons sign the next step."""

    def enough() -> bool:  # a worker that has not loaded the challenger yet judges nothing
        ask(url, "hello", CLIENTS[3])
        return site.kept().trial.seen >= site.plan.least

    until(enough)
    site.put("anna", "bela", step=step)
    until(lambda: site.at(step))


def test_a_trial_widens_by_account_and_each_row_names_its_bundle(
    stage: Callable, tmp_path: Path
) -> None:
    """Nobody in shadow, then exactly the accounts of each share; a step can't be skipped."""
    site = Site(tmp_path)
    running = site.gateway(stage)
    site.put("anna")
    until(lambda: site.at(TrialStep.SHADOW))
    until(lambda: bool(events(running.ledger.rows)))
    site.put("anna", "bela", step=TrialStep.QUARTER)
    until(lambda: bool(events(running.ledger.rows, EventKind.ALARM)))
    assert site.at(TrialStep.SHADOW)
    shares = {TrialStep.SHADOW: 0, TrialStep.FIVE: 500, TrialStep.QUARTER: 2_500}
    for step, share in (shares | {TrialStep.ALL: 10_000}).items():
        if step is not TrialStep.SHADOW:
            forward(site, running.gateway.url, step)
            until(lambda step=step: steps(running.ledger.rows)[-1] == str(step))
        before = len(running.prompts())
        for client in CLIENTS:
            ask(running.gateway.url, "hello", client)
        for row in running.prompts()[before:]:
            tried = bucket(f"t/{row.key_id}", SECRET) < share
            assert row.bundle_digest == (site.challenger if tried else site.champion)
    assert steps(running.ledger.rows) == ["shadow", "5", "25", "100"]


@pytest.mark.parametrize("step", [TrialStep.SHADOW, TrialStep.ALL])
def test_false_alarms_of_the_challenger_roll_it_back_by_itself(
    stage: Callable, tmp_path: Path, step: TrialStep
) -> None:
    """In shadow and in charge alike; then the champion serves everybody, and it stays so."""
    site = Site(tmp_path)
    running = site.gateway(stage)
    site.put("anna")
    until(lambda: bool(events(running.ledger.rows)))
    for next_ in (TrialStep.FIVE, TrialStep.QUARTER, TrialStep.ALL):
        if step is TrialStep.ALL:
            forward(site, running.gateway.url, next_)
    url = running.gateway.url
    if step is TrialStep.ALL:
        until(lambda: steps(running.ledger.rows)[-1] == "100")
    for client in CLIENTS[:12]:
        ask(url, f"please paint {BARREL}", client)
        if site.at(TrialStep.ROLLED_BACK):
            break
    until(lambda: site.at(TrialStep.ROLLED_BACK))
    until(lambda: steps(running.ledger.rows)[-1] == "rolled-back")
    ask(url, f"please paint {BARREL}")
    assert running.prompts()[-1].bundle_digest == site.champion
    site.put("anna", "bela", step=TrialStep.FIVE)
    until(lambda: site.kept().plan.serial == site.plan.serial)
    assert site.at(TrialStep.ROLLED_BACK)
    told = [row for row in events(running.ledger.rows) if row.decision_id]
    assert all(row.detail["challenger"] and not row.detail["champion"] for row in told)
    assert len(told) >= 2


def test_what_a_reviewer_called_restricted_is_no_false_alarm(
    stage: Callable, tmp_path: Path
) -> None:
    """The benign twin: each disagreement is reviewed and signed before the next, and it goes on."""
    site = Site(tmp_path)
    running = site.gateway(stage)
    site.put("anna")
    until(lambda: bool(events(running.ledger.rows)))
    for turn in range(8):
        ask(running.gateway.url, f"please paint {BARREL} {turn}")
        until(lambda turn=turn: site.kept().trial.seen > turn)
        found = site.kept().alarms
        site.put("anna", restricted=(*site.plan.restricted, *found))
        until(lambda: site.kept().plan.serial == site.plan.serial)
    assert site.at(TrialStep.SHADOW)
    assert site.kept().trial.evidence.own_alarms == 0


def test_what_both_bundles_stop_is_no_evidence_against_either(
    stage: Callable, tmp_path: Path
) -> None:
    """It is agreement, in which the exchange is counted."""
    site = Site(tmp_path)
    running = site.gateway(stage)
    site.put("anna")
    until(lambda: bool(events(running.ledger.rows)))
    for turn in range(8):
        ask(running.gateway.url, f"{MARKER} {turn}")
    until(lambda: site.kept().trial.seen >= 8)
    evidence = site.kept().trial.evidence
    assert (evidence.own_alarms, evidence.champions) == (0, 0)


def test_an_attack_that_a_hot_rule_stops_rolls_nothing_back(
    stage: Callable, tmp_path: Path
) -> None:
    """An attacker who repeats it can't drive out the challenger that learnt it."""
    site = Site(tmp_path)
    overlay = put(tmp_path, rule(pattern=BARREL), serial=1)
    running = site.gateway(stage, hot_rules=overlay)
    site.put("anna")
    until(lambda: bool(events(running.ledger.rows)))
    for turn in range(12):
        ask(running.gateway.url, f"please paint {BARREL} {turn}")
    ask(running.gateway.url, "hello")
    until(lambda: site.kept().trial.seen == 1)
    assert site.at(TrialStep.SHADOW)
    assert site.kept().trial.evidence.own_alarms == 0


def _one_person(site: Site) -> None:
    site.put("anna", step=TrialStep.FIVE)


def _stranger(site: Site) -> None:
    file = signed(signed(written(site.plan), "anna", KEYS["bela"]), "bela", KEYS["anna"])
    (site.folder / "trial.json").write_bytes(encoded(file))


def _torn(site: Site) -> None:
    data = (site.folder / "trial.json").read_bytes()
    (site.folder / "trial.json").write_bytes(data[: len(data) // 2])


def _other_bundle(site: Site) -> None:
    site.put("anna", "bela", challenger="c" * 64)


def _early(site: Site) -> None:
    site.put("anna", "bela", step=TrialStep.FIVE)


def _old(site: Site) -> None:
    site.put("anna", serial=0 + 1)


def _looser(site: Site) -> None:
    site.put("anna", "bela", least=1, step=TrialStep.FIVE)


@pytest.mark.parametrize(
    "attack", [_one_person, _stranger, _torn, _other_bundle, _early, _old, _looser]
)
def test_a_file_that_may_not_be_followed_changes_nothing(
    stage: Callable, tmp_path: Path, attack: Callable[[Site], None]
) -> None:
    """The step in force stays, an alarm says so, and the champion serves."""
    site = Site(tmp_path)
    running = site.gateway(stage)
    site.put("anna")
    until(lambda: bool(events(running.ledger.rows)))
    before = site.kept()
    attack(site)
    until(lambda: bool(events(running.ledger.rows, EventKind.ALARM)))
    assert site.kept() == before
    ask(running.gateway.url, "hello")
    assert running.prompts()[-1].bundle_digest == site.champion


def test_a_memory_that_is_lost_or_broken_leaves_the_champion(
    stage: Callable, tmp_path: Path
) -> None:
    """A trial in the middle does not begin anew by losing its evidence."""
    site = Site(tmp_path)
    running = site.gateway(stage)
    site.put("anna")
    until(lambda: bool(events(running.ledger.rows)))
    forward(site, running.gateway.url, TrialStep.FIVE)
    for turn, harm in enumerate((lambda p: p.unlink(), lambda p: p.write_bytes(b"{"))):
        harm(site.folder / "trial.memory")
        until(lambda turn=turn: len(events(running.ledger.rows, EventKind.ALARM)) > turn)
        drawn = [one for one in CLIENTS if bucket(f"t/{one}", SECRET) < 500]
        for client in drawn:
            ask(running.gateway.url, "hello", client)
        rows = running.prompts()[-len(drawn) :]
        assert {row.bundle_digest for row in rows} == {site.champion}


def test_a_challenger_whose_canary_passes_goes_back(stage: Callable, tmp_path: Path) -> None:
    """What it stopped when it was loaded and lets pass later ends the trial at once."""
    site = Site(tmp_path)

    def loader(path: Path) -> object:
        loaded = RulesLoader()(path)
        if path.name == "next.yaml":
            loaded.held.canaries = ("this passes",)
        return loaded

    stage(
        parts=Parts(loader=loader),
        bundle=str(tmp_path / "rules.yaml"),
        bundles=str(tmp_path / "bundles"),
        trial=site.settings,
        canary=Canary(every_s=0.1, prompts=(MARKER,)),
    )
    site.put("anna")
    until(lambda: site.at(TrialStep.ROLLED_BACK))
    assert site.kept().trial.reason == "its canary passed"


def test_two_workers_of_a_real_gateway_share_one_trial(tmp_path: Path) -> None:
    """`safehold serve` with two processes: both judge, one rolls back, both serve the champion."""
    site = Site(tmp_path)
    keys = [
        {"id": one, "sha256": hashlib.sha256(one.encode()).hexdigest(), "tenant": "t"}
        for one in CLIENTS
    ]
    with (
        MockUpstream() as upstream,
        served(
            tmp_path,
            upstream.url,
            workers=2,
            store=f"sqlite:///{tmp_path}/store.db",
            bundles=str(tmp_path / "bundles"),
            trial=msgspec.to_builtins(site.settings),
            keys=keys,
        ) as at,
    ):
        url = f"http://127.0.0.1:{at.port}"
        site.champion = hashlib.sha256((tmp_path / "rules.yaml").read_bytes()).hexdigest()
        site.put("anna", champion=site.champion)
        until(lambda: site.at(TrialStep.SHADOW))
        for next_ in (TrialStep.FIVE, TrialStep.QUARTER, TrialStep.ALL):
            forward(site, url, next_)
        until(lambda: told(at.ledger, TrialStep.ALL) == 2)
        for client in CLIENTS[:12]:
            ask(url, f"please paint {BARREL}", client)
        until(lambda: told(at.ledger, TrialStep.ROLLED_BACK) == 2)
        for client in CLIENTS[:12]:
            ask(url, f"please paint {BARREL}", client)
        entries = LedgerReader.open(at.ledger).tail(4_000)
    asked = [one for one in entries if isinstance(one.row, PromptRow)]
    assert len({one.writer for one in asked}) == 2
    assert {one.row.bundle_digest for one in asked[-12:]} == {site.champion}
    assert {one.row.bundle_digest for one in asked} == {site.champion, site.challenger}


def told(ledger: str, step: TrialStep) -> int:
    """Return how many workers said that the trial is in a step."""
    entries = LedgerReader.open(ledger).tail(4_000)
    rows = [one for one in entries if isinstance(one.row, EventRow)]
    return len({one.writer for one in rows if one.row.detail.get("step") == str(step)})
