"""Exemptions from the transparency log at a running gateway, over real HTTP."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateway_wire import PATHS, Start, body_for, post
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safehold.constitution import library
from safehold.errors import ConfigError
from safehold.guard.gateway.access.exemptions import open_exemptions
from safehold.guard.gateway.bundles.released import enforced
from safehold.guard.gateway.exemption_settings import ExemptionSettings, Member
from safehold.guard.gateway.policy import Key, Settings, SurfacePolicy, digest_key
from safehold.guard.gateway.server import Parts
from safehold.guard.ledger.interface import EventKind, EventRow, FinalRow, PromptRow
from safehold.testing.guards import MARKER, held_rules
from safehold.testing.released import RELEASE_RULES, ReleaseChannel, settings_artefact
from safehold.testing.trust import GOVERNING, POLICY, Enclave, vetted
from safehold.testing.upstream import says
from safehold.trust.exemptions import (
    ExemptionAction,
    ExemptionTerms,
    Relaxation,
    Subject,
    SubjectKind,
    VettingTier,
)
from safehold.trust.grants.interface import GrantRequest
from safehold.trust.log import LogTamperError
from safehold.trust.people.statement import Act
from safehold.trust.release.interface import Artefact, ArtefactKind

SECRETS = {
    name: f"sk-safehold-{name}-0123456789abcdefghijk" for name in ("ann", "bob", "cat", "eve")
}
KEYS = tuple(Key(id=name, sha256=digest_key(SECRETS[name])) for name in SECRETS)
MEMBERS = {
    "ann": Member(organisation="org-1", user="u-ann", use_case="school"),
    "bob": Member(organisation="org-1", user="u-bob", use_case="school"),
    "cat": Member(organisation="org-1", user="u-cat", use_case="school"),
    "eve": Member(organisation="org-2", user="u-eve", use_case="school"),
}
DECLARED = Settings(keys=KEYS)
WORD = MARKER.split()[2].encode()


class Site:
    """A founded log, a constitution that lets the test clause be relaxed, and grants."""

    def __init__(self, root: Path, constitution: str) -> None:
        self.root = root
        policy = POLICY + GOVERNING + RELEASE_RULES
        self.enclave = Enclave(root / "log", policy=policy, now=int(time.time()) - 100)
        # A gateway that names an enclave's log enforces its releases.
        self.channel = ReleaseChannel(self.enclave, root / "releases")
        held = held_rules()
        bundle = Artefact(path="bundle", kind=ArtefactKind.BUNDLE, sha256=held.digest)
        declared = settings_artefact(ArtefactKind.GATEWAY, DECLARED)
        self.channel.publish(self.channel.next(bundle, declared))
        keys = msgspec.structs.replace(
            self.enclave.desk.store.keys, founding=self.enclave.founding_sha256()
        )
        (root / "pinned.json").write_bytes(msgspec.json.encode(keys))
        self.settings = ExemptionSettings(
            log=str(root / "log"),
            log_keys=str(root / "pinned.json"),
            constitution=constitution,
            seats=str(root / "seats"),
            callers=MEMBERS,
            reload_s=0.05,
        )

    def exempt(
        self, action: ExemptionAction = ExemptionAction.AUDIT, **changes: Any
    ) -> GrantRequest:
        """Grant organisation 1 an exemption of the test clause."""
        days = changes.pop("days", 30)
        terms = ExemptionTerms(
            subject=Subject(SubjectKind.ORGANISATION, "org-1"),
            relaxations=(Relaxation(changes.pop("clause", "test-marker"), action),),
            surfaces=("openai.chat",),
            use_case="school",
            seats=2,
            rate_per_hour=1000,
            vetting=vetted(VettingTier.HIGH),
        )
        enclave = self.enclave
        request = enclave.ask(
            operation="exemption.give",
            details=msgspec.structs.replace(terms, **changes),
            expires=enclave.time + 100 + days * 86_400,
        )
        enclave.file(request)
        enclave.approve(request, "sec-one", "sec-two")
        return request

    def revoke(self, request: GrantRequest) -> None:
        """Take a grant away."""
        note = self.enclave.note(request)
        self.enclave.desk.revoke(note, self.enclave.keys["sec-two"].sign(Act.REVOKE, note))


@pytest.fixture
def site(tmp_path: Path, relaxing: str) -> Site:
    """Return a site in a folder of its own."""
    return Site(tmp_path, relaxing)


@pytest.fixture
def relaxing(tmp_path: Path) -> str:
    """Return a constitution whose one restricted clause is the test clause, of a tier above."""
    return _constitution(tmp_path / "relaxing.yaml", "test-marker")


def _constitution(path: Path, clause: str) -> str:
    stock = (Path(library.__file__).parent / "stock" / "homebrewing.yaml").read_text()
    path.write_text(stock.replace("beer-production", clause))
    return str(path)


def start(stage: Start, site: Site, **given: Any) -> Any:
    """Start a gateway whose replies hold the marker."""
    parts = Parts(loader=_never, held=held_rules(), declared=DECLARED)
    options = {"keys": KEYS, "exemptions": site.settings, "releases": site.channel.settings}
    options |= given
    return stage(says(f"so the {MARKER} is", size=4), parts=parts, **options)


def ask(at: Any, who: str = "ann", text: str = "hi", **given: Any) -> bytes:
    """Ask (`path`, `case`, `stream`) and return the whole answer."""
    path, case = given.get("path", PATHS[0]), given.get("case", "")
    extra = f"authorization: Bearer {SECRETS[who]}\r\n"
    extra += f"x-safehold-use-case: {case}\r\n" if case else ""
    body = json.dumps(body_for(path, text, stream=given.get("stream", True))).encode()
    status, _, answer = post(at.gateway.port, path, body, extra=extra)
    assert status == 200, answer
    return answer


def events(at: Any, kind: EventKind) -> list[dict[str, Any]]:
    """Return the details of the ledger's events of a kind."""
    rows = [row for row in at.ledger.rows if isinstance(row, EventRow) and row.kind is kind]
    return [dict(row.detail) for row in rows]


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so, twenty seconds at most."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "expected within 20 s"
        time.sleep(0.02)


def test_a_granted_organisation_is_delivered_and_everybody_else_blocked(
    stage: Start, site: Site
) -> None:
    """Two signatures in the log change the action for one organisation, use case and surface."""
    request = site.exempt()
    at = start(stage, site)
    assert WORD in ask(at)
    row, final = at.prompts()[-1], at.finals()[-1]
    assert (final.verdict, final.outcome) == ("block", "complied")
    assert events(at, EventKind.EXEMPTION)[-1] == {
        "grant": request.sha256,
        "clause": "test-marker",
        "action": "deliver",
    }
    assert row.key_id == "ann"
    for other in ({"who": "eve"}, {"case": "pub"}, {"path": PATHS[1]}):
        assert WORD not in ask(at, **other), other
    assert WORD in ask(at, text=MARKER)
    row = at.prompts()[-1]
    assert (row.verdict, row.action, row.grant_id) == ("block", "forward", request.sha256)


def test_a_grant_and_its_revocation_reach_a_running_gateway(stage: Start, site: Site) -> None:
    """The book follows the log: a grant takes effect, and its end, without a restart."""
    at = start(stage, site)
    assert WORD not in ask(at)
    request = site.exempt()
    until(lambda: WORD in ask(at))
    site.revoke(request)
    until(lambda: WORD not in ask(at))
    loaded = [one for one in events(at, EventKind.EXEMPTION) if "in_force" in one]
    assert (loaded[0]["in_force"], loaded[-1]["in_force"]) == (0, 0)


def test_a_withdrawal_blocks_within_seconds(stage: Start, site: Site) -> None:
    """With the stock `reload_s`, what was let through is blocked three looks later at most."""
    request = site.exempt()
    members = msgspec.structs.fields(ExemptionSettings)
    (stock,) = (one.default for one in members if one.name == "reload_s")
    assert stock <= 2
    watched = msgspec.structs.replace(site.settings, reload_s=stock)
    at = start(stage, site, exemptions=watched)
    assert WORD in ask(at)
    site.revoke(request)
    began = time.monotonic()
    until(lambda: WORD not in ask(at))
    assert time.monotonic() - began < 30, "withdrawn, and still let through"


def test_a_session_keeps_its_use_case(stage: Start, site: Site) -> None:
    """A key that was exempt as a school is not exempt as a pub in the same session; one alarm."""
    site.exempt()
    site.exempt(use_case="pub")
    at = start(stage, site)
    assert WORD in ask(at)
    assert WORD not in ask(at, case="pub")
    assert WORD in ask(at, who="bob", case="pub")
    alarms = [one["alarm"] for one in events(at, EventKind.ALARM)]
    assert alarms.count("exemption-use-case") == 1


def test_a_grant_vetted_too_low_has_no_effect(stage: Start, site: Site) -> None:
    """The gateway computes the tier from its constitution: the lower checks relax nothing."""
    site.exempt(vetting=vetted(VettingTier.LOW))
    at = start(stage, site)
    assert WORD not in ask(at)
    assert [one["alarm"] for one in events(at, EventKind.ALARM)] == ["exemption-clause"]


def test_the_seat_after_the_last_is_blocked_and_alarms_once(stage: Start, site: Site) -> None:
    """Two seats were approved: the third user is not exempt, and one alarm row says so."""
    request = site.exempt()
    at = start(stage, site)
    assert [WORD in ask(at, who) for who in ("ann", "bob", "cat", "cat")] == [
        True,
        True,
        False,
        False,
    ]
    alarms = [one for one in events(at, EventKind.ALARM) if one["alarm"] == "exemption-seats"]
    assert alarms == [{"alarm": "exemption-seats", "grant": request.sha256}]
    metrics = at.gateway.gateway.metrics.text().decode()
    assert 'safehold_alarms_total{kind="exemption-seats"} 1.0' in metrics


def test_a_prohibited_clause_is_never_relaxed(stage: Start, tmp_path: Path) -> None:
    """A grant over a clause that the constitution does not let be relaxed changes nothing."""
    strict = Site(tmp_path, _constitution(tmp_path / "strict.yaml", "another-clause"))
    strict.exempt()
    at = start(stage, strict)
    assert WORD not in ask(at)
    until(lambda: any(one["alarm"] == "exemption-clause" for one in events(at, EventKind.ALARM)))


def test_an_end_that_is_near_is_a_row_and_a_number(stage: Start, site: Site) -> None:
    """An exemption that ends within three days is warned of, once, and measured."""
    request = site.exempt(days=2)
    at = start(stage, site)
    near = {"alarm": "exemption-expiry", "grant": request.sha256, "days": 3}
    until(lambda: near in events(at, EventKind.ALARM))
    time.sleep(0.2)
    assert events(at, EventKind.ALARM).count(near) == 1
    text = at.gateway.gateway.metrics.text().decode()
    line = next(one for one in text.splitlines() if one.startswith("safehold_exemption_days_left{"))
    assert 1.9 < float(line.split()[1]) < 2.1


def test_a_tampered_log_exempts_nobody(stage: Start, site: Site) -> None:
    """A log that does not verify any more empties the book and alarms; whole again, it counts."""
    site.exempt()
    at = start(stage, site)
    assert WORD in ask(at)
    good = (site.root / "log" / "checkpoint").read_bytes()
    (site.root / "log" / "checkpoint").write_bytes(good.replace(b"\n", b"\r\n", 1))
    until(lambda: WORD not in ask(at))
    assert {"alarm": "exemption-log"}.items() <= events(at, EventKind.ALARM)[-1].items()
    (site.root / "log" / "checkpoint").write_bytes(good)
    until(lambda: WORD in ask(at))


def test_a_reload_costs_what_is_new(site: Site) -> None:
    """Without a new leaf the book is the same one; a new grant joins it, a revocation ends it."""
    first = site.exempt()
    followed = open_exemptions(site.settings)
    book = followed.book
    assert not followed.refresh()
    assert followed.book is book
    second = site.exempt(clause="test-marker", days=10)
    assert followed.refresh()
    assert {one.grant for one in followed.book.exemptions} == {first.sha256, second.sha256}
    site.revoke(first)
    assert followed.refresh()
    assert {one.grant for one in followed.book.exemptions if not one.ended} == {second.sha256}
    assert followed.dropped == ()


def test_an_older_copy_of_the_log_is_refused_after_a_restart(stage: Start, site: Site) -> None:
    """Who restores a copy from before a revocation gets no exemption, and no gateway."""
    request = site.exempt()
    shutil.copytree(site.root / "log", site.root / "older")
    site.revoke(request)
    at = start(stage, site)
    assert WORD not in ask(at)
    old = msgspec.structs.replace(site.settings, log=str(site.root / "older"))
    with pytest.raises(LogTamperError, match="rollback"):
        open_exemptions(old)


def test_hold_queues_a_reply_for_review(stage: Start, site: Site) -> None:
    """An exemption to `hold` refuses on the wire and puts prompt or reply before a reviewer."""
    site.exempt(ExemptionAction.HOLD)
    at = start(stage, site)
    assert WORD not in ask(at)
    reply = at.prompts()[-1].decision_id
    assert WORD not in ask(at, text=MARKER)
    prompt = at.prompts()[-1].decision_id
    rows = [row for row in at.ledger.rows if isinstance(row, EventRow)]
    queued = [row.decision_id for row in rows if row.kind is EventKind.REVIEW]
    assert queued == [reply, prompt]


def test_a_gateway_that_names_the_log_and_no_releases_does_not_start(site: Site) -> None:
    """Who believes an enclave's log in one thing enforces its releases; no option changes that."""
    named = Settings(keys=KEYS, exemptions=site.settings)
    with pytest.raises(ConfigError, match="releases"):
        enforced(named)
    both = msgspec.structs.replace(named, releases=site.channel.settings)
    assert enforced(both) == site.channel.settings
    assert enforced(Settings()) is None


def test_fallback_goes_to_the_weaker_model_or_blocks(stage: Start, site: Site) -> None:
    """An exemption to `fallback` uses the configured weaker model; without one it blocks."""
    site.exempt(ExemptionAction.FALLBACK)
    at = start(stage, site)
    assert b"content_filter" in ask(at, text=MARKER)
    at = start(stage, site, default=SurfacePolicy(fallback_model="tiny"))
    ask(at, text=MARKER)
    assert at.upstream.requests[-1]["model"] == "tiny"
    assert at.prompts()[-1].action == "fallback"


def test_a_caller_that_is_no_key_is_refused(tmp_path: Path, relaxing: str) -> None:
    """A misspelt key id in the list of callers is an error at the start, not a silent nobody."""
    with pytest.raises(ConfigError, match="callers"):
        Settings(
            keys=KEYS[:1],
            exemptions=ExemptionSettings(
                "log", "keys", relaxing, str(tmp_path), {"anne": Member()}
            ),
        )


def _judged(row: PromptRow | FinalRow) -> dict[str, Any]:
    """Return what scoring and logging wrote: all but whose it was, when, and the action."""
    other = ("decision_id", "at", "key_id", "action", "grant_id", "latency")
    shadow = ("mode", "shadow", "would_block")
    fields = msgspec.structs.asdict(row).items()
    return {name: value for name, value in fields if name not in (*other, *shadow)}


words = st.lists(
    st.sampled_from([MARKER, "green", "tea", "café", "and the", MARKER[:9]]), min_size=1, max_size=8
).map(" ".join)


def test_scores_rows_and_coverage_are_those_of_an_audit(stage: Start, site: Site) -> None:
    """Whatever is said, an exempt exchange is scored and logged like one that is only watched.

    The watched key is in shadow and has no grant: everything is scored to its end, as for the
    exempt key. Only the action, the grant, the mark of the shadow and whose it was may differ.
    """
    site.exempt(seats=1)
    watched = msgspec.structs.replace(KEYS[3], policies={"openai.chat": SurfacePolicy(shadow=True)})
    at = start(stage, site, keys=(*KEYS[:3], watched))

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(prompt=words, reply=words)
    def alike(prompt: str, reply: str) -> None:
        at.upstream.script = says(reply, size=3)
        seen = []
        for who in ("ann", "eve"):
            # Whole, not streamed: where a stream's block is noticed depends on its packets.
            ask(at, who, prompt, stream=False)
            final = at.finals()[-1]
            assert final.scored_bytes == len(reply.encode())
            assert "".join(one.text for one in final.delivered) == reply
            seen.append((_judged(at.prompts()[-1]), _judged(final)))
        assert seen[0][0] == seen[1][0]
        assert seen[0][1] == seen[1][1]

    alike()


def _never(path: object) -> Any:
    raise AssertionError(path)
