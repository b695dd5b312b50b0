"""Small wrong changes of the rules are noticed: a sample of them, by lot, in `make soak`.

`python -m bench.mutation` says which; SAFEHOLD_SOAK_MUTANTS says how many (all: 100000).
"""

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import mutation

MUTANTS = int(os.environ.get("SAFEHOLD_SOAK_MUTANTS", "30"))
SEED = int(os.environ.get("SAFEHOLD_SOAK_SEED", "1"))


def test_each_kind_of_change_is_made_and_leaves_python() -> None:
    """The boundary of an expiry, a refusal that is none, and a lost condition are among them."""
    found = mutation.everything("trust/grants/evaluate.py")
    names = {one.name for one in found}
    assert any("case.now >= asked.expires -> case.now > asked.expires" in one for one in names)
    assert any("return None" in one.after for one in found)
    assert any(one.before.startswith("if ") and one.after.startswith("if False") for one in found)
    assert len(found) > 100
    for one in found:
        compile(one.text, one.file, "exec")


@pytest.mark.soak
def test_every_file_of_the_rules_has_tests_that_stand_for_it() -> None:
    """No file of trust or of the weights is left out of the lot."""
    assert mutation.tests_of("trust/grants/evaluate.py")
    assert mutation.tests_of("secure/weights/seal.py")
    assert {one.file.split("/")[0] for one in mutation.everything()} == {"trust", "secure"}


@pytest.mark.soak
def test_no_explanation_is_of_a_change_that_is_not_made() -> None:
    """What is explained is a mutant of today: an old line explains nothing."""
    assert set(mutation.explained()) <= {one.name for one in mutation.everything()}


@pytest.mark.soak
def test_every_sampled_change_is_noticed_or_explained(tmp_path: Path) -> None:
    """A sample by lot: who lives is known, and why that is no gap."""
    _, living = mutation.run(MUTANTS, SEED, "", tmp_path, time.monotonic() + 6 * 3600)
    assert [one.name for one in living] == []
