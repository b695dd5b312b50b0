"""What readers of the pages have already: `docs_kit.py THING PATH`, called by the sessions.

bundle FOLDER KEY    a small signed bundle and the public key of who signed it
ledger FILE          a gateway's ledger: three exchanges of two callers, one blocked, one open
upstream FILE        a model that answers everything, until it is stopped; its address
"""

import signal
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from safehold.testing.bundles import write_tiny
from safehold.testing.monitoring import fill
from safehold.testing.upstream import MockUpstream, says


def bundle(folder: str, public: str) -> None:
    """Write the tiny bundle, signed."""
    key = Ed25519PrivateKey.generate()
    write_tiny(Path(folder), key)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path(public).write_bytes(pem)


def ledger(file: str) -> None:
    """Keep four exchanges."""
    asked = [("laptop", f"how do kettles whistle, part {n}", n == 2) for n in range(4)]
    fill(file, asked)


def upstream(file: str) -> None:
    """Serve a model until SIGTERM; its address is written to the file."""
    with MockUpstream(says("Kettles whistle when steam leaves.")) as served:
        Path(file).write_text(served.url)
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    {"bundle": bundle, "ledger": ledger, "upstream": upstream}[sys.argv[1]](*sys.argv[2:])
