"""schemathesis against the admin API: whatever comes, an answer that the schema names."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from safehold.guard.gateway.operate.admin_schema import admin_schema
from safehold.guard.gateway.policy import Key, digest_key
from safehold.guard.ledger.interface import EventRow

ADMIN = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"
schema = schemathesis.openapi.from_dict(admin_schema())
_UNNAMED = (405,)
"""A method that no path has; schemathesis tries those too."""


@pytest.fixture(scope="module")
def admin_url(module_stage):  # noqa: ANN001, ANN201 - a fixture
    """The address of one gateway for all cases."""
    key = Key(id="ops", sha256=digest_key(ADMIN), admin=True)
    at = module_stage(keys=(key,))
    return at.gateway.url, at.ledger


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_admin_api_answers_as_its_schema_says(case, admin_url) -> None:  # noqa: ANN001 - schemathesis's
    """No input makes an error that the schema does not name, and none makes a 500."""
    url, ledger = admin_url
    before = len(ledger.rows)
    answer = case.call(base_url=url, headers={"authorization": f"Bearer {ADMIN}"})
    named = {int(status) for status in case.operation.definition.raw["responses"]}
    assert answer.status_code in named | set(_UNNAMED)
    assert isinstance(answer.json(), dict)
    assert ADMIN not in str(ledger.rows[before:])


@schema.parametrize()
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_admin_api_without_its_key_changes_nothing(case, admin_url) -> None:  # noqa: ANN001 - schemathesis's
    """Every operation needs an administrator's key."""
    url, ledger = admin_url
    before = len(ledger.rows)
    case.headers.pop("Authorization", None)
    answer = case.call(base_url=url, headers={"authorization": "Bearer nobody"})
    assert answer.status_code in (401, 400, 413)
    assert not any(isinstance(row, EventRow) for row in ledger.rows[before:])
