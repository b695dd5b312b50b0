"""A gateway with the stand-in rules in front of a mock upstream; prints its base URL.

Run by `scripts/outside`: `python bench/outside/serve.py FOLDER [RULES]`.
"""

import sys
import tempfile
from pathlib import Path

from safehold.guard.gateway.bundles.loading import RulesLoader
from safehold.guard.gateway.policy import Settings, Upstream
from safehold.guard.gateway.server import Parts, listen, run
from safehold.testing.upstream import MockUpstream, says

HERE = Path(__file__).resolve().parent


def main(folder: str, rules: str = "rules.yaml") -> None:
    """Serve until SIGTERM."""
    with (
        MockUpstream(says("Malt is what it is made from, and water.", size=6)) as upstream,
        tempfile.TemporaryDirectory(dir=folder) as place,
    ):
        settings = Settings(
            port=0,
            upstream=Upstream(url=upstream.url),
            bundle=str(HERE / rules),
            ledger=f"{place}/ledger.db",
            log="none",
        )
        sock = listen(settings)
        print(f"http://127.0.0.1:{sock.getsockname()[1]}/v1", flush=True)
        sys.stdout.close()
        run(settings, Parts(loader=RulesLoader()), sock)


if __name__ == "__main__":
    main(*sys.argv[1:])
