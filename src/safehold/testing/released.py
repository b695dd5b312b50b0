"""A channel with releases beside a test's enclave."""

from pathlib import Path
from typing import Any

from safehold.canonical import canonical, sha256_hex
from safehold.testing.trust import Enclave
from safehold.trust.grants.interface import Granted
from safehold.trust.release.interface import (
    Artefact,
    ArtefactKind,
    Behaviour,
    PublishRelease,
    Release,
)
from safehold.trust.release.weaker import settings_document
from safehold.trust.released.interface import ReleaseSettings
from safehold.trust.released.memory import begin_memory

RELEASE_RULES = """
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
"""


def settings_artefact(kind: ArtefactKind, settings: object, path: str = "") -> Artefact:
    """Return the artefact of settings, as a verifier computes it."""
    document: Any = settings_document(settings)
    digest = sha256_hex(canonical(document))
    return Artefact(path=path or kind.value, kind=kind, sha256=digest, document=document)


class ReleaseChannel:
    """The releases of one channel: documents, memory, and three who approve."""

    def __init__(self, enclave: Enclave, folder: Path, channel: str = "gateway-1") -> None:
        self.enclave = enclave
        self.name = channel
        self.folder = folder
        self.releases: list[Release] = []
        (folder / "documents").mkdir(parents=True)
        keys = folder / "log.json"
        keys.write_bytes((enclave.root / "log.json").read_bytes())
        begin_memory(folder / "memory.json", origin="enclave.test/log", channel=channel)
        self.settings = ReleaseSettings(
            log=str(enclave.root),
            log_keys=str(keys),
            channel=channel,
            documents=str(folder / "documents"),
            memory=str(folder / "memory.json"),
        )

    def next(self, *artefacts: Artefact, behaviour: tuple[Behaviour, ...] = ()) -> Release:
        """Return the next release of these artefacts."""
        return Release(
            channel=self.name,
            version=len(self.releases) + 1,
            previous=self.releases[-1].sha256 if self.releases else "",
            artefacts=artefacts,
            not_before=self.enclave.time,
            expires=self.enclave.time + 10**6,
            behaviour=behaviour,
        )

    def publish(self, release: Release, operation: str = "release.weaken") -> None:
        """Write the document, ask, and have the quorum approve: it takes effect."""
        document = Path(self.settings.documents) / f"{release.sha256}.json"
        document.write_bytes(canonical(release))
        details = PublishRelease(
            channel=release.channel,
            version=release.version,
            previous=release.previous,
            release_sha256=release.sha256,
        )
        request = self.enclave.ask(
            "dev-one",
            operation,
            details=details,
            host=release.channel,
            workload_sha256=release.sha256,
        )
        self.enclave.file(request)
        for name in ("dev-two", "dev-three", "sec-one"):
            if isinstance(self.enclave.approve(request, name), Granted):
                break
        self.releases.append(release)
