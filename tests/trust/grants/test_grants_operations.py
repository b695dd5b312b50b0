"""One table of operations: everything asks by it, and the stock policy is made from it."""

import ast
from pathlib import Path

import pytest

import safehold
from safehold.testing.trust import GOVERNING as RULES
from safehold.testing.trust import POLICY, Enclave
from safehold.trust.grants.interface import PolicyError
from safehold.trust.grants.operations import DETAILS_OF, OPERATIONS, stock_policy
from safehold.trust.grants.policy import (
    GOVERNING,
    check_achievable,
    check_governing,
    lint_policy,
    load_policy,
)
from safehold.trust.people.interface import KeyKind

STOCK = {"team": "t-everybody", "rp_id": "localhost", "origin": "http://localhost:8443"}
ASKING = frozenset({"require", "used", "_ask", "governing_request"})


def asked_for() -> set[str]:
    """Return every operation that the product's own source names where it asks or looks."""
    found: set[str] = set()
    for path in Path(safehold.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            values: list[ast.expr] = []
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                values += node.args if name in ASKING else []
                values += [one.value for one in node.keywords if one.arg == "operation"]
            elif isinstance(node, ast.Assign) and any(
                isinstance(one, ast.Name) and one.id == "OPERATION" for one in node.targets
            ):
                values.append(node.value)
            elif isinstance(node, ast.Compare) and "operation" in ast.unparse(node.left):
                values += node.comparators
            found |= {
                one.value
                for one in values
                if isinstance(one, ast.Constant)
                and isinstance(one.value, str)
                and one.value.count(".") == 1
                and not one.value.endswith(".")
            }
    return found


def test_every_operation_of_the_product_is_in_the_table() -> None:
    """A part that asks under a name of its own would be governed by nobody's rule."""
    named = asked_for()
    assert {"people.enrol", "egress.raise", "endpoint.loosen", "report.publish"} <= named
    assert named <= set(OPERATIONS)


def test_what_governs_has_typed_details_and_two_approvals() -> None:
    """The table itself holds to the rule: no change of who may approve by fewer than three."""
    for row in OPERATIONS.values():
        assert row.least >= 1
        assert row.stock >= row.least
        if row.governs:
            assert row.least >= 2
            assert row.details is not None
            assert not row.alone
    assert set(DETAILS_OF) >= GOVERNING


@pytest.mark.parametrize("people", [3, 4, 5])
@pytest.mark.parametrize("security", ["", "t-security"])
def test_the_stock_policy_loads_and_can_be_met(tmp_path: Path, people: int, security: str) -> None:
    """Every rule of it is one that the people of an enclave can fulfil."""
    policy = load_policy(stock_policy(people=people, security=security, **STOCK))
    check_governing(policy)
    check_achievable(policy, Enclave(tmp_path / "log").desk.state.roster)
    lint = lint_policy(policy)
    if people == 5:
        assert lint == ()
    assert all("no rule" in one or "stock policy has" in one for one in lint)


def test_the_stock_policy_has_security_beside_the_others_except_for_what_governs() -> None:
    """Where a rule has room one approval is security's; who may approve is everybody's affair."""
    policy = load_policy(stock_policy(security="t-security", **STOCK))
    for rule in policy.rules:
        row = OPERATIONS[rule.operation]
        found = {one.team: one.count for one in rule.thresholds}
        if row.stock > 1 and not row.governs:
            assert found == {"t-everybody": row.stock - 1, "t-security": 1}, row.name
        else:
            assert found == {"t-everybody": row.stock}, row.name


def test_no_operation_can_be_asked_for_with_fewer_than_its_least() -> None:
    """For each row: one approval fewer in a policy file is refused, by name."""
    for row in OPERATIONS.values():
        text = stock_policy(**STOCK)
        block = f'operation = "{row.name}"\nthresholds = [{{ team = "t-everybody", count = '
        assert block + str(row.stock) in text
        for count in range(row.least):
            lax = text.replace(block + str(row.stock), block + str(count))
            with pytest.raises(PolicyError, match=f"{row.name}|count"):
                check_governing(load_policy(lax))


def test_lint_names_a_misspelt_operation_one_without_a_rule_and_plain_keys() -> None:
    """What a policy does not say is said by the lint."""
    lint = lint_policy(load_policy((POLICY + RULES).replace("weights.load", "weights.laod")))
    assert any("did you mean weights.load?" in one for one in lint)
    assert any(one.startswith("weights.load: no rule") for one in lint)
    assert any("plain SSH" in one for one in lint)
    hard = load_policy(stock_policy(keys=(KeyKind.PASSKEY.value,), **STOCK))
    assert lint_policy(hard) == ()


def test_the_page_has_the_table_as_it_is() -> None:
    """Each row of the documented table is a row of the one in force, and none is missing."""
    page = (Path(__file__).parents[3] / "docs" / "trust.md").read_text()
    for row in OPERATIONS.values():
        assert f"| `{row.name}` | {row.what} | {row.least} | {row.stock} |" in page
