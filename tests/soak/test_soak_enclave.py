"""The enclave in namespaces: the product runs, and nearly every control is judged on live facts."""

import pytest

from safehold.demo.enclave.run import enclave
from safehold.govern.controls.interface import ControlStatus

pytestmark = pytest.mark.soak


def test_enclave_is_judged_on_live_facts() -> None:
    """All documents are written, 140 of 148 controls are judged by facts, and 115 pass.

    Each fault that is planted there turns red exactly the controls that claim it.
    """
    found = enclave(lambda _: None, faults=True)
    assert [one.fault for one in found.documents if one.fault] == []
    assert found.judged.live >= 140
    assert sum(one.status is ControlStatus.PASSED for one in found.run.results) >= 115
    assert found.drills_passed == 25
    assert [one for one in found.faults if not one.exact] == []
    assert len(found.faults) == 11
    results = {one.control: one.status for one in found.run.results}
    held = ("bin-01", "bin-04", "bin-05", "bin-15", "wac-09", "egr-01", "egr-03", "dec-01",
            "mon-02", "mon-06", "egr-10", "war-06", "chg-01", "chg-09", "war-01")  # fmt: skip
    assert {results[one] for one in held} == {ControlStatus.PASSED}
