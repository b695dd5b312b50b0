"""A Hugging Face model as upstream, in a child process that also says what the model thinks.

`safehold serve --upstream hf:PATH` (a folder of safetensors, or a GGUF file): the gateway's probe
hears every token that the child writes. The child serves Chat Completions only.
"""

import contextlib
import http.client
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from safehold.errors import BundleError, ConfigError, UpstreamError
from safehold.guard.gateway.upstreams.embedded import GivenModel, LocalModel, LocalServer
from safehold.guard.gateway.upstreams.hf_wire import PROBE, ROWS, ActivationsRequest, Probes, rows
from safehold.guard.scorers.interface import ActivationScorer
from safehold.guard.scorers.probe import LinearProbe
from safehold.guard.served.interface import Reading, Said

PREFIX = "hf:"
_TIMEOUT_S = 120.0


class HfServed(msgspec.Struct, frozen=True):
    """The model behind a child's socket, as a probe's loader asks it."""

    url: str
    key: str
    digest: str
    dtype: str
    probes: str

    def attach(self, probe: ActivationScorer) -> Mapping[str, str]:
        """Give the model a probe; return the request headers that ask for its logits.

        Raises:
            BundleError: The probe is of a kind that the model's process can't run.
        """
        if not isinstance(probe, LinearProbe):
            raise BundleError(f"probe {probe.name}: the model's process runs linear ones only")
        return {PROBE: Probes(Path(self.probes)).put(probe)}

    def read(self, said: Sequence[Said], reply: str, layers: Sequence[int]) -> Reading:
        """Return the activations of a reply to what was said; the whole reply is one piece.

        Raises:
            UpstreamError: The child can't be reached or refuses.
        """
        asked = ActivationsRequest(tuple(said), reply, tuple(layers))
        parts = urlsplit(self.url)
        client = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
        try:
            client.request(
                "POST",
                f"{parts.path}/activations",
                msgspec.json.encode(asked),
                {"authorization": f"Bearer {self.key}", "content-type": "application/json"},
            )
            answer = client.getresponse()
            content = answer.read()
            count = int(answer.headers.get(ROWS, "0"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UpstreamError("the model's process can't be asked for activations") from error
        finally:
            client.close()
        if answer.status != http.HTTPStatus.OK or not count or len(content) % count:
            raise UpstreamError("the model's process gave no activations")
        return Reading((reply,), rows(content, len(content) // count // 4))


class HfServer(LocalServer):
    """Keeps the child of a Hugging Face model running; use as a context manager."""

    child_module = "safehold.guard.gateway.upstreams.hf_child"
    start_s = 600.0

    def __init__(self, path: Path, *, dtype: str = "bfloat16", threads: int = 1) -> None:
        """Take the model's folder or GGUF file, and how it computes.

        Raises:
            ConfigError: There is nothing at the path.
        """
        if not path.exists():
            raise ConfigError(f"{PREFIX}{path}: there is no such model")
        super().__init__(threads=threads, model=GivenModel(str(path), (), path.stem))
        self._dtype = dtype
        self._probes = ""
        self._open = contextlib.ExitStack()

    def __enter__(self) -> LocalModel:
        """Start the child and wait until its model is loaded.

        Raises:
            UpstreamError: It did not start; the message says why.
        """
        with contextlib.ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="safehold-probes-")
            self._probes = stack.enter_context(folder)
            local = super().__enter__()
            self._open = stack.pop_all()
        return local

    def __exit__(self, *error: object) -> None:
        """Stop the child and forget the probes."""
        super().__exit__(*error)
        self._open.close()

    def _settings(self) -> dict[str, object]:
        return {
            "model": self._model.path,
            "port": self._port,
            "key": self._key,
            "threads": self._threads,
            "dtype": self._dtype,
            "probes": self._probes,
        }

    def served(self, local: LocalModel) -> HfServed:
        """Return the running model as a probe's loader asks it."""
        digest, dtype = str(self.started["digest"]), str(self.started["dtype"])
        return HfServed(local.url, local.key, digest, dtype, self._probes)
