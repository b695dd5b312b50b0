"""One decrypting process: `python -I -m safehold.secure.weights.worker`, started by `load`."""

import mmap
import sys

import msgspec

from safehold.errors import WeightsError
from safehold.secure.weights.load import Job, decrypt_chunks
from safehold.secure.weights.memory import protect_process
from safehold.secure.weights.opened import ShardReader

_MAX_JOB_BYTES = 2**20


def main() -> int:
    """Read one job from standard input, decrypt it, and say so on standard output."""
    protect_process()
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(_MAX_JOB_BYTES), type=Job)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        reader = ShardReader(job.header, job.shard, job.key, job.sealed_handle)
        # The mapping ends with this process, which does nothing else.
        view = memoryview(mmap.mmap(job.memory_handle, job.shard.plain_bytes))
        decrypt_chunks(reader, view, job.first, job.end, lambda count: say(f"bytes {count}"))
    except WeightsError as error:
        say(f"error {error}")
        return error.exit_status
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
