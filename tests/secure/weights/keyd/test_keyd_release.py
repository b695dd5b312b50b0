"""Key release: nothing comes out unless every step holds; what came out is in the log."""

import shutil
from pathlib import Path

import msgspec
import pytest

from safehold.errors import TrustError, WeightsError
from safehold.secure.weights.header import content_id, sign_header
from safehold.secure.weights.interface import LeaseError, ProviderError
from safehold.secure.weights.keyd.client import GrantRefusedError, ask_once, check_receipt
from safehold.secure.weights.keyd.interface import (
    BEAT_S,
    SILENCE_S,
    KeydError,
    Keys,
    Load,
    Rewrap,
    Rewrapped,
    Shred,
    Shredded,
    Watching,
    WatchRequest,
)
from safehold.secure.weights.keyd.peer import Peer
from safehold.secure.weights.keyd.release import CONTENT_FACT
from safehold.secure.weights.keys import unwrap_data_key
from safehold.secure.weights.rewrap import rewrapped, store_header, tombstone
from safehold.secure.weights.signer import SealSigner
from safehold.testing.keyd import Vaulted
from safehold.testing.trust import person_id
from safehold.trust.clock import SKEW_S
from safehold.trust.demands.ask import StandingError
from safehold.trust.grants.details import Facts, RemovePerson
from safehold.trust.grants.events import Released
from safehold.trust.grants.interface import Resource
from safehold.trust.log.interface import LogTamperError
from safehold.trust.people.statement import Act

ONE = "model-00001-of-00002.safetensors"
TWO = "model-00002-of-00002.safetensors"
# Long: how soon a revocation arrives is measured by `bench/revocation.py`, not here.
WAIT_S = 60


def _releases(vaulted: Vaulted, grant: str) -> int:
    return vaulted.enclave.desk.state.case(grant).releases


def test_quorum_loads_the_model(vaulted: Vaulted) -> None:
    """Two developers and one of security approve; the loader gets exactly the plain bytes."""
    request = vaulted.granted()
    with vaulted.load(request) as model:
        for name in model.names:
            assert bytes(model.view(name)) == (vaulted.root / "plain" / name).read_bytes()
            assert Path(model.path(name)).read_bytes() == bytes(model.view(name))
    assert _releases(vaulted, request.sha256) == 1


def test_no_grant_is_one_clear_line(vaulted: Vaulted) -> None:
    """A load without any grant says so."""
    with pytest.raises(GrantRefusedError, match="expected the id of one request"):
        vaulted.load(vaulted.ask())


@pytest.mark.parametrize("approvers", [(), ("dev-two",), ("dev-two", "sec-one")])
def test_less_than_the_quorum_releases_nothing(
    vaulted: Vaulted, approvers: tuple[str, ...]
) -> None:
    """No approval, or fewer than the policy wants, releases nothing, and the refusal is logged."""
    request = vaulted.ask()
    vaulted.enclave.file(request)
    vaulted.enclave.approve(request, *approvers)
    with pytest.raises(GrantRefusedError, match="refused"):
        vaulted.load(request)
    assert _releases(vaulted, request.sha256) == 0


def test_spent_grant_releases_nothing(vaulted: Vaulted) -> None:
    """A grant of one use loads once."""
    request = vaulted.granted()
    vaulted.load(request).close()
    with pytest.raises(GrantRefusedError, match="spent"):
        vaulted.load(request)


def test_other_operation_releases_nothing(vaulted: Vaulted) -> None:
    """A grant to shred is none to load."""
    request = vaulted.granted("weights.shred")
    with pytest.raises(KeydError, match=r"expected a grant of weights\.load"):
        vaulted.load(request)


def test_other_version_releases_nothing(vaulted: Vaulted) -> None:
    """A grant names one version of one model."""
    other = Resource(kind="model", name="brewer", version="2", parts=("*",))
    with pytest.raises(KeydError, match="expected a grant for brewer 1"):
        vaulted.load(vaulted.granted(resource=other))


def test_content_changed_after_the_approval_releases_nothing(vaulted: Vaulted) -> None:
    """Another sealing under the approved name and version is not what was approved."""
    request = vaulted.granted()
    shutil.rmtree(vaulted.root / "sealed")
    vaulted.publisher.seal()
    with pytest.raises(KeydError, match="not the one that was approved"):
        vaulted.load(request)


def test_request_without_content_releases_nothing(vaulted: Vaulted) -> None:
    """A request that does not name the content is not enough."""
    with pytest.raises(KeydError, match=CONTENT_FACT):
        vaulted.load(vaulted.granted(details=Facts(values={})))


def test_rewrap_does_not_undo_an_approval(vaulted: Vaulted) -> None:
    """The content is the same after a rewrap, so the grant still holds."""
    request = vaulted.granted()
    new = rewrapped(vaulted.header, vaulted.header.wrapped)
    store_header(vaulted.root / "sealed", new, vaulted.publisher.signer)
    vaulted.load(request).close()


def test_grant_of_one_shard_releases_no_other(vaulted: Vaulted) -> None:
    """Only the keys of the shards that the grant names ever leave the service."""
    one = Resource(kind="model", name="brewer", version="1", parts=(ONE,))
    request = vaulted.granted(resource=one, uses=3)
    with pytest.raises(KeydError, match="shards that the grant names"):
        vaulted.load(request)
    with pytest.raises(KeydError, match="shards that the grant names"):
        vaulted.load(request, (TWO,))
    with vaulted.load(request, (ONE,)) as model:
        assert model.names == (ONE,)


def test_budget_below_the_size_releases_nothing(vaulted: Vaulted) -> None:
    """A byte budget smaller than the shards is an error before anything is spent."""
    request = vaulted.granted(byte_budget=1000)
    with pytest.raises(KeydError, match="at most 1000 bytes"):
        vaulted.load(request)
    assert vaulted.enclave.desk.state.case(request.sha256).uses == 0


def test_other_workload_releases_nothing(vaulted: Vaulted) -> None:
    """The process that asks must be the program that was approved, as measured."""
    request = vaulted.granted()
    (vaulted.root / "code" / "loader.py").write_text("print('send it elsewhere')\n")
    with pytest.raises(GrantRefusedError, match="host and workload"):
        vaulted.load(request)


def test_other_host_in_the_request_releases_nothing(vaulted: Vaulted) -> None:
    """A grant for another host is worthless here."""
    with pytest.raises(GrantRefusedError, match="host and workload"):
        vaulted.load(vaulted.granted(host="gpu-2"))


def test_host_that_is_not_the_pinned_one_releases_nothing(vaulted: Vaulted) -> None:
    """A key service that was copied to another machine releases nothing there."""
    request = vaulted.granted()
    vaulted.host = msgspec.structs.replace(vaulted.host, machine_id="another")
    with pytest.raises(KeydError, match="host"):
        vaulted.load(request)


def test_foreign_user_releases_nothing(vaulted: Vaulted) -> None:
    """A user that keyd was not told of gets nothing, whatever grant it names."""
    request = vaulted.granted()
    peer = Peer(pid=1, uid=4242, gid=4242, workload_sha256=vaulted.workload)
    ask = Load(grant=request.sha256, header=vaulted.text(), parts=("*",))
    with pytest.raises(KeydError, match="4242"):
        vaulted.releaser.load(ask, peer)


def test_header_of_a_stranger_releases_nothing(vaulted: Vaulted) -> None:
    """A header that another publisher signed around the same wrapped key is refused."""
    request = vaulted.granted()
    forged = sign_header(vaulted.header, SealSigner.generate()).decode()
    with pytest.raises(KeydError, match="signed by key"):
        ask_once(vaulted.socket, Load(grant=request.sha256, header=forged, parts=("*",)), Keys)


def test_log_with_other_keys_releases_nothing(vaulted: Vaulted) -> None:
    """Keyd believes its own copy of the log's keys, not the one beside the log."""
    request = vaulted.granted()
    vaulted.pinned = msgspec.structs.replace(vaulted.pinned, founding="ab" * 32)
    ask = Load(grant=request.sha256, header=vaulted.text(), parts=("*",))
    peer = Peer(pid=1, uid=0, gid=0, workload_sha256=vaulted.workload)
    with pytest.raises(LogTamperError, match="keys"):
        vaulted.new_releaser().load(ask, peer)


def test_log_rolled_back_releases_nothing(vaulted: Vaulted) -> None:
    """A log put back to before a revocation is smaller than keyd remembers: refused."""
    request = vaulted.granted(uses=2)
    shutil.copytree(vaulted.root / "log", vaulted.root / "old")
    vaulted.load(request).close()
    note = vaulted.enclave.note(request)
    vaulted.enclave.desk.revoke(note, vaulted.enclave.keys["sec-two"].sign(Act.REVOKE, note))
    with pytest.raises(GrantRefusedError):
        vaulted.load(request)
    shutil.rmtree(vaulted.root / "log")
    (vaulted.root / "old").rename(vaulted.root / "log")
    ask = Load(grant=request.sha256, header=vaulted.text(), parts=("*",))
    peer = Peer(pid=1, uid=0, gid=0, workload_sha256=vaulted.workload)
    with pytest.raises(LogTamperError, match="shrank"):
        vaulted.new_releaser().load(ask, peer)


def test_approver_removed_before_use_releases_nothing(vaulted: Vaulted) -> None:
    """An approver who was removed between approval and use does not count."""
    request = vaulted.granted()
    vaulted.enclave.carry("people.remove", RemovePerson(person_id=person_id("dev-two")))
    with pytest.raises(GrantRefusedError):
        vaulted.load(request)


def test_clock_set_back_releases_nothing(vaulted: Vaulted) -> None:
    """A clock before the log's newest leaf releases nothing."""
    request = vaulted.granted()
    vaulted.enclave.time -= SKEW_S + 1
    with pytest.raises(GrantRefusedError, match="clock"):
        vaulted.load(request)


def test_a_step_back_of_a_second_stops_nobody(vaulted: Vaulted) -> None:
    """A clock that NTP sets back a little loads, and its lease goes on."""
    request = vaulted.granted()
    vaulted.enclave.time -= 2
    with vaulted.load(request):
        assert vaulted.releaser.ended(request.sha256) is None


def test_a_fast_clock_elsewhere_ends_no_running_lease(vaulted: Vaulted) -> None:
    """A leaf from years ahead stops new uses; what runs goes on, and can still be revoked."""
    request = vaulted.granted()
    with vaulted.load(request):
        vaulted.enclave.time += 10**8
        vaulted.enclave.file(vaulted.enclave.ask("dev-four"))
        vaulted.enclave.time -= 10**8
        assert vaulted.releaser.ended(request.sha256) is None
        with pytest.raises(GrantRefusedError):
            vaulted.load(request)
        note = vaulted.enclave.note(request)
        vaulted.enclave.desk.revoke(note, vaulted.enclave.keys["sec-two"].sign(Act.REVOKE, note))
        assert vaulted.releaser.ended(request.sha256) == "the request was revoked"


def test_a_clock_that_is_set_back_lengthens_no_lease(vaulted: Vaulted) -> None:
    """A lease ends by the seconds since boot, whatever the wall clock was set to."""
    since_boot = [1000.0]
    releaser = vaulted.new_releaser(elapsed=lambda: since_boot[0])
    request = vaulted.granted(uses=3)
    vaulted.enclave.use(request)
    assert releaser.ended(request.sha256) is None
    since_boot[0] += request.expires - vaulted.enclave.time - 1
    assert releaser.ended(request.sha256) is None
    since_boot[0] += 1
    assert releaser.ended(request.sha256) == "the grant has expired"


def test_provider_that_fails_releases_nothing(vaulted: Vaulted) -> None:
    """If the wrapping key is out of reach, the loader gets an error and no key."""
    request = vaulted.granted()
    vaulted.publisher.provider.broken = True
    with pytest.raises(KeydError, match="out of reach"):
        vaulted.load(request)


def test_receipt_proves_the_release(vaulted: Vaulted) -> None:
    """The loader's receipt is a leaf of the log about this very release, provable offline."""
    request = vaulted.granted()
    ask = Load(grant=request.sha256, header=vaulted.text(), parts=("*",))
    answer: Keys = ask_once(vaulted.socket, ask, Keys)
    leaf = check_receipt(answer.receipt, vaulted.pinned)
    assert isinstance(leaf, Released)
    assert (leaf.request, leaf.host) == (request.sha256, "gpu-1")
    assert leaf.header_sha256 == content_id(vaulted.header)


def test_false_receipt_is_refused(vaulted: Vaulted) -> None:
    """A receipt whose entry was changed does not verify."""
    request = vaulted.granted()
    ask = Load(grant=request.sha256, header=vaulted.text(), parts=("*",))
    answer: Keys = ask_once(vaulted.socket, ask, Keys)
    bad = msgspec.structs.replace(answer.receipt, entry=answer.receipt.entry[:-4] + "AAAA")
    with pytest.raises(TrustError):
        check_receipt(bad, vaulted.pinned)


# ---- leases ------------------------------------------------------------------------------


def test_a_loader_hears_of_the_end_within_five_seconds() -> None:
    """Whether the key service speaks or is silent, the waits add up to five seconds at most."""
    assert BEAT_S + SILENCE_S <= 5


def test_the_socket_is_for_those_whom_its_mode_names(vaulted: Vaulted) -> None:
    """Exactly the mode that was asked for, whatever the process' own mask."""
    assert vaulted.socket.stat().st_mode & 0o777 == 0o600


def test_revocation_wipes_a_running_loader(vaulted: Vaulted) -> None:
    """The key service tells of a revocation, and the plaintext is wiped."""
    request = vaulted.granted()
    heard: list[str] = []
    with vaulted.load(request) as model:
        model.on_end(heard.append)
        view = model.view(ONE)
        assert any(view)
        note = vaulted.enclave.note(request)
        vaulted.enclave.desk.revoke(note, vaulted.enclave.keys["sec-two"].sign(Act.REVOKE, note))
        assert model.wiped.wait(WAIT_S)
        assert not any(view)
        assert heard == ["the grant ended: the request was revoked"]
        with pytest.raises(LeaseError, match="revoked"):
            model.path(ONE)
        # Who asks to be told when it is over is told at once.
        model.on_end(heard.append)
        assert heard == ["the grant ended: the request was revoked"] * 2


def test_expiry_ends_a_running_loader(vaulted: Vaulted) -> None:
    """When the grant's time is over, the plaintext is wiped."""
    request = vaulted.granted()
    with vaulted.load(request) as model:
        vaulted.enclave.time = request.expires
        assert model.wiped.wait(WAIT_S)
        assert "expired" in model.reason


def test_removed_approver_ends_a_running_loader(vaulted: Vaulted) -> None:
    """Removal of a person takes effect on grants in flight."""
    request = vaulted.granted()
    with vaulted.load(request) as model:
        vaulted.enclave.carry(
            "people.remove", RemovePerson(person_id=person_id("sec-one")), "sec-two"
        )
        assert model.wiped.wait(WAIT_S)


def test_silent_service_ends_a_running_loader(vaulted: Vaulted) -> None:
    """A key service that is gone can't tell of a revocation, so the loader wipes."""
    with vaulted.load(vaulted.granted()) as model:
        vaulted.stop()
        assert model.wiped.wait(WAIT_S)


def test_service_that_is_gone_loads_nothing(vaulted: Vaulted) -> None:
    """Without the key service nothing opens, and the message says so."""
    request = vaulted.granted()
    vaulted.stop()
    with pytest.raises(KeydError, match="no key service"):
        vaulted.load(request)


def test_watch_releases_no_key(vaulted: Vaulted) -> None:
    """The meter learns the budget of a grant, and spends no use of it."""
    request = vaulted.granted()
    answer: Watching = ask_once(vaulted.socket, WatchRequest(grant=request.sha256), Watching)
    assert answer.byte_budget == request.byte_budget
    assert vaulted.enclave.desk.state.case(request.sha256).uses == 0


# ---- rewrap and shred --------------------------------------------------------------------


def test_rewrap_needs_its_own_grant(vaulted: Vaulted) -> None:
    """A grant to load is none to rewrap."""
    request = vaulted.granted()
    with pytest.raises(KeydError, match=r"weights\.rewrap"):
        ask_once(
            vaulted.socket,
            Rewrap(grant=request.sha256, header=vaulted.text(), to=("second",)),
            Rewrapped,
        )


def test_rewrapped_model_opens_with_the_new_provider(vaulted: Vaulted) -> None:
    """The service wraps the data key anew; the key itself never leaves it."""
    request = vaulted.granted("weights.rewrap")
    ask = Rewrap(grant=request.sha256, header=vaulted.text(), to=("second",))
    answer: Rewrapped = ask_once(vaulted.socket, ask, Rewrapped)
    new = rewrapped(vaulted.header, answer.wrapped)
    data_key, by = unwrap_data_key(new, [vaulted.second])
    assert by.provider == "second"
    assert data_key == unwrap_data_key(vaulted.header, [vaulted.publisher.provider])[0]


def _shred(vaulted: Vaulted) -> Shredded:
    request = vaulted.granted("weights.shred")
    ask = Shred(grant=request.sha256, header=vaulted.text())
    answer: Shredded = ask_once(vaulted.socket, ask, Shredded)
    return answer


def test_shredded_model_is_unreadable_for_ever(vaulted: Vaulted) -> None:
    """Two persons shred: keyd, the provider itself and a copy of the old header open nothing."""
    load = vaulted.granted(uses=3)
    vaulted.load(load).close()
    shutil.copytree(vaulted.root / "sealed", vaulted.root / "stolen")
    report = _shred(vaulted).report
    assert any(
        "asked to unwrap, it answered: the provider has no such key" in one for one in report
    )
    with pytest.raises(KeydError, match="shredded"):
        vaulted.load(load)
    with pytest.raises(ProviderError):
        unwrap_data_key(vaulted.header, [vaulted.publisher.provider])
    store_header(vaulted.root / "sealed", tombstone(vaulted.header), vaulted.publisher.signer)
    with pytest.raises(WeightsError, match="shredded"):
        vaulted.load(load)


def test_shredding_wipes_running_loaders(vaulted: Vaulted) -> None:
    """A loader of the model that is shredded loses its plaintext."""
    with vaulted.load(vaulted.granted()) as model:
        _shred(vaulted)
        assert model.wiped.wait(WAIT_S)
        assert "shredded" in model.reason


def test_one_person_cannot_shred(vaulted: Vaulted) -> None:
    """One approval of two destroys nothing."""
    request = vaulted.ask("weights.shred")
    vaulted.enclave.file(request)
    vaulted.enclave.approve(request, "sec-one")
    with pytest.raises(GrantRefusedError):
        ask_once(vaulted.socket, Shred(grant=request.sha256, header=vaulted.text()), Shredded)
    assert unwrap_data_key(vaulted.header, [vaulted.publisher.provider])


def test_shred_without_every_provider_destroys_nothing(vaulted: Vaulted) -> None:
    """A header that names a provider out of keyd's reach is not half shredded."""
    extra = msgspec.structs.replace(vaulted.header.wrapped[0], provider="elsewhere")
    new = rewrapped(vaulted.header, (*vaulted.header.wrapped, extra))
    store_header(vaulted.root / "sealed", new, vaulted.publisher.signer)
    request = vaulted.granted("weights.shred")
    with pytest.raises(KeydError, match="lacking elsewhere"):
        ask_once(vaulted.socket, Shred(grant=request.sha256, header=vaulted.text()), Shredded)
    assert unwrap_data_key(vaulted.header, [vaulted.publisher.provider])


def test_standards_that_are_not_met_release_nothing(vaulted: Vaulted) -> None:
    """Keyd asks the standards for the very content, before a use of the grant is spent."""
    request = vaulted.granted()
    ask = Load(grant=request.sha256, header=vaulted.text(), parts=("*",))
    peer = Peer(pid=1, uid=0, gid=0, workload_sha256=vaulted.workload)
    asked: list[str] = []

    def refuse(model: str) -> None:
        asked.append(model)
        raise StandingError("asl-3-security is not active")

    with pytest.raises(StandingError):
        vaulted.new_releaser(standing=refuse).load(ask, peer)
    assert asked == [content_id(vaulted.header)]
    keys, _ = vaulted.new_releaser(standing=asked.append).load(ask, peer)
    assert keys.keys
