"""fapolicyd itself, from Debian, runs what we compile for it."""

import os
import shutil

import pytest

from safehold.secure.endpoint.attack.declared import LEAVES
from safehold.secure.endpoint.attack.table import left_over, measure, stopped_of

pytestmark = pytest.mark.outside


def test_fapolicyd_stops_what_is_declared() -> None:
    """It loads our rules and trust file, stops 26 of the 35, and leaves what is declared."""
    if os.geteuid() != 0 or shutil.which("fapolicyd", path="/usr/sbin:/usr/bin") is None:
        pytest.fail("expected root and fapolicyd: apt-get install fapolicyd")
    column = measure("fapolicyd")
    assert set(left_over(column)) == LEAVES["fapolicyd"]
    stopped, count = stopped_of(column)
    assert count == 35
    assert stopped >= 26
    # It has no holder: whoever kills it opens the host. That is why it is not the only engine.
    assert column.after_kill is True
