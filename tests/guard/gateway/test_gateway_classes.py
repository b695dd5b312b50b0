"""A second class beside the first in a real gateway: in shadow, acting, exempted, switched off."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import CliRunner
from gateway_process import served

from safehold.cli.ledger import ledger
from safehold.errors import BundleError, ConfigError, SafeholdError
from safehold.guard.gateway.assembly import open_gateway
from safehold.guard.gateway.bundles.class_switches import ClassSwitches
from safehold.guard.gateway.bundles.classes import load_classes
from safehold.guard.gateway.bundles.loading import class_loader
from safehold.guard.gateway.bundles.released import enforced
from safehold.guard.gateway.class_settings import ClassSwitchSettings, GuardClass
from safehold.guard.gateway.interface import Exempt, NotExempt, Relief, Surface
from safehold.guard.gateway.operate.reloading import changed
from safehold.guard.gateway.policy import Canary, Key, Settings, Upstream, digest_key
from safehold.guard.gateway.server import Parts
from safehold.guard.ledger.class_counts import class_counts
from safehold.guard.ledger.interface import EventKind, EventRow, FinalRow, Outcome, PromptRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.stats import Rate
from safehold.testing.guards import MARKER, held_rules
from safehold.testing.ledger import MemoryLedger
from safehold.testing.released import RELEASE_RULES, ReleaseChannel, settings_artefact
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.testing.upstream import MockUpstream, says
from safehold.trust.grants.details import ClassOff
from safehold.trust.release.interface import Artefact, ArtefactKind

BARREL = "red barrel"
SOAP = GuardClass(bundle="soap.yaml")
ON = msgspec.structs.replace(SOAP, rollout="on")
WEB = httpx.Client(timeout=60)


@pytest.fixture(scope="module", autouse=True)
def connections() -> Iterator[None]:
    """Close what the tests' requests left open."""
    yield
    WEB.close()


def parts(**changes: object) -> Parts:
    """Return a gateway's parts: the first class stops the marker, the second red barrels."""
    made = Parts(
        loader=no_loader,
        held=held_rules(digest="1" * 64),
        classes={"soap": held_rules(BARREL, digest="2" * 64)},
    )
    return msgspec.structs.replace(made, **changes)


def no_loader(path: object) -> object:
    """Stand where no test loads a bundle."""
    raise AssertionError(path)


def ask(url: str, text: str = "hello", **changes: object) -> str:
    """Return what a client is answered."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | changes
    answer = WEB.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 200
    if changes.get("stream"):
        return answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def class_rows(ledger: MemoryLedger) -> list[dict[str, object]]:
    """Return what the further classes said, oldest first."""
    rows = [row for row in ledger.rows if isinstance(row, EventRow)]
    return [dict(row.detail) for row in rows if row.kind is EventKind.CLASS]


def shown(row: PromptRow | FinalRow) -> dict[str, object]:
    """Return a row without what no two exchanges share.

    How much was scored when a stream is stopped depends on how much of it had come by then.
    """
    fields = msgspec.to_builtins(row)
    own = {"decision_id", "at", "latency"}
    if isinstance(row, FinalRow) and row.outcome is Outcome.BLOCKED_BY_GUARD:
        own.add("scored_bytes")
    return {name: value for name, value in fields.items() if name not in own}


TEXTS = (
    ("hello", "the water boils. " * 30),
    ("hello", f"the {BARREL} is here. " * 30),
    ("hello", f"a blue barrel, then the {MARKER} and so on. " * 3),
    (f"say {MARKER}", "no"),
    (f"paint a {BARREL}", "yes " * 40),
    (f"{BARREL} and {MARKER}", "yes"),
)


@pytest.mark.parametrize("stream", [True, False])
def test_a_shadow_changes_no_row_of_the_first_class(stage: Callable, stream: bool) -> None:  # noqa: FBT001 - a case
    """Item for item the same answers and rows with and without the second class."""
    found = []
    for classes, made in (({}, parts(classes={})), ({"soap": SOAP}, parts())):
        answers, rows = [], []
        for text, reply in TEXTS:
            one = stage(says(reply, size=7), made, classes=classes, canary=Canary(enabled=False))
            answers.append(ask(one.gateway.url, text, stream=stream))
            rows.append([shown(row) for row in (*one.prompts(), *one.finals())])
            if classes:
                (said,) = class_rows(one.ledger)
                blocked = BARREL in text or (BARREL in reply and MARKER not in text)
                assert (said["class"], said["bundle"]) == ("soap", "2" * 64)
                assert said["acts"] is False
                assert said["verdict"] == ("block" if blocked else "allow")
            else:
                assert class_rows(one.ledger) == []
        found.append((answers, rows))
    (alone, alone_rows), (both, both_rows) = found
    assert [_masked(one) for one in alone] == [_masked(one) for one in both]
    assert alone_rows == both_rows


def _masked(answer: str) -> tuple[str, list[str]]:
    """Return an answer's text, and its other events without ids.

    Into how many pieces a streamed text falls depends on how fast its parts come.
    """
    if not answer.startswith("data:"):
        return answer, []
    text, rest = "", []
    for line in answer.splitlines():
        if not line.startswith("data: {"):
            rest += [line] if line.startswith("data:") else []
            continue
        for choice in json.loads(line[6:]).get("choices") or ():
            text += choice["delta"].pop("content", None) or ""
            if choice["delta"] or choice["finish_reason"]:
                rest.append(json.dumps(choice))
    return text, rest


def test_an_acting_class_stops_as_itself_where_it_acts(stage: Callable) -> None:
    """Prompts and replies of its subject are stopped on its surfaces; the rows name the class."""
    one = stage(says(f"so the {BARREL} is here. " * 20), parts(), classes={"soap": ON})
    assert BARREL not in ask(one.gateway.url)
    assert BARREL not in ask(one.gateway.url, stream=True)
    assert one.finals()[-1].clause == "soap.test-marker"
    ask(one.gateway.url, f"paint a {BARREL}")
    assert one.prompts()[-1].clause == "soap.test-marker"
    assert class_rows(one.ledger)[-1]["acts"] is True
    text = WEB.get(f"{one.gateway.url}/metrics").text
    assert (
        'safehold_class_exchanges_total{guard_class="soap",state="on",verdict="block"} 3.0' in text
    )
    assert 'safehold_class_state{guard_class="first",state="on"} 1.0' in text
    ready = WEB.get(f"{one.gateway.url}/readyz").json()
    assert ready["classes"] == {"first": "on", "soap": "on"}
    elsewhere = msgspec.structs.replace(ON, surfaces=(Surface.MESSAGES,))
    two = stage(says(f"the {BARREL} is here"), parts(), classes={"soap": elsewhere})
    assert BARREL in ask(two.gateway.url)


def test_a_class_may_act_for_some_tenants_first(stage: Callable) -> None:
    """A tenant that the rollout names is stopped; another one's exchange is only noted."""
    secrets = {"acme": "k" * 20 + "0123456789", "other": "m" * 20 + "0123456789"}
    keys = tuple(Key(id=who, sha256=digest_key(key), tenant=who) for who, key in secrets.items())
    only = msgspec.structs.replace(ON, tenants=("acme",))
    one = stage(says(f"the {BARREL} is here"), parts(), classes={"soap": only}, keys=keys)
    said = {}
    for who, key in secrets.items():
        answer = WEB.post(
            f"{one.gateway.url}/v1/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": "hello"}]},
            headers={"authorization": f"Bearer {key}"},
        )
        said[who] = answer.json()["choices"][0]["message"]["content"]
    assert BARREL not in said["acme"]
    assert BARREL in said["other"]


class Granting:
    """Grants that deliver what these clauses would stop."""

    def __init__(self, *clauses: str) -> None:
        self.clauses = clauses

    def action_for(
        self, subject: str | None, use_case: str | None, clause: str, surface: str, now: float
    ) -> Exempt | NotExempt:
        """Exempt the clauses."""
        del subject, use_case, surface, now
        if clause in self.clauses:
            return Exempt(grant_id="g", relief=Relief.DELIVER)
        return NotExempt()


@pytest.mark.parametrize(
    ("granted", "passes"),
    [((), set()), (("test-marker",), {MARKER}), (("soap.test-marker",), {BARREL}),
     (("test-marker", "soap.test-marker"), {MARKER, BARREL, "both"})],
)  # fmt: skip
def test_each_class_has_exemptions_of_its_own(
    stage: Callable, granted: tuple[str, ...], passes: set[str]
) -> None:
    """A grant of one class's clause lets nothing of another class pass, clauses alike or not."""
    made = parts(exemptions=Granting(*granted))
    for name, text in ((MARKER, MARKER), (BARREL, BARREL), ("both", f"{MARKER} {BARREL}")):
        one = stage(says("fine"), made, classes={"soap": ON}, canary=Canary(enabled=False))
        assert (ask(one.gateway.url, text) == "fine") is (name in passes), name


def test_a_class_that_breaks_in_shadow_holds_up_nobody(stage: Callable) -> None:
    """A second class without a usable scorer is told of, and the client is answered."""
    broken = held_rules(BARREL)
    broken.guard = Defective()
    one = stage(says("fine"), parts(classes={"soap": broken}), classes={"soap": SOAP})
    assert ask(one.gateway.url) == "fine"
    assert class_rows(one.ledger)[-1]["verdict"] == "unscored"


class Defective:
    """Makes sessions whose every step is a defect."""

    digest = "3" * 64

    def session(self, *_: object, **__: object) -> "Defective":
        """Return itself."""
        return self

    def judge_prompt(self) -> object:
        """Break."""
        raise KeyError

    feed = close = finish = report = judge_prompt


GRANT_RULE = """
[[rule]]
operation = "class.switch-off"
thresholds = [{ team = "t-development", count = 2 }]
max_duration_s = 604800
keys = ["ssh"]
"""


class LoggedSite:
    """A log whose policy knows the switch of a class, and settings that name it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.enclave = Enclave(
            root / "log",
            policy=POLICY + GOVERNING + RELEASE_RULES + GRANT_RULE,
            now=int(time.time()) - 60,
        )
        (root / "pinned.json").write_bytes((root / "log" / "log.json").read_bytes())
        self.settings = ClassSwitchSettings(
            log=str(root / "log"), log_keys=str(root / "pinned.json"), reload_s=0.1
        )

    def released(self, *others: str) -> dict[str, object]:
        """Release settings and bundles, the further ones by digest; return how to start."""
        channel = ReleaseChannel(self.enclave, self.root / "releases")
        declared = Settings(classes={"soap": ON}, class_switches=self.settings)
        guards = [
            Artefact(path=digest[:4], kind=ArtefactKind.BUNDLE, sha256=digest)
            for digest in ("1" * 64, *others)
        ]
        channel.publish(channel.next(*guards, settings_artefact(ArtefactKind.GATEWAY, declared)))
        return {
            "releases": channel.settings,
            "parts": parts(declared=declared),
            "classes": {"soap": ON},
            "class_switches": self.settings,
            "canary": Canary(enabled=False),
        }

    def switch_off(self, name: str, *, lasts: int = 600, approved: bool = True) -> None:
        """Have two persons switch a class off, in the log."""
        until = int(time.time()) + lasts
        details = ClassOff(guard_class=name, until=until, reason="a flood of false alarms")
        request = self.enclave.ask(operation="class.switch-off", details=details)
        self.enclave.file(request)
        if approved:
            self.enclave.approve(request, "dev-two", "dev-three")


def until(true: Callable[[], bool]) -> None:
    """Wait for something that comes within seconds."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def switches_in(ledger: MemoryLedger) -> list[dict[str, object]]:
    """Return what was told of switches, oldest first."""
    rows = [row for row in ledger.rows if isinstance(row, EventRow)]
    return [dict(row.detail) for row in rows if row.kind is EventKind.CLASS_SWITCH]


@pytest.mark.parametrize("off", ["first", "soap"])
def test_each_class_is_switched_off_alone_by_a_grant(
    stage: Callable, tmp_path: Path, off: str
) -> None:
    """The other class goes on; the switch ends by itself, and rows tell of both."""
    site = LoggedSite(tmp_path)
    one = stage(says("fine"), **site.released("2" * 64))
    asks = {"first": MARKER, "soap": BARREL}
    other = {"first": "soap", "soap": "first"}[off]
    assert ask(one.gateway.url, asks[off]) != "fine"
    site.switch_off(off, approved=False)
    site.switch_off(off, lasts=8)
    until(lambda: ask(one.gateway.url, asks[off]) == "fine")
    assert ask(one.gateway.url, asks[other]) != "fine"
    assert WEB.get(f"{one.gateway.url}/readyz").json()["classes"][off] == "off"
    until(lambda: ask(one.gateway.url, asks[off]) != "fine")
    told = [(off, "off"), (off, "back")]
    until(lambda: [(row["class"], row["state"]) for row in switches_in(one.ledger)] == told)


def test_a_class_that_is_not_released_is_not_served(tmp_path: Path) -> None:
    """Where releases are enforced, the second bundle must be in the release like the first."""
    site = LoggedSite(tmp_path)
    given = site.released()
    settings = Settings(
        upstream=Upstream(url="http://127.0.0.1:9"),
        classes={"soap": ON},
        class_switches=site.settings,
        releases=given["releases"],
    )
    with pytest.raises(BundleError, match="class soap: not released"):
        asyncio.run(open_gateway(settings, given["parts"]))


def test_a_log_that_does_not_verify_switches_nothing_off(tmp_path: Path) -> None:
    """What can't be read is no switch: the class guards again, and an alarm tells of it."""
    site = LoggedSite(tmp_path)
    site.switch_off("soap")
    ledger, alarms = MemoryLedger(), []
    switches = ClassSwitches(
        site.settings, names=("first", "soap"), ledger=ledger, alarm=alarms.append, clock=time.time
    )
    assert switches.off("soap") is not None
    assert switches.off("first") is None
    for file in (tmp_path / "log").rglob("*"):
        if file.is_file() and file.name == "checkpoint":
            file.write_text("nonsense")
    asyncio.run(switches.look())
    assert switches.off("soap") is None
    assert "class_switch_log" in alarms


def test_a_gateway_that_enforces_releases_is_wanted_for_switches() -> None:
    """A log of grants without releases is refused, as for exemptions."""
    switches = ClassSwitchSettings(log="l", log_keys="k")
    with pytest.raises(ConfigError, match="class_switches"):
        enforced(Settings(class_switches=switches))


@pytest.mark.parametrize(
    "given",
    [
        {"classes": {"first": SOAP}},
        {"classes": {"Soap!": SOAP}},
        {"class_name": "soap", "classes": {"soap": SOAP}},
        {"class_name": ""},
    ],
)
def test_names_that_could_not_be_told_apart_are_refused(given: dict[str, object]) -> None:
    """Each class has a name of its own that rows and grants can carry."""
    with pytest.raises(ConfigError, match="class"):
        Settings(**given)
    Settings(classes={"soap": SOAP})


def test_a_rollout_changes_while_it_serves_and_a_bundle_does_not() -> None:
    """From shadow to on is a reload; another bundle or another class is a restart."""
    old = Settings(classes={"soap": SOAP})
    assert changed(old, Settings(classes={"soap": ON})) == ("classes",)
    other = msgspec.structs.replace(SOAP, bundle="bread.yaml")
    for classes in ({"soap": other}, {}, {"soap": SOAP, "bread": other}):
        with pytest.raises(ConfigError, match="restart"):
            changed(old, Settings(classes=classes))


def test_a_bundle_that_does_not_verify_is_named_by_its_class(tmp_path: Path) -> None:
    """The gateway does not start with a class that it could not load."""
    settings = Settings(bundle_sha256="0" * 64)
    missing = GuardClass(bundle=str(tmp_path))
    with pytest.raises(SafeholdError, match="class soap: "):
        asyncio.run(
            load_classes({"soap": missing}, lambda one: class_loader(settings, one), {}, print)
        )
    with pytest.raises(BundleError):
        class_loader(settings, GuardClass(bundle=str(tmp_path / "none.yaml")))(
            tmp_path / "none.yaml"
        )


def test_serve_takes_a_second_bundle_in_shadow(tmp_path: Path) -> None:
    """`--bundle` given twice: the second is named as its file, watches, and has rows."""
    rule = {"id": "b", "clause": "test/barrel", "pattern": BARREL, "example": BARREL}
    (tmp_path / "soap.yaml").write_text(json.dumps({"rules": [rule]}))
    with (
        MockUpstream(says(f"the {BARREL} is here")) as upstream,
        served(tmp_path, upstream.url, "--bundle", str(tmp_path / "soap.yaml")) as at,
    ):
        url = f"http://127.0.0.1:{at.port}"
        assert BARREL in ask(url)
        assert WEB.get(f"{url}/readyz").json()["classes"] == {"first": "on", "soap": "shadow"}
    entries = [entry.row for entry in LedgerReader.open(at.ledger).tail(100)]
    said = [row.detail for row in entries if isinstance(row, EventRow) and row.kind == "class"]
    assert [(one["class"], one["verdict"], one["clause"]) for one in said] == [
        ("soap", "block", "test/barrel")
    ]
    counts = {(one.name, one.state): one for one in class_counts(LedgerReader.open(at.ledger))}
    assert set(counts) == {("", "on"), ("soap", "shadow")}
    assert counts["", "on"].blocked == Rate(0, 1)
    assert counts["soap", "shadow"].blocked == Rate(1, 1)
    assert counts["soap", "shadow"].clauses == {"test/barrel": 1}
    told = CliRunner().invoke(ledger, ["--ledger", at.ledger, "classes"])
    assert "soap (shadow): would have stopped 100.000% (n=1" in told.stdout
