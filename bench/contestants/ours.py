"""The gateway as it is served, with one regular expression or with a guard that lets all pass.

Run: `python -m bench.contestants.ours UPSTREAM none|rule FOLDER`; prints its port.
"""

import sys
import warnings
from pathlib import Path

from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.bundles.swap import LoadedBundle
from safehold.guard.gateway.policy import Canary, Limits, Settings, SurfacePolicy, Upstream
from safehold.guard.gateway.server import Parts, listen, run
from safehold.testing.guards import UnsafeOpenGuard, rule_guard

HOLD = 16


def no_loader(path: Path) -> LoadedBundle:
    """Load nothing: no bundle is swapped here.

    Raises:
        RuntimeError: Always.
    """
    raise RuntimeError(path)


def main(upstream: str, guard: str, folder: str) -> None:
    """Serve until SIGTERM."""
    warnings.simplefilter("ignore")  # the open guard's own
    Path(folder).mkdir(parents=True, exist_ok=True)
    open_guard = guard == "none"
    settings = Settings(
        port=0,
        upstream=Upstream(url=upstream),
        ledger=f"{folder}/ledger.db",
        journal=None if open_guard else f"{folder}/journal",
        default=SurfacePolicy(hold_tokens=0 if open_guard else HOLD),
        canary=Canary(enabled=False),
        limits=Limits(verdict_wait_s=600.0),  # what it does is measured, not when it says no
        log="none",
    )
    sock = listen(settings)
    print(sock.getsockname()[1], flush=True)
    held = Held(UnsafeOpenGuard() if open_guard else rule_guard())
    run(settings, Parts(loader=no_loader, held=held), sock)


if __name__ == "__main__":
    main(*sys.argv[1:])
