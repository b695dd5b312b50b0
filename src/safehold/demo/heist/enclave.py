"""The miniature enclave: gateway and egress box, serving host, key service, bastion.

Everything is made for the drill and removed after it; the host's own network is not touched.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.netns import Pair, enter, pair

HOSTS = {"serving": "10.231.8", "keys": "10.231.9", "bastion": "10.231.10"}
_MODULE = "safehold.demo.heist.hosts"
_READY_S = 20.0


class Enclave(msgspec.Struct, frozen=True):
    """The namespaces: `both.inside` is the taken-over gateway, `both.outside` the egress box."""

    name: str
    both: Pair
    folder: Path

    def space(self, host: str) -> str:
        """Return the namespace of a host."""
        return f"{self.name}-{host}"

    def address(self, host: str) -> str:
        """Return a host's address, as the gateway reaches it."""
        return f"{HOSTS[host]}.2"

    def thief(self, *words: str) -> bool:
        """Let the thief run our small program in the gateway; return whether it got its `ok`."""
        command = [sys.executable, "-m", _MODULE, *words]
        done = subprocess.run(
            enter(self.both.inside, command), check=False, timeout=60, capture_output=True
        )
        return done.returncode == 0

    @contextlib.contextmanager
    def listener(self, host: str, port: int, real: str = "-") -> Iterator[Path]:
        """Run a listener on a host; yield the file of its notes."""
        notes = self.folder / f"{host}-{port}.jsonl"
        notes.unlink(missing_ok=True)
        command = [sys.executable, "-m", _MODULE, "listen", str(port), str(notes), real]
        child = subprocess.Popen(enter(self.space(host), command))
        try:
            end = time.monotonic() + _READY_S
            while not notes.exists():
                if time.monotonic() > end or child.poll() is not None:
                    raise KernelError(f"the listener on {host} did not start")
                time.sleep(0.02)
            yield notes
        finally:
            child.kill()
            child.wait()


@contextlib.contextmanager
def enclave(name: str, folder: Path) -> Iterator[Enclave]:
    """Make the namespaces and remove them, whatever happened.

    Raises:
        KernelError: Not root, or the kernel lacks namespaces.
    """
    with contextlib.ExitStack() as stack:
        both = stack.enter_context(pair(name))
        made = Enclave(name, both, folder)
        for number, (host, net) in enumerate(HOSTS.items()):
            space = made.space(host)
            _ip("netns", "add", space)
            stack.callback(_ip, "netns", "del", space)
            inner, outer = f"h{number}", "eth0"
            _ip("-n", both.inside, "link", "add", inner, "type", "veth", "peer", "name", outer,
                "netns", space)  # fmt: skip
            for where, device, last in ((both.inside, inner, 1), (space, outer, 2)):
                _ip("-n", where, "addr", "add", f"{net}.{last}/30", "dev", device)
                _ip("-n", where, "link", "set", device, "up")
            _ip("-n", space, "link", "set", "lo", "up")
        yield made


def notes_of(path: Path) -> list[dict[str, str]]:
    """Return the visits that a listener noted."""
    time.sleep(0.3)
    return [json.loads(line) for line in path.read_text().splitlines()]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, timeout=20)
    if done.returncode:
        raise KernelError(f"ip {' '.join(words[:4])}: {done.stderr.decode()[:120].strip()}")
