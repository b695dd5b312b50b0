"""A whole enclave with a sealed model and a running key service, for tests."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safehold.secure.weights.header import content_id, read_header
from safehold.secure.weights.interface import Header
from safehold.secure.weights.keyd.host import HostIdentity
from safehold.secure.weights.keyd.peer import workload_sha256
from safehold.secure.weights.keyd.release import CONTENT_FACT, Releaser
from safehold.secure.weights.keyd.service import KeyService
from safehold.secure.weights.loader import GrantedModel, LoadOrder, load_model
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.testing.weights import MemoryProvider, Publisher
from safehold.trust.grants.details import Facts
from safehold.trust.grants.interface import GrantRequest, Resource
from safehold.trust.log.keys import read_keys
from safehold.trust.log.note import Algorithm, SigningKey
from safehold.trust.log.witness import Witness, create_witness

REWRAP = """
[[rule]]
operation = "weights.rewrap"
thresholds = [{ team = "t-everybody", count = 2 }]
max_duration_s = 28800
keys = ["passkey", "ssh-sk", "ssh"]
"""


class Vaulted:
    """The parts of one test: people and log, publisher, sealed model, running service."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.enclave = Enclave(root / "log", policy=POLICY + REWRAP + GOVERNING)
        self.publisher = Publisher(root)
        self.header: Header = self.publisher.seal()
        self.second = MemoryProvider("second")
        (root / "code").mkdir()
        (root / "code" / "loader.py").write_text("print('load')\n")
        self.host = HostIdentity(nodename="gpu-1", machine_id="m", ssh_host_key="k")
        self.pinned_host = self.host.sha256
        self.pinned = read_keys(root / "log" / "log.json")
        create_witness(root / "memory")
        self.memory_key = SigningKey.generate("memory", Algorithm.COSIGNATURE)
        self.socket = root / "keyd.sock"
        self.releaser = self.new_releaser()
        self.service = KeyService(self.socket, self.releaser, [root / "code"], 0o600)
        self.thread = threading.Thread(target=self.service.serve, daemon=True)
        self.thread.start()

    def new_releaser(
        self,
        loaders: tuple[int, ...] = (0,),
        elapsed: Callable[[], float] = lambda: 0.0,
        endpoint: Callable[[], None] = lambda: None,
        standing: Callable[[str], None] = lambda _: None,
    ) -> Releaser:
        """Return another releaser on the same log, as after a restart."""
        return Releaser(
            desk=self.enclave.open_desk(),
            pinned=self.pinned,
            memory=Witness(self.root / "memory", self.memory_key),
            providers=[self.publisher.provider, self.second],
            verifier=self.publisher.signer.verifier,
            host=("gpu-1", self.pinned_host),
            measure=lambda: self.host,
            loaders=loaders,
            elapsed=elapsed,
            endpoint=endpoint,
            standing=standing,
        )

    @property
    def workload(self) -> str:
        """The digest of this very test process, as the service measures it."""
        return workload_sha256(Path("/proc/self/exe"), [self.root / "code"])

    def text(self) -> str:
        """Return the sealed model's header file."""
        return read_header(self.root / "sealed").decode()

    def ask(self, operation: str = "weights.load", **changes: Any) -> GrantRequest:
        """Return a request for the sealed model on this host, with the given fields changed."""
        fields: dict[str, Any] = {
            "workload_sha256": self.workload,
            "resource": Resource(kind="model", name="brewer", version="1", parts=("*",)),
            "details": Facts(values={CONTENT_FACT: content_id(self.header)}),
        }
        return self.enclave.ask("dev-one", operation, **(fields | changes))

    def granted(self, operation: str = "weights.load", **changes: Any) -> GrantRequest:
        """Return a request that the quorum has approved."""
        request = self.ask(operation, **changes)
        self.enclave.file(request)
        self.enclave.approve(request, "dev-two", "dev-three", "sec-one")
        return request

    def order(self, request: GrantRequest, parts: tuple[str, ...] = ("*",)) -> LoadOrder:
        """Return the order to load under a request."""
        return LoadOrder(
            folder=self.root / "sealed",
            grant=request.sha256,
            keyd=self.socket,
            verifier=self.publisher.signer.verifier,
            log_keys=self.pinned,
            parts=parts,
            unsafe_swap=True,
        )

    def load(self, request: GrantRequest, parts: tuple[str, ...] = ("*",)) -> GrantedModel:
        """Load under a request."""
        return load_model(self.order(request, parts))

    def stop(self) -> None:
        """Stop the service."""
        self.service.stop()
        self.thread.join(5)
