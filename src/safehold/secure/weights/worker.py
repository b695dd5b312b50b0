"""One decrypting process: `python -I -m safehold.secure.weights.worker`, started by `load`."""

import sys

import msgspec

from safehold.errors import WeightsError
from safehold.secure.weights.load import JOB_SIZE_BYTES, Job, decrypt_chunks
from safehold.secure.weights.memory import Pages, protect_process
from safehold.secure.weights.opened import ShardReader

_MAX_JOB_BYTES = 2**20


def main() -> int:
    """Read one job from standard input, decrypt it, say so, and stay until the input ends."""
    protect_process()
    size = int.from_bytes(sys.stdin.buffer.read(JOB_SIZE_BYTES), "big")
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(min(size, _MAX_JOB_BYTES)), type=Job)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        reader = ShardReader(job.header, job.shard, job.key, job.sealed_handle)
        # The mapping ends with this process, which does nothing else.
        pages = Pages(job.memory_handle, job.shard.plain_bytes)
        decrypt_chunks(
            reader,
            pages.view,
            job.first,
            job.end,
            lambda count: say(f"bytes {count}"),
            pages.take,
        )
    except WeightsError as error:
        say(f"error {error}")
        return error.exit_status
    say("done")
    # What this process holds is locked by its mapping: the parent has its own before it lets go.
    sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
