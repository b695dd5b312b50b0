"""The host that the key service runs on, as far as software can tell."""

import os
from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.secure.weights.keyd.interface import KeydError

MACHINE_ID = Path("/etc/machine-id")
SSH_HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key.pub")


class HostIdentity(msgspec.Struct, frozen=True):
    """What makes this host this one: pinned in keyd's configuration by its digest."""

    nodename: str
    machine_id: str
    ssh_host_key: str

    @property
    def sha256(self) -> str:
        """The digest to pin. The facts go in by digest, so printing it tells nothing."""
        return sha256_hex(b"safehold-host/1\0" + canonical(self))


def measure_host(machine_id: Path = MACHINE_ID, ssh_host_key: Path = SSH_HOST_KEY) -> HostIdentity:
    """Return the host's facts; a host without an SSH host key has an empty one.

    Raises:
        KeydError: there is no machine id.
    """
    try:
        identity = machine_id.read_bytes().strip()
    except OSError as error:
        raise KeydError(f"can't read the machine id: {error.strerror}") from error
    if not identity:
        raise KeydError("expected a machine id, got an empty file")
    try:
        key = sha256_hex(ssh_host_key.read_bytes())
    except OSError:
        key = ""
    return HostIdentity(
        nodename=os.uname().nodename, machine_id=sha256_hex(identity), ssh_host_key=key
    )
