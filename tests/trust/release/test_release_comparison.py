"""A retrained bundle's comparison: two who measured it signed it, for this pair and golden set."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from safehold.canonical import canonical, sha256_hex
from safehold.secure.change.provenance import envelope, to_sign
from safehold.testing.released import RELEASE_RULES, ReleaseChannel
from safehold.testing.trust import GOVERNING, POLICY, Enclave, SoftSsh, held, person_id
from safehold.trust.grants.details import AddKey
from safehold.trust.people.sshsig import armour, sign_sshsig
from safehold.trust.release.comparison import (
    NAMESPACE,
    Comparison,
    comparison_statement,
    golden_digest,
    read_comparison,
)
from safehold.trust.release.interface import (
    Artefact,
    ArtefactKind,
    Behaviour,
    ReleaseError,
)
from safehold.trust.released.follow import ReleaseLog
from safehold.trust.released.vouching import NAMESPACE as OF_PROVENANCE
from safehold.trust.released.vouching import SUFFIX

GOLDEN_SHA256 = golden_digest({"golden.jsonl": "6" * 64})
OLD = Artefact(path="bundle", kind=ArtefactKind.BUNDLE, sha256="1" * 64)
NEW = Artefact(path="bundle", kind=ArtefactKind.BUNDLE, sha256="4" * 64)
GOLDEN = Artefact(path="golden.jsonl", kind=ArtefactKind.GOLDEN, sha256=GOLDEN_SHA256)
NOTHING_LOST = Comparison(old=OLD.sha256, new=NEW.sha256, golden=GOLDEN_SHA256, items=500, lost=())


class Fleet:
    """A channel with a bundle and a golden set in force, and people who compare bundles."""

    def __init__(self, root: Path) -> None:
        self.enclave = Enclave(root / "log", policy=POLICY + GOVERNING + RELEASE_RULES)
        self.channel = ReleaseChannel(self.enclave, root / "releases")
        self.channel.publish(self.channel.next(OLD, GOLDEN))

    def signed(
        self, found: Comparison, *who: str, namespace: str = NAMESPACE, keep: bool = True
    ) -> str:
        """Have people sign a comparison, lay it beside the documents; return its digest."""
        told = comparison_statement(found)
        signatures = {}
        for name in who:
            soft = self.enclave.keys[name] if name in self.enclave.keys else SoftSsh(name.encode())
            assert isinstance(soft, SoftSsh)
            text = armour(sign_sshsig(soft.private, to_sign(told), namespace=namespace))
            signatures[soft.key.key_id] = text
        data = envelope(told, signatures)
        if keep:
            (self.documents / f"{sha256_hex(data)}{SUFFIX}").write_bytes(data)
        return sha256_hex(data)

    @property
    def documents(self) -> Path:
        """Where every verifier reads."""
        return Path(self.channel.settings.documents)

    def release(
        self,
        behaviour: Behaviour,
        operation: str = "release.publish",
        golden: Artefact = GOLDEN,
    ) -> None:
        """Release the new bundle."""
        made = self.channel.next(NEW, golden, behaviour=(behaviour,))
        self.channel.publish(made, operation)

    def in_force(self) -> tuple[str, str]:
        """Return the bundle in force and the operation that carried it, as a gateway verifies."""
        log = ReleaseLog(self.channel.settings, lambda: float(self.enclave.time))
        found = log.current()
        bundles = [one for one in found.current.artefacts if one.kind is ArtefactKind.BUNDLE]
        return bundles[0].sha256, found.operation


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet on its first release."""
    return Fleet(tmp_path)


TWO = ("dev-one", "sec-one")


def test_comparison_that_two_signed_and_that_loses_nothing_needs_the_lower_quorum(
    fleet: Fleet,
) -> None:
    """The retrained bundle is in force by `release.publish`; later its envelope may be gone."""
    digest = fleet.signed(NOTHING_LOST, *TWO)
    fleet.release(NOTHING_LOST.behaviour(digest))
    assert fleet.in_force() == (NEW.sha256, "release.publish")
    (fleet.documents / f"{digest}{SUFFIX}").unlink()
    assert fleet.in_force() == (NEW.sha256, "release.publish")


def test_one_lost_regression_item_needs_the_higher_quorum(fleet: Fleet) -> None:
    """Two may not carry it, although the list is true and signed; three may."""
    lost = msgspec.structs.replace(NOTHING_LOST, lost=("regression-17 reply",))
    behaviour = lost.behaviour(fleet.signed(lost, *TWO))
    fleet.release(behaviour)
    with pytest.raises(ReleaseError, match="weakens a safeguard"):
        fleet.in_force()


def test_higher_quorum_carries_a_lost_item(fleet: Fleet) -> None:
    """The same bundle by `release.weaken` is in force."""
    lost = msgspec.structs.replace(NOTHING_LOST, lost=("regression-17 reply",))
    fleet.release(lost.behaviour(fleet.signed(lost, *TWO)), "release.weaken")
    assert fleet.in_force() == (NEW.sha256, "release.weaken")


LOST = msgspec.structs.replace(NOTHING_LOST, lost=("regression-17 reply",))
Forgery = Callable[[Fleet], Behaviour]
FORGERIES: dict[str, Forgery] = {
    "nobody signed": lambda fleet: NOTHING_LOST.behaviour(fleet.signed(NOTHING_LOST)),
    "one signed": lambda fleet: NOTHING_LOST.behaviour(fleet.signed(NOTHING_LOST, "dev-one")),
    "a stranger is the second": lambda fleet: NOTHING_LOST.behaviour(
        fleet.signed(NOTHING_LOST, "dev-one", "stranger")
    ),
    "a service is the second": lambda fleet: NOTHING_LOST.behaviour(
        fleet.signed(NOTHING_LOST, "dev-one", "keyd")
    ),
    "signed for another purpose": lambda fleet: NOTHING_LOST.behaviour(
        fleet.signed(NOTHING_LOST, *TWO, namespace=OF_PROVENANCE)
    ),
    "the list is cut": lambda fleet: NOTHING_LOST.behaviour(fleet.signed(LOST, *TWO)),
    "more items are claimed": lambda fleet: msgspec.structs.replace(
        NOTHING_LOST, items=9_999
    ).behaviour(fleet.signed(NOTHING_LOST, *TWO)),
    "another golden set": lambda fleet: NOTHING_LOST.behaviour(
        fleet.signed(msgspec.structs.replace(NOTHING_LOST, golden="7" * 64), *TWO)
    ),
    "another old bundle was compared": lambda fleet: NOTHING_LOST.behaviour(
        fleet.signed(msgspec.structs.replace(NOTHING_LOST, old="8" * 64), *TWO)
    ),
    "another new bundle was compared": lambda fleet: NOTHING_LOST.behaviour(
        fleet.signed(msgspec.structs.replace(NOTHING_LOST, new="8" * 64), *TWO)
    ),
    "a report of another pair": lambda fleet: msgspec.structs.replace(
        NOTHING_LOST, old="8" * 64
    ).behaviour(fleet.signed(msgspec.structs.replace(NOTHING_LOST, old="8" * 64), *TWO)),
    "the envelope is missing": lambda fleet: NOTHING_LOST.behaviour(
        fleet.signed(NOTHING_LOST, *TWO, keep=False)
    ),
    "the digest is made up": lambda _: NOTHING_LOST.behaviour("9" * 64),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_report_does_not_lower_the_quorum(fleet: Fleet, name: str) -> None:
    """A report that two did not sign for exactly this counts as none: the release is weaker."""
    fleet.release(FORGERIES[name](fleet))
    with pytest.raises(ReleaseError, match="weakens a safeguard"):
        fleet.in_force()


def test_one_persons_two_keys_are_one_who_compared(fleet: Fleet) -> None:
    """A second key that a person enrolled adds nobody."""
    second = SoftSsh(b"second key of dev-one")
    enclave = fleet.enclave
    change = AddKey(person_id=person_id("dev-one"), key=second.key)
    enclave.carry("people.add-key", held(enclave.founding_sha256(), change, second))
    enclave.keys["dev-one again"] = second
    assert enclave.desk.state.roster.owner(second.key.key_id) is not None
    fleet.release(NOTHING_LOST.behaviour(fleet.signed(NOTHING_LOST, "dev-one", "dev-one again")))
    with pytest.raises(ReleaseError, match="weakens a safeguard"):
        fleet.in_force()


def test_golden_set_is_not_chosen_by_the_release_that_it_judges(fleet: Fleet) -> None:
    """An easier golden set beside the new bundle needs the higher quorum, signed or not."""
    easy = msgspec.structs.replace(NOTHING_LOST, golden="7" * 64)
    golden = msgspec.structs.replace(GOLDEN, sha256="7" * 64)
    fleet.release(easy.behaviour(fleet.signed(easy, *TWO)), golden=golden)
    with pytest.raises(ReleaseError, match="weakens a safeguard"):
        fleet.in_force()


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "x"},
        {"subject": []},
        {"predicate": {}},
        {"more": 1},
        {"subject": [{"name": "bundle", "digest": {"sha256": "4" * 64}}, {"name": "x"}]},
    ],
)
def test_statement_that_says_something_else_is_no_comparison(change: dict[str, object]) -> None:
    """Only the whole form is read; the form itself reads back as it was written."""
    told = comparison_statement(LOST)
    assert read_comparison(told) == LOST
    with pytest.raises(ReleaseError):
        read_comparison(told | change)


def test_golden_set_is_known_by_its_files() -> None:
    """Another name or another digest is another set; the order of files is none."""
    first = golden_digest({"a": "1" * 64, "b": "2" * 64})
    assert first == golden_digest({"b": "2" * 64, "a": "1" * 64})
    assert len({first, golden_digest({"a": "1" * 64}), golden_digest({"a": "2" * 64})}) == 3
    assert first == sha256_hex(canonical({"a": "1" * 64, "b": "2" * 64}))
