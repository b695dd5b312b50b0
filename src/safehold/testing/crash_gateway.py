"""Gateway processes with a rule guard, to be killed: `python -m safehold.testing.crash_gateway`.

Arguments: the upstream's base URL and a folder for ledger and journal. Every line on stdin forks a
gateway, which prints its process id and port, and serves until it is killed.
"""

import os
import sys
from pathlib import Path

from safehold.guard.gateway.bundles.swap import LoadedBundle
from safehold.guard.gateway.policy import Canary, Settings, Upstream
from safehold.guard.gateway.server import Parts, listen, run
from safehold.testing.gateway import PATIENT
from safehold.testing.guards import held_rules


def no_loader(path: Path) -> LoadedBundle:
    """Stand where this process loads no bundle."""
    raise FileNotFoundError(path)


def serve(upstream: str, folder: str) -> None:
    """Serve until killed; the process id and port go to stdout."""
    settings = Settings(
        port=0,
        upstream=Upstream(url=upstream),
        limits=PATIENT,
        ledger=f"{folder}/ledger.db",
        journal=f"{folder}/journal",
        canary=Canary(enabled=False),
        log="none",
    )
    sock = listen(settings)
    sys.stdout.write(f"{os.getpid()} {sock.getsockname()[1]}\n")
    sys.stdout.flush()
    run(settings, Parts(loader=no_loader, held=held_rules()), sock)


def main() -> None:
    """Fork one gateway per line of stdin; each is killed from outside before the next."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            serve(sys.argv[1], sys.argv[2])
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
