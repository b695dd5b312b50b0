"""A gateway that names a log loads, swaps and rolls back only what was released."""

import json
from pathlib import Path

import msgspec
import pytest

from safehold.canonical import canonical, sha256_hex
from safehold.errors import BundleError, TrustError
from safehold.guard.gateway.bundles.loading import RulesLoader
from safehold.guard.gateway.bundles.released import (
    ReleasedLoader,
    Releases,
)
from safehold.guard.gateway.bundles.trial_steps import TrialStep
from safehold.guard.gateway.policy import Settings
from safehold.testing.released import RELEASE_RULES, ReleaseChannel, settings_artefact
from safehold.testing.response import trial_plan
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.trust.release.interface import Artefact, ArtefactKind, PublishRelease, Release
from safehold.trust.release.weaker import settings_document
from safehold.trust.released.interface import ReleaseSettings
from safehold.trust.released.memory import begin_memory

RULE = """
[[rule]]
operation = "release.weaken"
thresholds = [{ team = "t-development", count = 2 }, { team = "t-security", count = 1 }]
max_duration_s = 28800
keys = ["ssh"]
"""


class Site:
    """A gateway's folder beside an enclave that released one rules file and its settings."""

    def __init__(self, folder: Path) -> None:
        self.enclave = Enclave(folder / "log", policy=POLICY + GOVERNING + RULE)
        keys = folder / "pinned.json"
        keys.write_bytes((folder / "log" / "log.json").read_bytes())
        self.documents = folder / "releases"
        self.documents.mkdir()
        self.memory = folder / "memory.json"
        begin_memory(self.memory, origin="enclave.test/log", channel="gateway-1")
        self.rules = self.write(folder / "rules.yaml", "purple elephant")
        self.settings = Settings(
            bundle=str(self.rules),
            releases=ReleaseSettings(
                log=str(folder / "log"),
                log_keys=str(keys),
                channel="gateway-1",
                documents=str(self.documents),
                memory=str(self.memory),
            ),
        )
        document = settings_document(self.settings)
        assert isinstance(document, dict)
        rules = Artefact(
            path="rules.yaml", kind=ArtefactKind.RULES, sha256=sha256_hex(self.rules.read_bytes())
        )
        gateway = Artefact(
            path="safehold.yaml",
            kind=ArtefactKind.GATEWAY,
            sha256=sha256_hex(canonical(document)),
            document=document,
        )
        self.publish(rules, gateway)

    def write(self, path: Path, pattern: str) -> Path:
        """Write a rules file of one pattern."""
        rule = {"id": "r", "clause": "c", "pattern": pattern, "example": pattern}
        path.write_text(json.dumps({"rules": [rule]}))
        return path

    def publish(self, *artefacts: Artefact) -> None:
        """Release these artefacts by two persons and security."""
        now = self.enclave.time
        release = Release(
            channel="gateway-1",
            version=1,
            previous="",
            artefacts=artefacts,
            not_before=now,
            expires=now + 10**6,
        )
        (self.documents / f"{release.sha256}.json").write_bytes(canonical(release))
        details = PublishRelease(
            channel="gateway-1", version=1, previous="", release_sha256=release.sha256
        )
        request = self.enclave.ask(
            "dev-one",
            "release.weaken",
            details=details,
            host="gateway-1",
            workload_sha256=release.sha256,
        )
        self.enclave.file(request)
        self.enclave.approve(request, "dev-two", "dev-three", "sec-one")

    def releases(self) -> Releases:
        """Open the releases as the gateway does."""
        assert self.settings.releases is not None
        return Releases(self.settings.releases, lambda: self.enclave.time)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with one release."""
    return Site(tmp_path)


def test_released_rules_load(site: Site) -> None:
    """What was released loads."""
    loaded = ReleasedLoader(RulesLoader(), site.releases())(site.rules)
    assert loaded.held.digest == sha256_hex(site.rules.read_bytes())


def test_unreleased_rules_do_not_load(site: Site, tmp_path: Path) -> None:
    """A file that nobody released does not load, whoever wrote it."""
    other = site.write(tmp_path / "other.yaml", "green elephant")
    with pytest.raises(BundleError, match="not released"):
        ReleasedLoader(RulesLoader(), site.releases())(other)


def test_a_file_changed_after_its_release_does_not_load(site: Site) -> None:
    """The digest is of what was loaded."""
    site.write(site.rules, "green elephant")
    with pytest.raises(BundleError, match="not released"):
        ReleasedLoader(RulesLoader(), site.releases())(site.rules)


def test_other_settings_do_not_start(site: Site) -> None:
    """The released settings are admitted, and no option beside them."""
    releases = site.releases()
    releases.admit_gateway(site.settings)
    with pytest.raises(TrustError, match="not in release"):
        releases.admit_gateway(msgspec.structs.replace(site.settings, embeddings="pass"))


def test_lost_state_is_refused(site: Site) -> None:
    """A gateway whose memory is gone does not start as if it had seen nothing."""
    site.memory.unlink()
    with pytest.raises(TrustError, match="lost"):
        site.releases()


def test_a_second_beginning_is_refused(site: Site) -> None:
    """The memory is not made anew over an old one."""
    site.releases().current()
    with pytest.raises(TrustError, match="already"):
        begin_memory(site.memory, origin="enclave.test/log", channel="gateway-1")


def test_a_removed_document_stops_loading(site: Site) -> None:
    """Without the document of a logged release nothing loads."""
    next(site.documents.iterdir()).unlink()
    with pytest.raises(BundleError, match="missing"):
        ReleasedLoader(RulesLoader(), site.releases())(site.rules)


def test_a_step_of_a_trial_that_nobody_released_is_not_followed(tmp_path: Path) -> None:
    """Signed by two persons but not in the log: refused; released: admitted; the next step anew."""
    enclave = Enclave(tmp_path / "log", policy=POLICY + GOVERNING + RELEASE_RULES)
    channel = ReleaseChannel(enclave, tmp_path / "r")
    plan = trial_plan()
    channel.publish(channel.next(settings_artefact(ArtefactKind.TRIAL, plan, "trial.json")))
    releases = Releases(channel.settings, lambda: channel.enclave.time)
    releases.admit_trial(plan)
    five = msgspec.structs.replace(plan, serial=2, step=TrialStep.FIVE)
    with pytest.raises(TrustError, match="trial"):
        releases.admit_trial(five)
    channel.publish(
        channel.next(settings_artefact(ArtefactKind.TRIAL, five, "trial.json")), "release.publish"
    )
    releases.admit_trial(five)
