"""The demo's releases: what its gateway may load, granted in its log by people with real keys."""

from pathlib import Path
from typing import Any

from safehold.canonical import canonical, sha256_hex
from safehold.console.demo.stage import DemoStage
from safehold.guard.gateway.policy import Settings
from safehold.trust.grants.interface import GrantRequest, Resource
from safehold.trust.release.interface import Artefact, ArtefactKind, PublishRelease, Release
from safehold.trust.release.weaker import settings_document
from safehold.trust.released.interface import ReleaseSettings
from safehold.trust.released.memory import begin_memory

_DAY_S = 86_400
_REQUESTER = "Tomas Keller"


def released_bundle(name: str, digest: str, kind: ArtefactKind = ArtefactKind.BUNDLE) -> Artefact:
    """Return the artefact of a bundle of the gateway's folder."""
    return Artefact(path=f"bundles/{name}", kind=kind, sha256=digest)


def released_settings(settings: Settings) -> Artefact:
    """Return the artefact of the gateway's settings, as the gateway itself computes it."""
    document: Any = settings_document(settings)
    digest = sha256_hex(canonical(document))
    return Artefact(path="gateway", kind=ArtefactKind.GATEWAY, sha256=digest, document=document)


class DemoReleases:
    """One channel: its documents, and a memory for each who verifies it."""

    def __init__(self, stage: DemoStage, folder: Path, channel: str = "demo-gateway") -> None:
        """Make the folder."""
        self._stage, self._folder, self.channel = stage, folder, channel
        self._newest: Release | None = None
        (folder / "documents").mkdir(parents=True)
        keys = (stage.enclave.root / "log.json").read_bytes()
        (folder / "log.json").write_bytes(keys)

    def verifier(self, name: str) -> ReleaseSettings:
        """Return the settings of one more verifier, with a memory of its own."""
        memory = self._folder / f"{name}.memory"
        begin_memory(memory, origin=self._stage.enclave.founding.origin, channel=self.channel)
        return ReleaseSettings(
            log=str(self._stage.enclave.root),
            log_keys=str(self._folder / "log.json"),
            channel=self.channel,
            documents=str(self._folder / "documents"),
            memory=str(memory),
        )

    def ask(self, *artefacts: Artefact, purpose: str, ticket: str) -> GrantRequest:
        """Write the next release and ask for it; it takes effect when the quorum has approved."""
        enclave, now = self._stage.enclave, int(self._stage.clock())
        enclave.time = max(enclave.time, now)
        before = self._newest
        made = Release(
            channel=self.channel,
            version=1 if before is None else before.version + 1,
            previous="" if before is None else before.sha256,
            artefacts=artefacts,
            not_before=now - 1,
            expires=now + 90 * _DAY_S,
        )
        (self._folder / "documents" / f"{made.sha256}.json").write_bytes(canonical(made))
        details = PublishRelease(
            channel=made.channel,
            version=made.version,
            previous=made.previous,
            release_sha256=made.sha256,
        )
        # New bundles without a comparison on evaluation data: the highest quorum.
        asked = enclave.ask(
            _REQUESTER, "release.weaken", details=details, host=made.channel,
            workload_sha256=made.sha256, purpose=purpose, ticket=ticket,
            expires=enclave.time + 2 * _DAY_S,
            resource=Resource("release", made.channel, str(made.version), ("*",)),
        )  # fmt: skip
        enclave.file(asked)
        self._newest = made
        return asked
