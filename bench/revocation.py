"""How long a loader that uses the weights keeps them after somebody revoked its grant.

    python bench/revocation.py [--loads 30]

Wall time from the call that logs the revocation to the moment when the plaintext is wiped, with the
key service in the same process. The key service looks once a second, so half a second is what a
machine without other work gives.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from safehold.stats import upper_bound
from safehold.testing.keyd import Vaulted
from safehold.trust.people.statement import Act

WAIT_S = 60
BAR_S = 5.0


def main() -> None:
    """Load and revoke, again and again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=30)
    loads = parser.parse_args().loads
    took: list[float] = []
    with tempfile.TemporaryDirectory(prefix="safehold-bench-") as folder:
        vaulted = Vaulted(Path(folder))
        try:
            for number in range(loads):
                # Not always at the same moment of the second.
                request = vaulted.granted(purpose=f"Load {number}")
                with vaulted.load(request) as model:
                    time.sleep(number % 10 / 10)
                    note = vaulted.enclave.note(request)
                    proof = vaulted.enclave.keys["sec-two"].sign(Act.REVOKE, note)
                    began = time.perf_counter()
                    vaulted.enclave.desk.revoke(note, proof)
                    if not model.wiped.wait(WAIT_S):
                        raise SystemExit(f"load {number}: not wiped within {WAIT_S} s")
                    took.append(time.perf_counter() - began)
        finally:
            vaulted.stop()
    late = sum(one > BAR_S for one in took)
    print(
        f"revocation to wiped plaintext, n = {loads}: median {statistics.median(took):.2f} s, "
        f"most {max(took):.2f} s; later than {BAR_S:g} s: {late} "
        f"(95% bound {upper_bound(late, loads):.1%})"
    )


if __name__ == "__main__":
    main()
