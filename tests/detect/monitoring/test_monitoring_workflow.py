"""The workflow score: distinct stages of one clause, whatever order and however often."""

from hypothesis import given
from hypothesis import strategies as st

from safehold.detect.monitoring.workflow import seen_within_day, workflow_score

WORKFLOWS = {"one": ("a", "b", "c", "d"), "two": ("c", "d", "e"), "three": ("e",)}
_STAGES = st.lists(st.sampled_from("abcdefg"), max_size=12)


@given(_STAGES, st.randoms())
def test_order_and_repetition_change_nothing(stages: list[str], chance: object) -> None:
    """Equal sets of stages give equal scores, of one clause's stages alone, each once."""
    again = [*stages, *stages]
    chance.shuffle(again)  # type: ignore[attr-defined]
    found = workflow_score(stages, WORKFLOWS)
    assert found == workflow_score(again, WORKFLOWS)
    assert len(set(found.stages)) == len(found.stages) <= found.of or not found.clause
    assert set(found.stages) <= set(WORKFLOWS.get(found.clause, ()))
    assert 0 <= found.share <= 1


@given(_STAGES, st.sampled_from("abcdefg"))
def test_one_more_stage_never_lowers_the_score(stages: list[str], more: str) -> None:
    """A score is monotone in what was delivered."""
    before, after = workflow_score(stages, WORKFLOWS), workflow_score([*stages, more], WORKFLOWS)
    assert len(after.stages) >= len(before.stages)


def test_of_equal_counts_the_larger_share_counts() -> None:
    """Two of three say more than two of four; nothing delivered names no clause."""
    assert workflow_score(["c", "d"], WORKFLOWS).clause == "two"
    assert workflow_score([], WORKFLOWS).clause == ""
    assert workflow_score(["g"], WORKFLOWS).of == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2e5)), max_size=20))
def test_a_stage_is_kept_once_for_a_day(given_: list[tuple[str, float]]) -> None:
    """Whatever came in which order, each stage stands once and none is older than a day."""
    seen = seen_within_day((), (), at=0.0, decision_id="d")
    for stage, at in sorted(given_, key=lambda one: one[1]):
        seen = seen_within_day(seen, {stage}, at=at, decision_id="d")
        assert len({one.stage for one in seen}) == len(seen)
        assert all(at - one.at <= 86_400 for one in seen)
