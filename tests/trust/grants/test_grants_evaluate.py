"""The decision alone: it refuses also what the log's reader would never have let come so far."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from safehold.testing.trust import Enclave
from safehold.trust.grants.evaluate import evaluate
from safehold.trust.grants.interface import Decision, Granted, Reason, Refused, SignedRequest
from safehold.trust.people.statement import Act


@pytest.fixture
def decide(enclave: Enclave) -> Callable[..., Decision]:
    """A function that decides on an approved request, with changes to what the log says."""
    request = enclave.ask()
    enclave.file(request)
    enclave.approve(request, "dev-two", "dev-three", "sec-one")
    state = enclave.desk.state
    case = state.case(request.sha256)
    view = state.view(request.sha256, enclave.time)

    def decision(signed: SignedRequest | None = None, **changes: Any) -> Decision:
        log = msgspec.structs.replace(view, **changes)
        approvals = tuple(case.approvals)
        return evaluate(
            signed or case.signed, approvals, state.roster, state.policy, enclave.time, log
        )

    return decision


def test_approved_request_is_granted(decide: Callable[..., Decision]) -> None:
    """Without a change the decision is a grant: the refusals below have no other cause."""
    assert isinstance(decide(), Granted)


@pytest.mark.parametrize("when", [None, 2**40])
def test_request_that_is_not_in_the_log_is_refused(
    decide: Callable[..., Decision], when: int | None
) -> None:
    """A request with true signatures that was never logged, or will be, is refused."""
    decision = decide(requested_at=when)
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.NOT_LOGGED


def test_request_signed_by_somebody_else_is_refused(
    decide: Callable[..., Decision], enclave: Enclave
) -> None:
    """A true signature of another person is not the requester's."""
    request = enclave.ask()
    forged = SignedRequest(
        request=request, proof=enclave.keys["dev-four"].sign(Act.REQUEST, request)
    )
    decision = decide(forged)
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.REQUEST_SIGNATURE
