"""Attacks on releases, against a real log with real signatures."""

from pathlib import Path

import msgspec
import pytest

from safehold.canonical import canonical
from safehold.testing.trust import GOVERNING, POLICY, Enclave, SoftSsh, person_id
from safehold.trust.grants.details import Facts
from safehold.trust.grants.interface import (
    Granted,
    GrantError,
    GrantRequest,
    PolicyError,
    Reason,
    Refused,
    RefusedError,
)
from safehold.trust.grants.policy import load_policy
from safehold.trust.people.statement import Act
from safehold.trust.release.comparison import compared
from safehold.trust.release.interface import (
    Artefact,
    ArtefactKind,
    Behaviour,
    PublishRelease,
    Release,
    ReleaseError,
    Seen,
    parse_release,
)
from safehold.trust.release.needed import NOBODY, Vouched
from safehold.trust.release.release_set import ReleaseSet

CHANNEL = "gateway-1"
RULES = """
[[rule]]
operation = "release.publish"
thresholds = [{ team = "t-development", count = 2 }]
max_duration_s = 28800
keys = ["ssh"]

[[rule]]
operation = "release.weaken"
thresholds = [{ team = "t-development", count = 2 }, { team = "t-security", count = 1 }]
max_duration_s = 28800
keys = ["ssh"]

[[rule]]
operation = "release.emergency"
thresholds = [{ team = "t-everybody", count = 2 }]
max_duration_s = 28800
keys = ["ssh"]
break_glass = { team = "t-security", max_duration_s = 3600, max_per_week = 5 }
"""
BUNDLE = Artefact(path="bundle", kind=ArtefactKind.BUNDLE, sha256="1" * 64)
GOLDEN = Artefact(path="golden", kind=ArtefactKind.GOLDEN, sha256="6" * 64)
GATEWAY = Artefact(
    path="safehold.yaml",
    kind=ArtefactKind.GATEWAY,
    sha256="2" * 64,
    document={"default": {"hold_tokens": 16, "shadow": False}, "canary": {"enabled": True}},
)


class House:
    """An enclave that releases, and one gateway that verifies."""

    def __init__(self, root: Path) -> None:
        self.enclave = Enclave(root, policy=POLICY + GOVERNING + RULES)
        self.releases: list[Release] = []
        self.seen = Seen(
            origin="enclave.test/log", channel=CHANNEL, log_size=0, version=0, release_sha256=""
        )

    def next(self, *artefacts: Artefact, behaviour: tuple[Behaviour, ...] = ()) -> Release:
        """Return the next release of these artefacts."""
        return Release(
            channel=CHANNEL,
            version=len(self.releases) + 1,
            previous=self.releases[-1].sha256 if self.releases else "",
            artefacts=artefacts,
            not_before=self.enclave.time,
            expires=self.enclave.time + 10**6,
            behaviour=behaviour,
        )

    def ask(self, release: Release, operation: str, *, host: str = CHANNEL) -> GrantRequest:
        """Return the request to publish a release."""
        details = PublishRelease(
            channel=release.channel,
            version=release.version,
            previous=release.previous,
            release_sha256=release.sha256,
        )
        return self.enclave.ask(
            "dev-one",
            operation,
            details=details,
            host=host,
            workload_sha256=release.sha256,
        )

    def publish(
        self,
        release: Release,
        operation: str = "release.weaken",
        *,
        by: tuple[str, ...] = ("dev-two", "dev-three", "sec-one"),
        host: str = CHANNEL,
    ) -> None:
        """Request, approve and carry out a release."""
        request = self.ask(release, operation, host=host)
        self.enclave.file(request)
        for name in by:
            decision = self.enclave.approve(request, name)
            if isinstance(decision, Granted):
                break  # A release takes effect with its quorum.
        else:
            self.enclave.use(request)
        self.releases.append(release)

    def verify(
        self, *, now: int | None = None, size: int | None = None, vouched: Vouched = NOBODY
    ) -> ReleaseSet:
        """Verify as the gateway does, and remember."""
        desk = self.enclave.desk
        head = desk.state.head(desk.store.size if size is None else size)
        made = ReleaseSet(
            head,
            self.releases,
            seen=self.seen,
            now=self.enclave.time if now is None else now,
            max_age_s=3600,
            vouched=vouched,
        )
        self.seen = made.seen
        return made


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house with a first release of a bundle and a configuration."""
    made = House(tmp_path)
    made.publish(made.next(BUNDLE, GATEWAY, GOLDEN))
    return made


def looser() -> Artefact:
    """Return a configuration that guards less."""
    document = {"default": {"hold_tokens": 4, "shadow": False}, "canary": {"enabled": True}}
    return msgspec.structs.replace(GATEWAY, sha256="3" * 64, document=document)


def stricter() -> Artefact:
    """Return a configuration that guards more."""
    document = {"default": {"hold_tokens": 64, "shadow": False}, "canary": {"enabled": True}}
    return msgspec.structs.replace(GATEWAY, sha256="3" * 64, document=document)


def signed(behaviour: Behaviour, golden: str = GOLDEN.sha256) -> Vouched:
    """Return that a comparison was verified, on a golden set."""
    return {(behaviour.report_sha256, compared(behaviour, golden).sha256)}


def retrained(*lost: str) -> tuple[Artefact, Behaviour]:
    """Return a retrained bundle and what it lost against the one in force."""
    bundle = msgspec.structs.replace(BUNDLE, sha256="4" * 64)
    return bundle, Behaviour(
        old=BUNDLE.sha256, new=bundle.sha256, items=500, lost=lost, report_sha256="5" * 64
    )


def test_a_released_bundle_is_admitted(house: House) -> None:
    """What two persons and security released is admitted."""
    assert house.verify().admit(ArtefactKind.BUNDLE, BUNDLE.sha256) == BUNDLE


def test_a_stricter_release_needs_two(house: House) -> None:
    """A change that weakens nothing comes by `release.publish`."""
    house.publish(
        house.next(BUNDLE, stricter(), GOLDEN), "release.publish", by=("dev-two", "dev-three")
    )
    assert house.verify().current.version == 2


def test_a_revoked_release_is_in_force_no_more(house: House) -> None:
    """Nothing of it loads, and the one before it does not come back; the next one is in force."""
    release = house.next(BUNDLE, stricter(), GOLDEN)
    request = house.ask(release, "release.publish")
    house.enclave.file(request)
    house.enclave.approve(request, "dev-two", "dev-three")
    house.releases.append(release)
    assert house.verify().current.version == 2
    note = house.enclave.note(request)
    house.enclave.desk.revoke(note, house.enclave.keys["sec-two"].sign(Act.REVOKE, note))
    with pytest.raises(ReleaseError, match="release 2 was revoked: publish the next one"):
        house.verify()
    house.publish(house.next(BUNDLE, stricter(), GOLDEN))
    assert house.verify().current.version == 3


def test_altered_artefact_is_refused(house: House) -> None:
    """A bundle of another digest is not admitted."""
    with pytest.raises(ReleaseError, match="is not in release"):
        house.verify().admit(ArtefactKind.BUNDLE, "9" * 64)


def test_settings_that_are_read_otherwise_are_refused(house: House) -> None:
    """The file is the released one, but what was read from it is not."""
    released = house.verify()
    assert released.admit(ArtefactKind.GATEWAY, GATEWAY.sha256, GATEWAY.document) == GATEWAY
    with pytest.raises(ReleaseError, match="is not in release"):
        released.admit(ArtefactKind.GATEWAY, GATEWAY.sha256, looser().document)


def test_mix_and_match_is_refused(house: House) -> None:
    """The bundle of the release before does not go with the newest one."""
    bundle, behaviour = retrained()
    house.publish(house.next(bundle, GATEWAY, GOLDEN, behaviour=(behaviour,)), "release.publish")
    with pytest.raises(ReleaseError, match="is not in release 2"):
        house.verify(vouched=signed(behaviour)).admit(ArtefactKind.BUNDLE, BUNDLE.sha256)


def test_a_shorter_log_is_refused(house: House) -> None:
    """A log with fewer leaves than before is a rollback."""
    house.verify()
    with pytest.raises(ReleaseError, match="leaves or more"):
        house.verify(size=3)


def test_a_frozen_log_is_refused(house: House) -> None:
    """A log that says nothing new for longer than allowed is a freeze."""
    with pytest.raises(ReleaseError, match="newest leaf"):
        house.verify(now=house.enclave.time + 3601)


def test_rollback_to_an_older_version_is_refused(house: House) -> None:
    """A verifier that saw version 7 does not take version 1."""
    house.seen = msgspec.structs.replace(house.seen, version=7, release_sha256="7" * 64)
    with pytest.raises(ReleaseError, match="rollback"):
        house.verify()


def test_fork_is_refused(house: House) -> None:
    """Another document under a version that was accepted before is a fork."""
    house.seen = msgspec.structs.replace(house.seen, version=1, release_sha256="7" * 64)
    with pytest.raises(ReleaseError, match="fork"):
        house.verify()


def test_two_releases_of_one_version_are_refused(house: House) -> None:
    """The log takes one release of a version; a head that had two would be no chain."""
    first = house.next(BUNDLE, GATEWAY, GOLDEN)
    house.publish(first)
    again = msgspec.structs.replace(first, expires=first.expires - 1)
    with pytest.raises(RefusedError, match="expected version 3"):
        house.publish(again)
    head = house.enclave.desk.state.head(house.enclave.desk.store.size)
    twice = msgspec.structs.replace(head, releases=(*head.releases, head.releases[-1]))
    with pytest.raises(ReleaseError, match="no chain"):
        ReleaseSet(twice, house.releases, seen=house.seen, now=house.enclave.time, max_age_s=3600)


@pytest.mark.parametrize("change", ["version", "previous"])
def test_a_release_that_skips_or_forks_is_refused_by_the_log(house: House, change: str) -> None:
    """A version that is not the next, or one after another release than the last, is not taken."""
    good = house.next(BUNDLE, GATEWAY, GOLDEN)
    bad = msgspec.structs.replace(good, **{change: 7 if change == "version" else "e" * 64})
    with pytest.raises(RefusedError, match="expected version 2"):
        house.publish(bad)
    house.publish(good)
    assert house.verify().current == good


def test_approval_for_another_gateway_is_refused(house: House) -> None:
    """A grant whose host is another gateway's name puts nothing in force, nor does such a head."""
    with pytest.raises(RefusedError, match="expected a grant for the host gateway-1"):
        house.publish(house.next(BUNDLE, GATEWAY, GOLDEN), host="gateway-2")
    head = house.enclave.desk.state.head(house.enclave.desk.store.size)
    moved = tuple(msgspec.structs.replace(one, host="gateway-2") for one in head.releases)
    with pytest.raises(ReleaseError, match="not for here"):
        ReleaseSet(
            msgspec.structs.replace(head, releases=moved),
            house.releases,
            seen=house.seen,
            now=house.enclave.time,
            max_age_s=3600,
        )


def test_a_release_of_another_channel_is_none_here(house: House) -> None:
    """What is released for another channel changes nothing on this one."""
    other = msgspec.structs.replace(
        house.next(looser(), GOLDEN), channel="other", version=1, previous=""
    )
    house.publish(other, host="other")
    assert house.verify().current == house.releases[0]


def test_one_of_two_is_refused(house: House) -> None:
    """One approval where two are needed grants nothing."""
    with pytest.raises(RefusedError):
        house.publish(house.next(BUNDLE, stricter(), GOLDEN), "release.publish", by=("dev-two",))
    assert house.verify().current.version == 1


def test_own_approval_is_refused(house: House) -> None:
    """Who asks does not count among those who approve."""
    request = house.ask(house.next(BUNDLE, stricter(), GOLDEN), "release.publish")
    house.enclave.file(request)
    house.enclave.approve(request, "dev-two")
    with pytest.raises(GrantError, match="their own request"):
        house.enclave.approve(request, "dev-one")
    with pytest.raises(RefusedError):
        house.enclave.use(request)


def test_two_keys_of_one_person_count_once(house: House) -> None:
    """Quorums count persons, not keys."""
    second = SoftSsh(b"dev-two's other key")
    house.enclave.carry("people.add-key", house.enclave.adding("dev-two", second))
    request = house.ask(house.next(BUNDLE, stricter(), GOLDEN), "release.publish")
    house.enclave.file(request)
    house.enclave.approve(request, "dev-two")
    proof = second.sign(Act.APPROVE, request)
    with pytest.raises(GrantError, match="persons count, not keys"):
        house.enclave.desk.approve(request.sha256, proof)
    with pytest.raises(RefusedError):
        house.enclave.use(request)


@pytest.mark.parametrize("operation", ["release.publish", "release.emergency"])
def test_a_loosened_field_needs_the_higher_quorum(house: House, operation: str) -> None:
    """A weaker field under an easier operation is refused, whatever the request calls itself."""
    house.publish(house.next(BUNDLE, looser(), GOLDEN), operation)
    with pytest.raises(ReleaseError, match="weakens a safeguard"):
        house.verify()


def test_a_loosened_field_hides_in_no_other_file(house: House) -> None:
    """A second file that guards less is seen beside one that guards more."""
    odd = msgspec.structs.replace(looser(), path="other.yaml")
    house.publish(house.next(BUNDLE, stricter(), odd, GOLDEN), "release.publish")
    with pytest.raises(ReleaseError, match="weakens a safeguard"):
        house.verify()


def test_a_bundle_that_loses_one_item_needs_the_higher_quorum(house: House) -> None:
    """One item that the old bundle stopped and the new one passes is a weakening."""
    bundle, behaviour = retrained("regression-17")
    house.publish(house.next(bundle, GATEWAY, GOLDEN, behaviour=(behaviour,)), "release.publish")
    with pytest.raises(ReleaseError, match="weakens a safeguard"):
        house.verify(vouched=signed(behaviour))


def test_a_bundle_without_a_comparison_needs_the_higher_quorum(house: House) -> None:
    """A new bundle that nobody compared with the old one counts as weaker."""
    bundle, _ = retrained()
    house.publish(house.next(bundle, GATEWAY, GOLDEN), "release.publish")
    with pytest.raises(ReleaseError, match="weakens a safeguard"):
        house.verify()


def test_a_bundle_that_loses_nothing_needs_two(house: House) -> None:
    """A retrained bundle that stops all that the old one stopped comes by `release.publish`."""
    bundle, behaviour = retrained()
    house.publish(house.next(bundle, GATEWAY, GOLDEN, behaviour=(behaviour,)), "release.publish")
    assert (
        house.verify(vouched=signed(behaviour)).admit(ArtefactKind.BUNDLE, bundle.sha256) == bundle
    )


def test_a_missing_document_is_refused(house: House) -> None:
    """A logged release whose document was taken away leaves nothing in force."""
    house.publish(house.next(BUNDLE, stricter(), GOLDEN))
    del house.releases[0]
    with pytest.raises(ReleaseError, match="missing"):
        house.verify()


def test_an_expired_release_is_refused(house: House) -> None:
    """A release ends at its time."""
    late = house.releases[0].expires + 1
    house.enclave.time = late
    house.enclave.desk.alarm("test", "heartbeat", "alive")
    with pytest.raises(ReleaseError, match="not valid at this time"):
        house.verify()


def test_a_release_hides_behind_no_other_details(house: House) -> None:
    """Free-form facts do not stand for a release."""
    request = house.enclave.ask(
        "dev-one", "release.publish", details=Facts(values={"release": "1" * 64})
    )
    house.enclave.file(request)
    decision = house.enclave.desk.state.decide(request.sha256, house.enclave.time)
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.DETAILS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            'team = "t-development", count = 2 }]\nmax_duration_s = 28800\nkeys = ["ssh"]\n',
            'team = "t-development", count = 1 }]\nmax_duration_s = 28800\nkeys = ["ssh"]\n',
        ),
        (
            ', { team = "t-security", count = 1 }]\nmax_duration_s = 28800\nkeys = ["ssh"]',
            ']\nmax_duration_s = 28800\nkeys = ["ssh"]',
        ),
    ],
)
def test_a_policy_with_an_easy_release_is_refused(old: str, new: str) -> None:
    """Fewer approvals than two and three are no policy."""
    text = POLICY + GOVERNING + RULES
    assert old in RULES
    with pytest.raises(PolicyError, match="approvals"):
        load_policy(text.replace(RULES, RULES.replace(old, new, 1)))


def test_break_glass_on_a_weaker_release_is_refused() -> None:
    """Nobody weakens a safeguard alone, not even in need."""
    glass = 'keys = ["ssh"]\nbreak_glass = { team = "t-security", max_duration_s = 60 }\n'
    with pytest.raises(PolicyError, match="break_glass"):
        load_policy(POLICY + GOVERNING + RULES.replace('keys = ["ssh"]\n', glass, 2))


def test_an_emergency_by_one_person_waits_for_its_reviews(house: House) -> None:
    """One person may make a release stricter; overdue reviews block the next one."""
    enclave = house.enclave
    first = house.ask(house.next(BUNDLE, stricter(), GOLDEN), "release.emergency")
    first = msgspec.structs.replace(first, requester=person_id("sec-one"), break_glass=True)
    enclave.file(first)
    enclave.desk.break_glass(first.sha256, enclave.keys["sec-one"].sign(Act.BREAK_GLASS, first))
    enclave.use(first)
    house.releases.append(house.next(BUNDLE, stricter(), GOLDEN))
    assert house.verify().operation == "release.emergency"
    enclave.time += 86_400 + 1
    second = house.ask(house.next(BUNDLE, stricter(), GOLDEN), "release.emergency")
    second = msgspec.structs.replace(second, requester=person_id("sec-one"), break_glass=True)
    enclave.file(second)
    with pytest.raises(RefusedError, match="review"):
        enclave.desk.break_glass(
            second.sha256, enclave.keys["sec-one"].sign(Act.BREAK_GLASS, second)
        )


def test_another_spelling_of_a_release_is_refused(house: House) -> None:
    """Only the canonical bytes of a release are read."""
    data = canonical(house.releases[0])
    assert parse_release(data) == house.releases[0]
    with pytest.raises(ReleaseError, match="canonical"):
        parse_release(data.replace(b'{"artefacts"', b'{ "artefacts"', 1))
