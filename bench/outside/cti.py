"""Our intelligence before other people's programs: a validator, a client, a server, MISP's reader.

Run by `scripts/outside cti`: `python bench/outside/cti.py FOLDER`. It starts our TAXII server and
medallion, each on a free loopback port, and stops both.
"""

import hashlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from safehold.detect.intel.describe import told_words
from safehold.detect.intel.interface import Feed, InboundOutcome
from safehold.detect.intel.misp import misp_event
from safehold.detect.intel.stix import bundle, objects
from safehold.detect.intel.store import IntelStore, envelope
from safehold.detect.intel.taxii_client import HttpsWire, pull, push
from safehold.detect.intel.taxii_server import TaxiiClient, TaxiiServer
from safehold.testing.intel import PASSWORD, SHARER, SOURCE, technique

HERE = Path(__file__).resolve().parent
COLLECTION = "91a7b528-80eb-42ed-a74d-c6fbd5a26116"


class Silent:
    """Takes leaves and keeps none."""

    def append(self, kind: str, facts: dict[str, str]) -> None:
        """Do nothing."""


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ours(folder: Path, found: list) -> None:
    """Let the validator, taxii2-client and pymisp judge what we write and serve."""
    (folder / "bundle.json").write_bytes(bundle(found, SHARER))
    (folder / "event.json").write_bytes(misp_event(found, SHARER))
    assert bundle(found, SHARER) == (folder / "bundle.json").read_bytes()
    for name in ("bundle.json", "event.json"):
        assert told_words((folder / name).read_bytes(), [SOURCE]) == 0
    store = IntelStore(str(folder / "ours.db"), leaves=Silent())
    for one in found:
        store.add(one, SHARER)
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    client = TaxiiClient(name="judge", sha256=digest)
    server = TaxiiServer(store, SHARER, [client], contact="x@example.org")
    port = free_port()
    config = uvicorn.Config(
        Starlette(routes=server.routes()), host="127.0.0.1", port=port, log_level="warning"
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    asked = {
        "url": f"http://127.0.0.1:{port}/taxii2/",
        "password": PASSWORD,
        "shared": server.shared,
        "inbox": server.inbox,
        "objects": len(objects(found, SHARER)),
        "attributes": len(json.loads(misp_event(found, SHARER))["Event"]["Attribute"]),
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    python = folder.parent / "cti" / "bin" / "python"
    subprocess.run([python, HERE / "cti_judge.py", folder], check=True, timeout=120)
    inbox = store.quarantined()
    assert len(inbox) == 1, inbox
    running.should_exit = True
    thread.join(20)


def theirs(folder: Path, found: list) -> None:
    """Send to medallion and take back what was sent, with our own client."""
    port = free_port()
    root = f"http://127.0.0.1:{port}/api1/"
    media = "application/stix+json;version=2.1"
    collection = {
        "id": COLLECTION,
        "title": "c",
        "description": "",
        "can_read": True,
        "can_write": True,
        "media_types": [media],
        "objects": [],
        "manifest": [],
    }
    information = {
        "title": "r",
        "description": "",
        "versions": ["application/taxii+json;version=2.1"],
        "max_content_length": 9_765_625,
    }
    data = {
        "/discovery": {"title": "T", "description": "d", "default": root, "api_roots": [root]},
        "api1": {"information": information, "status": [], "collections": [collection]},
    }
    (folder / "data.json").write_text(json.dumps(data))
    settings = {
        "backend": {
            "module": "medallion.backends.memory_backend",
            "module_class": "MemoryBackend",
            "filename": str(folder / "data.json"),
        },
        "users": {"admin": "pw"},
        "taxii": {"max_page_size": 5},
    }
    (folder / "medallion.json").write_text(json.dumps(settings))
    program = folder.parent / "cti" / "bin" / "medallion"
    process = subprocess.Popen(
        [program, "--host", "127.0.0.1", "--port", str(port), str(folder / "medallion.json")],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "medallion.log").open("wb"),
    )
    try:
        await_port(port)
        feed = Feed(name="theirs", api_root=root, collection=COLLECTION, user="admin")
        wire = HttpsWire(feed, "pw")
        status = push(feed, envelope(objects(found, SHARER)), wire)
        print(f"medallion took {status.success_count} of {len(objects(found, SHARER))}")
        assert status.success_count == len(objects(found, SHARER))
        store = IntelStore(str(folder / "theirs.db"), leaves=Silent())
        counts = pull(feed, store, wire)
        print(f"our client took back {counts}")
        assert counts == {InboundOutcome.TAKEN: status.success_count}, counts
        again = pull(feed, store, wire)
        assert set(again) <= {InboundOutcome.REPLAYED}, again
    finally:
        process.terminate()
        process.wait(20)


def await_port(port: int) -> None:
    """Wait until somebody listens.

    Raises:
        TimeoutError: nobody does within a minute.
    """
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("medallion does not listen")


def main(place: str) -> None:
    """Judge everything."""
    found = [
        technique(family=f"lighthouse-{number}", updated=1_795_600_000 + number)
        for number in range(3)
    ]
    found.append(technique("a short one", family="short-one"))
    with tempfile.TemporaryDirectory(dir=place) as folder:
        ours(Path(folder), found)
        theirs(Path(folder), found)
    print("cti: all of them agree")


if __name__ == "__main__":
    main(*sys.argv[1:])
