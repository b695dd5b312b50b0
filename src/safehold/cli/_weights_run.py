"""Running a command on loaded weights, and comparing loaded weights with their digests."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from safehold.errors import UsageError

if TYPE_CHECKING:
    from safehold.secure.weights.loader import GrantedModel

_BLOCK = 4 * 2**20


def check_loaded(model: "GrantedModel") -> None:
    """Refuse plaintext that is not what the header says was published.

    Raises:
        SealTamperError: a digest differs.
    """
    from safehold.secure.weights.digests import new_digest
    from safehold.secure.weights.interface import SealTamperError

    for name in model.names:
        digest = new_digest(model.header.digest)
        view = model.view(name)
        for start in range(0, len(view), _BLOCK):
            digest.update(view[start : start + _BLOCK])
        if digest.hexdigest() != model.header.shard(name).plain_digest:
            raise SealTamperError(f"{name}: the plaintext is not the one that was published")


def check_command(names: Sequence[str], command: Sequence[str]) -> None:
    """Refuse a command that could not run, before a use of the grant is spent on it.

    Raises:
        UsageError: it names no shard of these, or its program is not there.
    """
    if not any(f"{{{name}}}" in word for name in names for word in command):
        raise UsageError(f"expected a shard in the command, such as {{{names[0]}}}")
    if shutil.which(command[0]) is None:
        raise UsageError(f"can't run {command[0][:60]!r}: no such program")


def run_command(model: "GrantedModel", command: Sequence[str]) -> int:
    """Run a command that inherits the memory of every shard; return its exit status.

    When the grant ends the command and all its children are killed at once.

    Raises:
        UsageError: the command can't be started, or names no shard.
        LeaseError: the grant ended while it ran.
    """
    from safehold.secure.weights.interface import LeaseError

    handles = {name: model.handle(name) for name in model.names}
    words = [_filled(word, handles) for word in command]
    if words == list(command):
        raise UsageError(f"expected a shard in the command, such as {{{model.names[0]}}}")
    try:
        child = subprocess.Popen(words, pass_fds=tuple(handles.values()), start_new_session=True)
    except OSError as error:
        raise UsageError(f"can't run {command[0][:60]!r}: {error.strerror}") from error

    def kill(_: str) -> None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    model.on_end(kill)
    try:
        status = child.wait()
    except KeyboardInterrupt:
        kill("")
        status = child.wait()
    if model.ended.is_set():
        raise LeaseError(model.reason)
    return status if status >= 0 else 128 - status


def _filled(word: str, handles: dict[str, int]) -> str:
    for name, handle in handles.items():
        word = word.replace(f"{{{name}}}", f"/proc/self/fd/{handle}")
    return word
