"""A capability run on a real small model: the embedded one."""

import msgspec
import pytest

from safehold.govern.capability.run import run_on, stock_suite
from safehold.govern.capability.score import count_items
from safehold.guard.gateway.upstreams.embedded import MODEL, LocalServer

pytestmark = pytest.mark.soak


def test_small_model_answers_two_tasks_and_each_is_scored() -> None:
    """Real replies come back, are scored, and none is an error."""
    suite = stock_suite("homebrewing")
    suite = msgspec.structs.replace(suite, task=suite.task[:2])
    with LocalServer(threads=2, slots=1) as local:
        samples = run_on(
            suite,
            local.url,
            key=local.key,
            model_name=MODEL,
            elicitations=("plain",),
            attempts=1,
            max_tokens=48,
        )
    counts = count_items(suite, samples)
    assert (counts.items, counts.errors) == (2, 0)
    assert all(len(one.reply) > 20 for one in samples)
