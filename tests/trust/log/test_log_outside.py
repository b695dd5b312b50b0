"""An outside reader of our log. `make outside` runs it where Go is; `make test` has the vectors."""

import base64
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from safehold.trust.log import LogKeys, LogStore, SigningKey, create_log

pytestmark = pytest.mark.outside


def entry(number: int) -> bytes:
    """Return bytes that nobody would guess."""
    return hashlib.sha256(b"%d" % number).hexdigest().encode()


def test_go_reads_our_log(tmp_path: Path) -> None:
    """Go's own note and tlog packages open our checkpoint and prove entries from our tiles."""
    root = tmp_path / "log"
    key = SigningKey.generate("log.test/go")
    vkey = str(key.verifier)
    create_log(root, key, LogKeys("log.test/go", vkey, (vkey,)))
    store = LogStore(root, key)
    store.append([entry(number) for number in range(200)])
    old = store.publish()
    store.append([entry(1000 + number) for number in range(700)])
    head = store.publish()
    program = str(Path(__file__).parent / "interop" / "main.go")
    bundles = [f"{root}/tile/entries/{name}" for name in ("000", "001", "002", "003.p/132")]
    done = subprocess.run(
        ["go", "run", program, str(root), vkey, str(old.size), *bundles],
        check=False,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": "/usr/share/gocode",
            "GOFLAGS": "",
            "GOCACHE": str(tmp_path / "gocache"),
        },
    )
    printed = done.stdout.split()
    assert printed == ["OK", str(head.size), base64.b64encode(old.root).decode()], done.stderr
