"""Loosening with real two-party grants on a real transparency log."""

from pathlib import Path

import pytest

from safehold.errors import TrustError
from safehold.secure.egress.enforcement.log_adapter import (
    DeskAudit,
    DeskAuthorizer,
    DeskWeightGrants,
    workload,
)
from safehold.secure.egress.interface import RefuseAll
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.trust.grants.interface import GrantRequest, Resource
from safehold.trust.log.interface import LogError
from safehold.trust.log.keys import read_keys
from safehold.trust.log.memory import begin_log_memory

RULE = """
[[rule]]
operation = "egress.release"
thresholds = [{ team = "t-everybody", count = 2 }]
max_duration_s = 28800
keys = ["passkey", "ssh-sk", "ssh"]
"""


@pytest.fixture
def enclave(tmp_path: Path) -> Enclave:
    """An enclave whose policy has a rule for releases."""
    return Enclave(tmp_path / "log", policy=POLICY + GOVERNING + RULE).pinned()


def pinned(enclave: Enclave) -> Path:
    """Return this host's memory of the enclave's log; made where it is missing."""
    memory = enclave.root.with_name("log-memory")
    if not memory.exists():
        begin_log_memory(memory, read_keys(enclave.root / "log.json"))
    return memory


def ask(enclave: Enclave, flow: str = "replies", **changes: object) -> GrantRequest:
    """Request the release of a flow."""
    return enclave.ask(
        "dev-one",
        "egress.release",
        resource=Resource(kind="egress", name=flow, version="1", parts=("*",)),
        workload_sha256=workload("egress.release", flow),
        **changes,
    )


def test_two_persons_release_once(enclave: Enclave) -> None:
    """Two approvals let exactly one release through; the second needs another grant."""
    request = ask(enclave)
    enclave.file(request)
    enclave.approve(request, "dev-two", "sec-one")
    desk = DeskAuthorizer(enclave.desk, "gpu-1", pinned(enclave))
    assert desk.require("egress.release", "replies").grant_id == request.sha256
    with pytest.raises(TrustError):
        desk.require("egress.release", "replies")


@pytest.mark.parametrize("approvers", [(), ("dev-two",)])
def test_too_few_persons_release_nothing(enclave: Enclave, approvers: tuple[str, ...]) -> None:
    """A request alone, or with one approval, is no grant; the error says what to request."""
    request = ask(enclave)
    enclave.file(request)
    enclave.approve(request, *approvers)
    with pytest.raises(TrustError, match="two-party grant"):
        DeskAuthorizer(enclave.desk, "gpu-1", pinned(enclave)).require("egress.release", "replies")


def test_grant_for_something_else_releases_nothing(enclave: Enclave) -> None:
    """Another flow, another host or another program is not what was approved."""
    for request in (
        ask(enclave, flow="telemetry"),
        ask(enclave, host="gpu-2"),
        ask(enclave, nonce="1" * 32).__class__(
            **{
                **{f: getattr(ask(enclave), f) for f in ask(enclave).__struct_fields__},
                "workload_sha256": "cd" * 32,
            }
        ),
    ):
        enclave.file(request)
        enclave.approve(request, "dev-two", "sec-one")
    with pytest.raises(TrustError):
        DeskAuthorizer(enclave.desk, "gpu-1", pinned(enclave)).require("egress.release", "replies")


def test_alarm_ends_every_weight_grant(enclave: Enclave) -> None:
    """After a seal no weight grant can be used, and other grants can."""
    load, release = enclave.ask(), ask(enclave)
    for request in (load, release):
        enclave.file(request)
        enclave.approve(request, "dev-two", "dev-three", "sec-one")
    assert DeskWeightGrants(enclave.desk).revoke_all("unexplained bytes") == 1
    with pytest.raises(TrustError):
        enclave.use(load)
    DeskAuthorizer(enclave.desk, "gpu-1", pinned(enclave)).require("egress.release", "replies")


def test_events_reach_the_transparency_log(enclave: Enclave) -> None:
    """Every event becomes a leaf; control characters do not."""
    before = enclave.desk.store.size
    audit = DeskAudit(enclave.desk)
    for kind in ("egress.block", "egress.apply", "egress.raise", "egress.release"):
        audit.append(kind, {"flow": "replies", "reason": "a\nb\x1b[2J", "n": 3})
    assert callable(before) or enclave.desk.store.size == before + 4


def test_without_trust_nothing_loosens() -> None:
    """A host without a trust store refuses every loosening."""
    with pytest.raises(TrustError):
        RefuseAll().require("egress.release", "replies")


def test_a_log_that_the_host_did_not_pin_releases_nothing(enclave: Enclave, tmp_path: Path) -> None:
    """A grant of a log that one administrator made, founders and all, is none."""
    request = ask(enclave)
    enclave.file(request)
    enclave.approve(request, "dev-two", "sec-one")
    for memory in (tmp_path / "none", tmp_path / "other"):
        if memory.name == "other":
            other = Enclave(tmp_path / "other-log", policy=POLICY + GOVERNING + RULE).pinned()
            begin_log_memory(memory, read_keys(other.root / "log.json"))
        with pytest.raises(LogError):
            DeskAuthorizer(enclave.desk, "gpu-1", memory).require("egress.release", "replies")
    assert DeskAuthorizer(enclave.desk, "gpu-1", pinned(enclave)).require(
        "egress.release", "replies"
    )
