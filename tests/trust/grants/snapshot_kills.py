"""Kills whoever replays a log at drawn moments; prints what each time was kept.

A process of its own, so that it may fork. `python snapshot_kills.py LOG KEYS ROUNDS` prints JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from safehold.trust.grants import snapshot
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.snapshot import Snapshots
from safehold.trust.log.key_files import read_private_key
from safehold.trust.log.store import LogStore

snapshot.ON_THE_WAY = snapshot.MIN_NEW_LEAVES = 3


def main() -> None:
    """Replay and kill, as many times as were asked; every second time from nothing."""
    log, keys, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    memory, draw = keys / "state.snapshot", random.Random(7)
    emitter = read_private_key(keys / "emitter.key")
    store = LogStore(log, read_private_key(keys / "log.key"))

    def replayed(kept: Path | None) -> object:
        state = Desk(store, emitter, lambda: 0, memory=kept).state
        cases = {digest: state.cases[digest] for digest in state.cases}
        decided = {digest: state.decide(digest, state.last_time) for digest in cases}
        return state.members(), cases, decided, state.exemptions()

    began = time.perf_counter()
    whole = replayed(None)
    took = time.perf_counter() - began
    found = []
    for number in range(rounds):
        if number % 2 == 0:
            memory.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            replayed(memory)
            os._exit(0)
        time.sleep(draw.uniform(0, took))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        copy = memory.with_name("copy")
        copy.unlink(missing_ok=True)
        if memory.exists():
            shutil.copyfile(memory, copy)
        kept = Snapshots(memory, emitter).load(store)
        found.append((0 if kept is None else kept[1].size, replayed(copy) == whole))
    sys.stdout.write(json.dumps({"leaves": store.size, "found": found}))


if __name__ == "__main__":
    main()
