"""The report: states, levels that never receive what they may not show, bytes that repeat."""

import io
import json
import subprocess
import sys
import zlib
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader

from safehold.canonical import sha256_hex
from safehold.cli import safehold
from safehold.cli._respond_stage import Mark
from safehold.demo.heist.steps import as_json as in_json
from safehold.demo.heist.table import HeistOutcome, HeistTry
from safehold.detect.bounty.book import BountyEntry, Due
from safehold.detect.bounty.interface import BountyState
from safehold.errors import TrustError
from safehold.govern.controls.engine import read_again, run_controls
from safehold.govern.controls.interface import DAY
from safehold.govern.controls.library import stock_catalogue
from safehold.govern.report.adapters import ADAPTERS, figures_of
from safehold.govern.report.build import build_report, report_sha256
from safehold.govern.report.case import parse_case, read_case
from safehold.govern.report.difference import differences, looser
from safehold.govern.report.gather import of_controls, of_log
from safehold.govern.report.interface import (
    Audience,
    CaseEvidence,
    CaseSources,
    ClaimState,
    Doubt,
    Figure,
    Node,
    NodeKind,
    Operator,
    Predicate,
    Report,
    ReportError,
    SafetyCase,
    Section,
)
from safehold.govern.report.judge import judge_case, meets
from safehold.govern.report.level import TOO_FEW, WITHHELD
from safehold.govern.report.render import report_html, report_pdf
from safehold.govern.report.signing import signers_of
from safehold.improve.response.race import Defence, RaceResult, RaceSettings
from safehold.stats import Rate
from safehold.testing.hosts import NOW, SITE, RecordedHost, healthy, used
from safehold.trust.demands.met import MetControls, met_note
from safehold.trust.log.note import SigningKey

CATALOGUE = stock_catalogue()
CASE = read_case("asl3")
BUNDLE = "b" * 64


def evidence(name: str, *, made: int = NOW, bundle: str = "", **fields: Figure) -> CaseEvidence:
    """Return evidence that holds 90 days."""
    return CaseEvidence(
        id=name, kind=name, made=made, holds_s=90 * DAY, bundle=bundle, fields=dict(fields)
    )


def sources(
    host: RecordedHost | None = None, *, at: int = NOW, bundle: str = BUNDLE
) -> CaseSources:
    """Return the sources of a healthy enclave whose red team found 1 of 200."""
    run = run_controls(CATALOGUE, host or healthy(), SITE)
    public = Audience.PUBLIC
    found = [
        *of_controls(read_again(run, CATALOGUE, at)),
        *of_log(healthy().reading, at),
        evidence("redteam", bundle=BUNDLE, rate=Figure(audience=public, events=1, n=200)),
        evidence("race", lost_response=Figure(audience=public, events=1, n=30),
                 benign_ended=Figure(audience=public, events=0, n=1500)),
        evidence("bounty", unmended=Figure(audience=public, number=0)),
        evidence("response", verified=Figure(audience=public, number=1)),
        evidence("heist", unheld=Figure(audience=public, number=0)),
        evidence("coverage", gaps=Figure(audience=public, number=0)),
        evidence(
            "threshold:weapons-basic-uplift", status=Figure(audience=public, text="cannot rule out")
        ),
        evidence(
            "standing:asl-3-deployment",
            in_force=Figure(audience=public, number=1),
            precautionary=Figure(audience=public, text="yes"),
            provisional=Figure(audience=public, text="yes"),
        ),
    ]  # fmt: skip
    return CaseSources(at=at, bundle=bundle, evidence={one.id: one for one in found})


def states(given: CaseSources, case: SafetyCase = CASE) -> dict[str, ClaimState]:
    """Return the state of each claim."""
    return {name: one.state for name, one in judge_case(case, given).items()}


def test_healthy_enclave_supports_every_claim_of_the_stock_case() -> None:
    """All nine sections stand, and each claim is supported."""
    report = build_report(CASE, sources(), Audience.PUBLIC)
    assert {one.section for one in CASE.node} >= set(Section)
    assert {one.state for one in report.claims} == {ClaimState.SUPPORTED}
    redteam = next(one for one in report.claims if one.id == "redteam")
    assert "n=200, 95% upper bound 2.350%" in redteam.text


def test_another_live_bundle_makes_its_claims_stale() -> None:
    """Evidence of a bundle that is not live any more is stale, and all that rests on it."""
    found = states(sources(bundle="c" * 64))
    assert {name for name, one in found.items() if one is not ClaimState.SUPPORTED} == {
        "redteam",
        "evidence",
        "deployment",
        "sufficiency",
    }
    assert found["redteam"] is ClaimState.STALE


def test_overdue_control_makes_its_goals_unsupported() -> None:
    """A control whose result is overdue is not satisfied: its goals fall, and so up to the top."""
    found = states(sources(at=NOW + 2 * DAY))
    assert found["two-party"] is ClaimState.UNSUPPORTED
    assert found["security"] is found["sufficiency"] is ClaimState.UNSUPPORTED


def test_planted_fault_reaches_its_goal() -> None:
    """A quota raised by hand takes the claim about egress down, and no other top claim."""
    host = healthy().said(
        "nft", "-j", "list", "ruleset", old='"bytes": 40000000,', new='"bytes": 90000000,'
    )
    found = states(sources(host))
    fallen = {name for name, one in found.items() if one is ClaimState.UNSUPPORTED}
    assert fallen == {"quotas", "egress", "security", "sufficiency"}


@pytest.mark.parametrize("kind", ["dissent", "incident"])
def test_doubt_undermines_what_it_names(kind: str) -> None:
    """A dissent or an open incident undermines its claim and all that rests on it."""
    doubt = Doubt(kind=kind, about=("controls:egr-17",), text="secret words")
    given = msgspec.structs.replace(sources(), doubts=(doubt,))
    found = states(given)
    assert found["blocks"] is found["sufficiency"] is ClaimState.UNDERMINED
    page = report_html(build_report(CASE, given, Audience.PUBLIC))
    assert "secret words" not in page
    assert WITHHELD in page


def marked(marker: str) -> tuple[SafetyCase, CaseSources]:
    """Return a case and sources with a marker in every internal and partner value."""

    def node(name: str, audience: Audience, **more: object) -> Node:
        words = f"{marker}x" if audience is not Audience.PUBLIC else "plain words {e.secret}"
        return Node(id=name, kind=NodeKind.GOAL, text=words, audience=audience, **more)

    solution = Node(
        id="s-public",
        kind=NodeKind.SOLUTION,
        text="shown {e.open}",
        audience=Audience.PUBLIC,
        evidence="e",
        predicate=Predicate("secret", Operator.IS, f"{marker}v"),
    )
    hidden = Node(
        id=f"{marker}-id",
        kind=NodeKind.SOLUTION,
        text=f"{marker} text",
        evidence=f"{marker}-e",
        predicate=Predicate("k", Operator.IS, marker),
    )
    case = SafetyCase(
        id="c",
        title="A report",
        node=(
            node("top", Audience.PUBLIC, section=Section.PLAN,
                 supported_by=("s-public", f"{marker}-id", f"{marker}-goal")),
            node(f"{marker}-goal", Audience.PARTNER, supported_by=("s-public",)),
            solution,
            hidden,
        ),
    )  # fmt: skip
    found = [
        CaseEvidence(
            id="e",
            kind="test",
            made=NOW,
            holds_s=DAY,
            method=f"{marker} method",
            fields={
                "open": Figure(audience=Audience.PUBLIC, text="open words"),
                "secret": Figure(text=f"{marker}v"),
                f"{marker}_name": Figure(audience=Audience.PARTNER, text=f"{marker} partner"),
                "few": Figure(audience=Audience.PUBLIC, events=1, n=3),
            },
        ),
        evidence(f"{marker}-e", k=Figure(text=marker)),
    ]
    doubts = (Doubt(kind="dissent", about=(f"{marker}-id",), text=f"{marker} doubt"),)
    return case, CaseSources(
        at=NOW, bundle="", evidence={one.id: one for one in found}, doubts=doubts
    )


def streams(pdf: bytes) -> bytes:
    """Return all bytes of a PDF, each stream inflated."""
    parts = [pdf]
    for part in pdf.split(b"stream\n")[1:]:
        try:
            parts.append(zlib.decompressobj().decompress(part))
        except zlib.error:
            continue
    return b"".join(parts)


def test_marker_of_an_internal_field_is_in_no_public_byte() -> None:
    """Nothing internal or of a partner is in the public JSON, page, PDF text, streams, metadata."""
    marker = "zq7marker"
    case, given = marked(marker)
    public = build_report(case, given, Audience.PUBLIC)
    pdf = report_pdf(public)
    reader = PdfReader(io.BytesIO(pdf))
    shown = [
        msgspec.json.encode(public).decode(),
        report_html(public),
        "".join(page.extract_text() for page in reader.pages),
        str(reader.metadata),
        streams(pdf).decode("latin-1"),
    ]
    assert all(marker not in one for one in shown)
    assert "open words" in shown[1]
    assert TOO_FEW in shown[1]
    inside = build_report(case, given, Audience.INTERNAL)
    assert report_html(inside).count(marker) >= 8
    partner = report_html(build_report(case, given, Audience.PARTNER))
    assert f"{marker} partner" in partner
    assert f"{marker} method" not in partner
    assert f"{marker}v" not in partner


@given(st.text(min_size=1, max_size=40), st.sampled_from(list(Audience)))
def test_words_of_evidence_never_become_markup(text: str, level: Audience) -> None:
    """Whatever evidence says is escaped."""
    figure = Figure(audience=Audience.PUBLIC, text=f"<script>{text}")
    given_ = CaseSources(at=NOW, bundle="", evidence={"e": evidence("e", open=figure)})
    case, _ = marked("m")
    assert "<script" not in report_html(build_report(case, given_, level))


def test_pages_repeat_byte_for_byte_in_another_process(tmp_path: Path) -> None:
    """HTML and PDF of one report are the same bytes, made by two processes."""
    public = build_report(CASE, sources(), Audience.PUBLIC)
    saved = tmp_path / "report.json"
    saved.write_bytes(msgspec.json.encode(public))
    code = (
        "import sys, msgspec, pathlib\n"
        "from safehold.govern.report.interface import Report\n"
        "from safehold.govern.report.render import report_html, report_pdf\n"
        "made = msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=Report)\n"
        "pathlib.Path(sys.argv[2]).write_bytes(report_html(made).encode() + report_pdf(made))\n"
    )
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-c", code, str(saved), str(other)], check=True, timeout=120)
    assert other.read_bytes() == report_html(public).encode() + report_pdf(public)


NODE = '[[node]]\nid = "{id}"\nkind = "{kind}"\ntext = "{text}"\n{more}\n'
GOAL = NODE.format(
    id="g", kind="goal", text="T", more='section = "rationale"\nsupported_by = ["s"]'
)
PROOF = 'evidence = "e"\npredicate = { field = "k", op = "<=", value = 1 }'
GOOD = (
    'id = "c"\ntitle = "T"\n'
    + GOAL
    + NODE.format(id="s", kind="solution", text="We saw {{e.k}}", more="@")
    .replace("@", PROOF)
    .replace("{{e.k}}", "{e.k}")
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("We saw {e.k}", "We saw 3 attacks"),
        ("We saw {e.k}", "We saw 0.4%"),
        ("We saw {e.k}", "We saw a million attacks"),
        ("We saw {e.k}", "We saw about-95% of it"),
        ("We saw {e.k}", "We saw only0.4"),
        ("We saw {e.k}", "We saw Rate-3.5"),
        ("We saw {e.k}", "We saw \u00bd of it"),
        ("We saw {e.k}", "We saw \uff13 attacks"),
        ("We saw {e.k}", "We saw {e}"),
        ('supported_by = ["s"]', 'supported_by = ["t"]'),
        ('supported_by = ["s"]', 'supported_by = ["g"]'),
        ('supported_by = ["s"]', "supported_by = []"),
        ('section = "rationale"', ""),
        (PROOF, ""),
        ("[[node]]", "[[node]]\nunknown = 1"),
    ],
)
def test_lint_refuses_bare_numbers_and_broken_arguments(old: str, new: str) -> None:
    """A number in prose, a circle, a gap, or a solution without a demand is refused."""
    assert parse_case(GOOD, "x").id == "c"
    assert old in GOOD
    with pytest.raises(ReportError):
        parse_case(GOOD.replace(old, new, 1), "x")


def test_names_with_digits_are_no_numbers() -> None:
    """`ASL-3` is a name, and stays."""
    assert parse_case(GOOD.replace("We saw {e.k}", "ASL-3 holds"), "x")


@pytest.mark.parametrize(
    ("figure", "op", "value", "holds"),
    [
        (Figure(events=0, n=100), Operator.UPPER_AT_MOST, 0.05, True),
        (Figure(events=0, n=10), Operator.UPPER_AT_MOST, 0.05, False),
        (Figure(events=0, n=0), Operator.UPPER_AT_MOST, 0.99, False),
        (Figure(events=5, n=3), Operator.UPPER_AT_MOST, 1.0, False),
        (Figure(events=0, n=0), Operator.LOWER_AT_LEAST, 0.0, False),
        (Figure(number=0.01), Operator.UPPER_AT_MOST, 0.05, False),
        (Figure(text="yes"), Operator.AT_LEAST, 0.0, False),
        (Figure(text="yes"), Operator.IS, "yes", True),
        (Figure(number=3), Operator.AT_MOST, 3.0, True),
        (Figure(number=3), Operator.AT_LEAST, 4.0, False),
    ],
)
def test_predicates_compare_bounds_not_points(
    figure: Figure, op: Operator, value: float | str, *, holds: bool
) -> None:
    """A demand on a rate reads its exact bound, and no field of another kind meets it."""
    assert meets(evidence("e", k=figure), Predicate("k", op, value)) is holds


def test_difference_of_two_reports_says_what_is_weaker() -> None:
    """A looser demand, a claim that is gone, a worse state and a new dissent are weaker."""
    old = build_report(CASE, sources(), Audience.INTERNAL)
    assert differences(old, old) == ()
    doubt = Doubt(kind="dissent", about=("controls:egr-17",), text="I don't agree")
    new = build_report(CASE, msgspec.structs.replace(sources(), doubts=(doubt,)), Audience.INTERNAL)
    assert {one.id for one in differences(old, new) if one.weakening} >= {"blocks", "doubts"}
    assert not any(one.weakening for one in differences(new, old))
    less = msgspec.structs.replace(old, claims=old.claims[1:])
    assert [one.id for one in differences(old, less) if one.weakening] == [old.claims[0].id]
    assert looser("rate upper<= 0.05", "rate upper<= 0.2")
    assert not looser("rate upper<= 0.05", "rate upper<= 0.01")
    assert looser("rate upper<= 0.05", "rate <= 0.05")
    assert looser("rate lower>= 0.9", "")
    with pytest.raises(ReportError):
        differences(old, build_report(CASE, sources(), Audience.PUBLIC))


def test_two_persons_sign_exactly_one_digest() -> None:
    """A sign-off of one person, of another digest, or taken back names nobody."""
    digest = report_sha256(build_report(CASE, sources(), Audience.PUBLIC))
    signed = {"report": digest}
    for host, names in (
        (healthy().with_case(used("report.publish", "p-sec1", details=signed)), ("dev1", "sec1")),
        (healthy().with_case(used("report.publish", details=signed)), ()),
        (healthy().with_case(used("report.publish", "p-sec1", details={"report": "0"})), ()),
        (healthy().with_case(used("report.publish", "p-sec1", details=signed, closed=True)), ()),
    ):
        assert signers_of(host.reading, digest) == names


def test_parts_json_becomes_figures_and_other_json_is_refused() -> None:
    """The red team's and the ledger's own JSON are read; anything else is an error."""
    rate = {"events": 2, "n": 50}
    red = {"total": {"success": rate}, "benign_plain": {"events": 0, "n": 9}}
    figures = figures_of("redteam", json.dumps(red).encode(), Audience.PUBLIC)
    assert (figures["rate"].events, figures["rate"].n) == (2, 50)
    for kind, data in (("redteam", b"{}"), ("coverage", b"[]"), ("other", b"{}")):
        with pytest.raises(ReportError):
            figures_of(kind, data, Audience.PUBLIC)


def _races(*fields: tuple[Defence, int | None, int | None]) -> bytes:
    found = [
        RaceResult(
            settings=RaceSettings(defence=defence),
            curve=(0, 1),
            cleared=1,
            universal_at=universal,
            acted_at=acted,
            accounts_ended=0,
            benign_ended=Rate(1, 50),
            benign_stopped=Rate(0, 100),
        )
        for defence, universal, acted in fields
    ]
    return msgspec.json.encode(found)


def _tries(*fields: tuple[str, str, HeistOutcome, int, int | None]) -> bytes:
    return in_json(
        tuple(HeistTry(step, on, how, None, out, most) for step, on, how, out, most in fields)
    )


def _entries(*fields: tuple[BountyState, str | None, bool]) -> bytes:
    entries = [
        BountyEntry(
            id=number,
            received_at=1.0,
            state=state,
            duplicate_of=None,
            rating=None,
            fix=None,
            fix_check=check,
            paid=False,
            due=(Due(what="triage", until=2.0, kept_at=None, overdue=overdue),),
        )
        for number, (state, check, overdue) in enumerate(fields)
    ]
    return msgspec.json.encode(entries)


_OFF, _STOP, _SAW = HeistOutcome.MISSED, HeistOutcome.PREVENTED, HeistOutcome.DETECTED


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (
            "race",
            _races(
                (Defence.GUARD, 9, None),
                (Defence.RESPONSE, 9, 4),
                (Defence.RESPONSE, 4, 4),
                (Defence.RESPONSE, None, None),
            ),
            {"lost_guard": (1, 1), "lost_response": (1, 3), "benign_ended": (3, 150)},
        ),
        (
            "bounty",
            _entries(
                (BountyState.NEW, None, True),
                (BountyState.REJECTED, None, False),
                (BountyState.FIX_VERIFIED, "yes", False),
                (BountyState.FIX_LINKED, "no", False),
                (BountyState.DISCLOSED, "blocked", False),
            ),
            {"received": 5.0, "reproduced": 3.0, "unmended": 2.0, "mended": (1, 3), "overdue": 1.0},
        ),
        (
            "response",
            msgspec.json.encode(
                {"marks": [Mark("found", 0.5, "x"), Mark("rule acts", 9.0, "y")], "report": {},
                 "champion": "a", "challenger": "b", "verified": False}
            ),
            {"verified": 0.0, "rule_acts_s": 9.0, "found_s": 0.5},
        ),
        (
            "heist",
            _tries(
                ("read", "", _OFF, 0, None), ("read", "meter", _STOP, 0, None),
                ("send", "", _OFF, 9, 5), ("send", "quota", _STOP, 9, 5),
                ("run", "", _STOP, 0, None), ("run", "guard", _SAW, 0, None),
            ),
            {"held": (1, 3), "unheld": 2.0, "unreal": 1.0},
        ),
    ],
)  # fmt: skip
def test_drills_races_and_bounty_become_figures(
    kind: str, data: bytes, expected: dict[str, float | tuple[int, int]]
) -> None:
    """Each part's own values, as its command prints them, counted as the part counts them."""
    found = figures_of(kind, data, Audience.PARTNER)
    for name, value in expected.items():
        one = found[name]
        assert (one.number if isinstance(value, float) else (one.events, one.n)) == value, name
        assert one.audience is Audience.PARTNER


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[{}]", b"[1]", b"\xff", b'{"marks": 1}'])
def test_what_a_part_did_not_print_is_an_error_never_a_nought(kind: str, data: bytes) -> None:
    """Missing fields, other shapes and binary are refused by every adapter."""
    with pytest.raises(ReportError):
        figures_of(kind, data, Audience.PUBLIC)
    for empty in ("race", "heist"):
        with pytest.raises(ReportError):
            figures_of(empty, b"[]", Audience.PUBLIC)


def test_a_run_that_was_not_signed_builds_no_report(tmp_path: Path) -> None:
    """The saved run must be the one whose met controls the pinned key signed."""
    key, other = SigningKey.generate("host.controls"), SigningKey.generate("host.controls")
    run = tmp_path / "run.json"
    run.write_bytes(msgspec.json.encode(run_controls(CATALOGUE, healthy(), SITE)))
    note = met_note(MetControls({"egr-03": NOW + 9}, sha256_hex(run.read_bytes())), key)
    (tmp_path / "met").write_bytes(note)
    words = ["report", "build", "asl3", "--controls", str(run), "--at", str(NOW), "--out",
             str(tmp_path / "out"), "--met", str(tmp_path / "met"), "--controls-key"]  # fmt: skip
    built = CliRunner().invoke(safehold, [*words, str(key.verifier)])
    assert built.exit_code == 1, built.output
    assert "redteam: unsupported" in built.output
    forged = CliRunner().invoke(safehold, [*words, str(other.verifier)])
    assert isinstance(forged.exception, TrustError)
    run.write_bytes(run.read_bytes() + b" ")
    changed = CliRunner().invoke(safehold, [*words, str(key.verifier)])
    assert isinstance(changed.exception, ReportError)
    assert "not the run" in str(changed.exception)


def test_command_builds_verifies_and_notices_a_changed_page(tmp_path: Path) -> None:
    """`build` writes a report, `verify` accepts it, and refuses a page with other words."""
    run = tmp_path / "run.json"
    run.write_bytes(msgspec.json.encode(run_controls(CATALOGUE, healthy(), SITE)))
    out = tmp_path / "report"
    words = ["report", "build", "asl3", "--controls", str(run), "--at", str(NOW)]
    built = CliRunner().invoke(safehold, [*words, "--out", str(out)])
    assert built.exit_code == 1, built.output
    assert "redteam: unsupported (its evidence is missing)" in built.output
    verify = ["report", "verify", str(out), "--at"]
    assert CliRunner().invoke(safehold, [*verify, str(NOW)]).exit_code == 0
    old = CliRunner().invoke(safehold, [*verify, str(NOW + 400 * DAY)])
    assert old.exit_code == 1
    assert "out of date" in old.output
    assert "held until" in old.output
    page = out / "report.html"
    page.write_text(page.read_text().replace("unsupported", "supported"))
    changed = CliRunner().invoke(safehold, ["report", "verify", str(out)])
    assert isinstance(changed.exception, ReportError)
    late = ["report", "stale", str(out / "report.json"), "--at", str(NOW + 400 * DAY)]
    assert CliRunner().invoke(safehold, late).exit_code == 1


def test_a_report_older_than_its_evidence_is_told(tmp_path: Path) -> None:
    """`verify` and `stale` name what was made again since; what is as old, or another's, is not."""
    folder, out = tmp_path / "evidence", tmp_path / "report"
    folder.mkdir()

    def keep(name: str, made: int) -> None:
        fields = {"number": Figure(audience=Audience.PUBLIC, number=1.0)}
        one = CaseEvidence(
            id=name, kind=name, made=made, holds_s=90 * DAY, bundle="", fields=fields
        )
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(one))

    keep("redteam", NOW)
    build = ["report", "build", "asl3", "--evidence", str(folder), "--at", str(NOW)]
    built = CliRunner().invoke(safehold, [*build, "--level", "internal", "--out", str(out)])
    assert built.exit_code == 1, built.output
    now = ["--evidence", str(folder), "--at", str(NOW + DAY)]
    assert CliRunner().invoke(safehold, ["report", "verify", str(out), *now]).exit_code == 0
    keep("bounty", NOW + 5)
    assert CliRunner().invoke(safehold, ["report", "verify", str(out), *now]).exit_code == 0
    keep("redteam", NOW + 5)
    said = f"redteam: made {NOW}; newer evidence of {NOW + 5} is not in it"
    verified = CliRunner().invoke(safehold, ["report", "verify", str(out), *now])
    assert (verified.exit_code, said in verified.output) == (1, True)
    stale = ["report", "stale", str(out / "report.json"), *now]
    told = CliRunner().invoke(safehold, [*stale, "--json"])
    assert told.exit_code == 1
    assert [one["newer"] for one in json.loads(told.output)] == [NOW + 5]
    (out / "report.json").write_text("[" * 100_000)
    assert CliRunner().invoke(safehold, stale).exit_code == 2


def test_stock_case_shows_no_number_of_its_own() -> None:
    """The stock case's file passes the lint from the package's own data."""
    folder = resources.files("safehold.govern.report") / "stock"
    assert parse_case((folder / "asl3.toml").read_text("utf-8"), "asl3") == CASE
    assert isinstance(build_report(CASE, sources(), Audience.PARTNER), Report)
