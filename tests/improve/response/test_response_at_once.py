"""Persons who change the hot rules or sign a trial's step at the same moment."""

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from safehold.guard.bundle.overlay_file import approve
from safehold.guard.gateway.bundles.trial_file import TrialError
from safehold.guard.gateway.bundles.trial_steps import TrialStep
from safehold.guard.overlay.interface import OverlayError
from safehold.improve.response.case import IncidentCase
from safehold.improve.response.rule_book import RuleBook
from safehold.improve.response.trial_book import TrialBook
from safehold.testing.response import (
    DRESS,
    hot_rule,
    incident,
    quorum_of,
    signing_keys,
    trial_plan,
)

NAMES = ("anna", "bela", "cleo", "dora", "emil", "finn")
KEYS = signing_keys(*NAMES)
QUORUM = quorum_of(KEYS)
RULE = hot_rule()
PLAN = trial_plan()


def at_once(works: list[Callable[[], object]]) -> list[BaseException]:
    """Do all of it at once; return what was raised."""
    failed: list[BaseException] = []
    ready = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        ready.wait()
        try:
            work()
        except (OverlayError, TrialError) as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def trial(file: Path, name: str) -> TrialBook:
    """Return the trial as one person changes it."""
    return TrialBook(file, QUORUM, name, KEYS[name])


@pytest.mark.parametrize("act", ["propose", "approve"])
def test_no_signature_of_a_trials_step_is_lost(act: str, tmp_path: Path) -> None:
    """Six persons propose the same step, or sign one proposal: all six have signed it."""
    file = tmp_path / "trial.json"
    trial(file, "anna").begin(PLAN)
    if act == "approve":
        trial(file, "anna").propose()
    assert not at_once([getattr(trial(file, name), act) for name in NAMES])
    assert trial(file, "anna").approve()[1] == set(NAMES)
    assert trial(file, "anna").take().step is TrialStep.FIVE
    assert sorted(one.name for one in tmp_path.iterdir()) == ["trial.json"]


def test_a_step_is_taken_once_and_the_way_back_wins(tmp_path: Path) -> None:
    """Of several who put one proposal in its place one does; one who goes back is not undone."""
    file = tmp_path / "trial.json"
    trial(file, "anna").begin(PLAN)
    trial(file, "anna").propose()
    trial(file, "bela").approve()
    failed = at_once([trial(file, name).take for name in NAMES])
    assert len(failed) == len(NAMES) - 1
    assert trial(file, "anna").plan().serial == 2
    trial(file, "anna").propose()
    trial(file, "bela").approve()
    at_once([trial(file, "cleo").back, trial(file, "anna").take])
    assert trial(file, "anna").plan().step is TrialStep.ROLLED_BACK


def test_no_rule_that_two_put_in_shadow_at_once_is_lost(tmp_path: Path) -> None:
    """Each of six persons adds a rule; all six are there, and the serial counts them."""
    file = tmp_path / "hot.json"
    books = {name: RuleBook(file, QUORUM, name, KEYS[name]) for name in NAMES}
    failed = at_once([lambda one=one: one.begin(1_000) for one in books.values()])  # type: ignore[misc]
    assert len(failed) == len(NAMES) - 1
    adds = [
        lambda name=name, book=book: book.shadow(msgspec.structs.replace(RULE, id=name), 1_000)  # type: ignore[misc]
        for name, book in books.items()
    ]
    assert not at_once(adds)
    found = books["anna"].content()
    assert {one.rule.id for one in found.rules} == set(NAMES)
    assert found.serial == 1 + len(NAMES)
    assert [one.name for one in tmp_path.iterdir()] == ["hot.json"]


def test_no_approval_of_a_rule_is_lost_from_its_case(tmp_path: Path) -> None:
    """Six persons approve a rule at the same moment: the case holds six approvals."""
    case = IncidentCase(tmp_path / "case")
    case.begin(incident(), DRESS)
    signed = [approve(RULE, name, key) for name, key in KEYS.items()]
    assert not at_once([lambda one=one: case.keep_approval(one) for one in signed])  # type: ignore[misc]
    assert {one.person for one in case.approvals()} == set(NAMES)
