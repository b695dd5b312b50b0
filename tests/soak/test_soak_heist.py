"""The whole heist, on a miniature enclave."""

import pytest

from safehold.demo.heist.steps import heist
from safehold.demo.heist.table import rows

pytestmark = pytest.mark.soak


def test_every_step_of_the_heist_is_real_and_held() -> None:
    """Each step succeeds with its controls off; each control alone prevents or detects it."""
    table = rows(heist())
    assert len(table) >= 17
    assert all(one.held and not one.not_counted for one in table)
