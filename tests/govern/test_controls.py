"""Every automatic control is alive: green on a healthy host, red where it claims a fault."""

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from safehold.govern.controls.engine import judge_all, judged, read_again, run_controls
from safehold.govern.controls.facts.readers import READERS, collect
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.interface import (
    DAY,
    Assurance,
    ControlError,
    ControlRun,
    ControlStatus,
    HostFacts,
)
from safehold.govern.controls.judges.table import JUDGES
from safehold.govern.controls.library import parse_catalogue, stock_catalogue
from safehold.testing.hosts import NOW, SITE, RecordedHost, healthy, used
from safehold.testing.planted import PLANTS, automatic_red

CATALOGUE = stock_catalogue()
AUTOMATIC = [one.id for one in CATALOGUE.controls if one.way is Assurance.AUTOMATIC]


def test_catalogue_has_every_row_and_safeguard() -> None:
    """The catalogue has 179 rows, 148 of them automatic, and each published safeguard has one."""
    assert len(CATALOGUE.controls) == 179
    assert len(AUTOMATIC) == 148
    assert len({name for one in CATALOGUE.controls for name in one.safeguards}) == 17


def test_healthy_host_is_green() -> None:
    """On a healthy host every automatic control passes."""
    assert automatic_red(healthy()) == set()


@pytest.mark.parametrize("name", PLANTS)
def test_planted_fault_is_found_by_exactly_its_controls(name: str) -> None:
    """A planted fault turns red the controls that claim it, and no other."""
    plant, claims = PLANTS[name]
    assert automatic_red(plant(healthy())) == claims


def test_each_automatic_control_claims_a_fault() -> None:
    """No control counts as automatic without a planted fault that it finds."""
    assert set().union(*(claims for _, claims in PLANTS.values())) == set(AUTOMATIC)


@pytest.mark.parametrize("name", AUTOMATIC)
def test_inverted_judge_is_noticed(name: str) -> None:
    """A judge turned round is red on the healthy host: the table above would fail."""
    original = JUDGES[name]

    def inverted(facts: HostFacts) -> Iterator[str]:
        if not list(original(facts)):
            yield "inverted"

    assert automatic_red(healthy(), {**JUDGES, name: inverted}) == {name}


@pytest.mark.parametrize("name", AUTOMATIC)
def test_deaf_judge_is_noticed(name: str) -> None:
    """A judge that never speaks misses a planted fault that its control claims."""

    def deaf(_: HostFacts) -> Iterator[str]:
        return iter(())

    plant = next(plant for plant, claims in PLANTS.values() if name in claims)
    facts = collect(plant(healthy()), SITE)
    assert judged(JUDGES[name], facts)[0] is not ControlStatus.PASSED
    assert judged(deaf, facts)[0] is ControlStatus.PASSED


@pytest.mark.parametrize(
    "fault",
    [
        "quota raised by hand",
        "witness late",
        "decoy removed",
        "gateway down",
        "bundle unreleased",
        "ruleset changed: a way out accepts by default",
        "endpoint guard dead",
        "log not cosigned",
        "ledger gap",
    ],
)
def test_fault_that_was_asked_for_has_one_owner_in_the_table(fault: str) -> None:
    """Each fault of the acceptance list is planted, and one control claims it."""
    assert len(PLANTS[fault][1]) == 1


def test_bare_host_passes_nothing_of_ours() -> None:
    """A host without files, commands or log satisfies no control at all."""
    bare = RecordedHost(files={}, commands={}, reading=healthy().reading, killed=frozenset({"log"}))
    run = run_controls(CATALOGUE, bare, Site())
    assert [one.control for one in run.results if one.satisfied] == []
    assert len(run.results) == 179


@pytest.mark.parametrize("killed", ["nft", "tc", "auditctl", "log", "/proc/self/mountinfo"])
def test_killed_reader_is_an_error_not_a_pass(killed: str) -> None:
    """What depends on a reader that was killed is an error."""
    facts = collect(replace(healthy(), killed=frozenset({killed})), SITE)
    found = {judged(JUDGES[name], facts)[0] for name in red_names(killed)}
    assert found == {ControlStatus.ERROR}


def red_names(killed: str) -> set[str]:
    """Return a control that depends on a reader."""
    return {
        "nft": {"egr-01", "egr-03"},
        "tc": {"egr-04"},
        "auditctl": {"mon-03"},
        "log": {"wac-02", "mon-01", "mon-02", "gov-09"},
        "/proc/self/mountinfo": {"bin-06"},
    }[killed]


def test_any_broken_answer_is_an_error_of_its_reader_alone() -> None:
    """Nonsense from any command is a fault in place of facts, and the run goes on."""
    for argv in healthy().commands:
        for said in ("", "[]", "{}", "null", "\0\xff nonsense", '{"nftables": [{"chain": {}}]}'):
            results = run_controls(CATALOGUE, healthy().command(*argv, said=said), SITE).results
            assert len(results) == 179


def test_document_that_nobody_renews_is_stale() -> None:
    """A document older than its age is stale, and what rests on it is not satisfied."""
    facts = collect(healthy().stated("decoys", written=NOW - 30 * DAY), SITE)
    assert judged(JUDGES["dec-05"], facts)[0] is ControlStatus.STALE
    ahead = collect(healthy().stated("decoys", written=NOW + DAY), SITE)
    assert judged(JUDGES["dec-05"], ahead)[0] is ControlStatus.STALE


def test_two_periods_later_everything_is_stale() -> None:
    """A saved run that nobody repeats satisfies nothing two periods later, and a cut one misses."""
    run = run_controls(CATALOGUE, healthy(), SITE)
    later = read_again(run, CATALOGUE, NOW + 2 * max(one.period_s for one in CATALOGUE.controls))
    assert {one.status for one in later} == {ControlStatus.STALE}
    before = read_again(run, CATALOGUE, NOW - 1)
    assert not any(one.satisfied for one in before)
    cut = read_again(replace_results(run), CATALOGUE, NOW)
    assert [one.status for one in cut] == [ControlStatus.MISSING] * 179


def replace_results(run: ControlRun) -> ControlRun:
    """Return a run without any result."""
    return msgspec.structs.replace(run, results=())


@pytest.mark.parametrize(
    ("operation", "signers", "details", "status"),
    [
        ("controls.attest", ("p-sec1",), {}, ControlStatus.ATTESTED),
        ("controls.attest", ("p-dev1",), {}, ControlStatus.MISSING),
        ("controls.attest", ("p-sec1",), {"expires": str(NOW)}, ControlStatus.MISSING),
        ("controls.attest", ("p-sec1",), {"expires": str(NOW + 800 * DAY)}, ControlStatus.MISSING),
        ("controls.attest", ("p-sec1",), {"owner": "p-gone"}, ControlStatus.MISSING),
        ("controls.attest", ("p-sec1",), {"evidence": ""}, ControlStatus.MISSING),
        ("controls.except", ("p-sec1", "p-dev2"), {}, ControlStatus.EXCEPTED),
        ("controls.except", ("p-sec1",), {}, ControlStatus.MISSING),
        ("controls.except", ("p-sec1", "p-dev2"), {"reason": ""}, ControlStatus.MISSING),
        ("controls.except", ("p-sec1", "p-dev2"), {"expires": str(NOW - 1)}, ControlStatus.MISSING),
    ],
)
def test_persons_answer_for_a_control_only_with_owner_and_expiry(
    operation: str, signers: tuple[str, ...], details: dict[str, str], status: ControlStatus
) -> None:
    """An attestation needs two signers, evidence, a living owner and an expiry; so an exception."""
    given = {
        "control": "iam-01",
        "owner": "p-sec1",
        "expires": str(NOW + 30 * DAY),
        "evidence": "a" * 64,
        "reason": "keys are on order",
    } | details
    host = healthy().with_case(used(operation, *signers, details=given))
    results = {one.control: one for one in judge_all(CATALOGUE, collect(host, SITE))}
    assert results["iam-01"].status is status


def test_file_that_the_read_meter_closes_is_judged_by_its_header() -> None:
    """A metered shard can't be read by the check itself, and that alone is no fault."""
    shard = "/var/lib/safehold/weights/brewer/model-1.safetensors.sealed"
    assert automatic_red(replace(healthy(), closed=frozenset({shard}))) == set()


def test_not_applicable_needs_an_exception() -> None:
    """A fact that a control can't apply is not enough: it counts as not satisfied."""
    facts = collect(healthy().without("/dev"), SITE)
    found = {one.control: one for one in judge_all(CATALOGUE, facts)}["hst-10"]
    assert found.status is ControlStatus.NOT_APPLICABLE
    assert not found.satisfied
    assert found.reasons == ("this host has no accelerator",)


def test_catalogue_that_contradicts_itself_is_refused() -> None:
    """A row twice, an unknown technique or an automatic row without a judge refuses."""
    row = (
        'title = "t"\nkind = "preventive"\nstage = "insider"\ntheme = "x"\nnist = []\n'
        'atlas = []\nsl5 = ""\nsafeguards = []\nperiod_s = 60\nhow = "h"\n'
    )
    for rows in (
        '[[control]]\nid = "zzz-01"\nway = "automatic"\nattack = []\n',
        '[[control]]\nid = "zzz-01"\nway = "evidence"\nattack = ["T9999"]\n',
    ):
        with pytest.raises(ControlError):
            parse_catalogue({"z.toml": f'id = "zzz"\ntitle = "z"\n{rows}{row}'})


def test_every_reader_is_used() -> None:
    """Each reader's facts change a verdict: without them some control is an error."""
    whole = collect(healthy(), SITE)
    for kind in READERS:
        without = HostFacts({one: whole[one] for one in whole if one is not kind}, NOW)
        assert any(judged(JUDGES[name], without)[0] is ControlStatus.ERROR for name in AUTOMATIC), (
            kind
        )


@pytest.mark.parametrize("name", ["chg-16", "sup-01", "sup-04"])
def test_host_without_programs_passes_nothing_about_programs(name: str) -> None:
    """Where only bundles are listed, what is judged of programs is an error, not a pass."""
    host = healthy().rows("deployments", "deployed", 0, kind="bundle", sha256="cd" * 32)
    assert judged(JUDGES[name], collect(host, SITE))[0] is ControlStatus.ERROR


def test_no_model_looked_at_is_no_pass() -> None:
    """An empty scan for unsafe formats satisfies nothing."""
    facts = collect(healthy().stated("supply", models=0), SITE)
    assert judged(JUDGES["sup-05"], facts)[0] is ControlStatus.FAILED
