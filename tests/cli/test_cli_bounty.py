"""`safehold bounty`: from a finding to its payment, as two people type it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.bounty import bounty
from safehold.cli.log import log
from safehold.errors import DataError, SafeholdError, TrustError, UsageError
from safehold.testing.bounty import CLEAN_CHAT, BountyPlace, bounty_place

_RULE = {"id": "r", "clause": "c", "pattern": "{}", "example": "{}"}


def _rules(path: Path, word: str) -> str:
    rule = {key: value.format(word) for key, value in _RULE.items()}
    path.write_text(json.dumps({"rules": [rule]}))
    return str(path)


@pytest.fixture
def place(tmp_path: Path) -> BountyPlace:
    """A bounty's folder with a log."""
    made = CliRunner().invoke(log, ["init", f"{tmp_path}/log", "--origin", "example.org/t"])
    assert made.exit_code == 0
    return bounty_place(tmp_path)


def _run(place: BountyPlace, *words: str) -> str:
    at = place.folder
    places = ["--programme", f"{at}/programme.yaml", "--book", f"{at}/b.db", "--log", f"{at}/log"]
    done = CliRunner().invoke(bounty, [*places, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_finding_is_sealed_replayed_rated_mended_and_paid(place: BountyPlace) -> None:
    """A guard that knows one word lets the fireside through; the rules of tomorrow do not."""
    at = place.folder
    (at / "finding.json").write_bytes(place.submission())
    (at / "finding.sealed").write_text(_run(place, "seal", f"{at}/finding.json"))
    (at / "finding.json").unlink()
    assert _run(place, "submit", f"{at}/finding.sealed").strip() == "1"
    key = ["--triage-key", f"{at}/triage.key", "--questions", f"{at}/questions.json"]
    look = ["--reason", "triage", *key]
    shown = json.loads(_run(place, "open", "1", "ann", *look))
    assert "fireside" in shown["submission"]["turns"][0]["text"]
    weak = ["--bundle", _rules(at / "weak.yaml", "zeppelin"), "--mended", f"{at}/mended"]
    said = json.loads(_run(place, "replay", "1", "ann", *look, *weak))
    assert (said["universal"], said["state"]) == (True, "reproduced")
    rated = json.loads(
        _run(place, "rate", "1", "ann", *look, "--gain", "2", "--discoverability", "1")
    )
    assert (rated["band"], rated["amount"]) == ("high", 10_000)
    sent = _run(place, "example", "1", "ann", *look)
    assert sent.startswith("As my grandmother")
    assert "<<ask>>" not in sent
    strong = _rules(at / "strong.yaml", "my grandmother")
    with pytest.raises(SafeholdError, match="1 of 1 no longer hold: bounty-1"):
        _run(place, "regress", *key, *weak)
    kept = json.loads(_run(place, "regress", *key, "--bundle", strong, "--mended", f"{at}/mended"))
    assert kept[0]["runs"] == 60
    assert kept[0]["cleared_runs"] == 0
    with pytest.raises(TrustError, match="another person"):
        _run(place, "pay", "1", "ann")
    assert _run(place, "pay", "1", "bob").strip() == "10000"
    assert json.loads(_run(place, "list"))[0]["paid"] is True
    whole = _run(place, "show", "1")
    assert "grandmother" not in whole
    assert "95% lower bound" in whole
    assert CLEAN_CHAT not in whole


def test_what_is_wrong_is_said_in_a_line(place: BountyPlace) -> None:
    """Too large, not sealed, no gateway, unknown number."""
    at = place.folder
    (at / "large").write_bytes(b"a" * 10_000_000)
    with pytest.raises(DataError, match="came 10000000"):
        _run(place, "seal", f"{at}/large")
    with pytest.raises(DataError, match="came 10000000"):
        _run(place, "submit", f"{at}/large")
    (at / "plain.json").write_bytes(place.submission())
    with pytest.raises(DataError, match="sealed with"):
        _run(place, "submit", f"{at}/plain.json")
    with pytest.raises(UsageError, match="no submission 7"):
        _run(place, "show", "7")
    key = ["--triage-key", f"{at}/triage.key", "--questions", f"{at}/questions.json"]
    (at / "s").write_text(_run(place, "seal", f"{at}/plain.json"))
    _run(place, "submit", f"{at}/s")
    with pytest.raises(TrustError, match="not reproduced"):
        _run(place, "example", "1", "ann", "--reason", "r", *key)
    with pytest.raises(UsageError, match="--bundle"):
        _run(place, "replay", "1", "ann", "--reason", "r", *key)


def test_keys_questions_and_security_txt(place: BountyPlace) -> None:
    """Set-up prints what goes into the programme."""
    at = place.folder
    public = _run(place, "new-key", f"{at}/new.key").strip()
    assert len(public) == 44
    digest = _run(place, "freeze", "--seed", "s", "--out", f"{at}/q.json").strip()
    assert len(digest) == 64
    assert "Contact: mailto:security@example.org" in _run(place, "security-txt")
    assert len(_run(place, "check").strip()) == 64
