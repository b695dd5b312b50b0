"""`safehold drill judges`: the detections' own test, and its leaf."""

import json
import time
from pathlib import Path

from click.testing import CliRunner

from safehold.cli.drill import drill
from safehold.govern.controls.exports.monitoring import monitoring
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.sources import ExportSources
from safehold.govern.controls.facts.trust_log import read_log
from safehold.testing.trust import Enclave


def test_drill_of_the_judges_names_every_detection_in_the_log(tmp_path: Path) -> None:
    """Before the drill each detection lacks a test; after its leaf none does."""
    enclave = Enclave(tmp_path / "log", now=int(time.time()))
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name, key in (("log.key", enclave.log_key), ("emitter.key", enclave.emitter)):
        (keys / name).touch(mode=0o600)
        (keys / name).write_text(key.text() + "\n")
    (tmp_path / "timeline.jsonl").write_text(
        json.dumps({"time": time.time(), "passed": {}, "remaining": {}, "residual": {},
                    "undeclared": 0, "line": 1}) + "\n"
    )  # fmt: skip
    site = Site(
        egress=str(tmp_path), export=ExportSources(endpoint_socket=str(tmp_path / "none.sock"))
    )

    def untested() -> tuple[str, ...]:
        log = read_log(enclave.root, enclave.root / "log.json")
        return monitoring(site, log, int(time.time())).untested

    assert len(untested()) >= 30
    words = ["judges", "--log", str(enclave.root), "--keys", str(keys), "--json"]
    done = CliRunner().invoke(drill, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["deaf"] == []
    assert untested() == ()
