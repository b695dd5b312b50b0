"""The demo's safeguards report: the stock case over what the demo itself measured."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from safehold.console.demo.stage import DemoStage
from safehold.detect.redteam.report import summarise
from safehold.detect.redteam.run import read_record
from safehold.govern.controls.engine import read_again
from safehold.govern.controls.facts.trust_log import read_log
from safehold.govern.controls.interface import ControlRun
from safehold.govern.controls.library import stock_catalogue
from safehold.govern.report.adapters import figures_of
from safehold.govern.report.build import build_report
from safehold.govern.report.case import read_case
from safehold.govern.report.gather import doubts_of, of_controls, of_log
from safehold.govern.report.interface import Audience, CaseEvidence, CaseSources

_DAY_S = 86_400
_HOLDS_DAYS = 90


def build(stage: DemoStage, out: Path, *, run: Path, record: Path, bundle: str) -> Path:
    """Gather the run of controls, the log, the red team's run and the coverage; return the report.

    Many claims lack their evidence in a demo, and the report says so.
    """
    now = int(stage.clock())
    controls = msgspec.json.decode(run.read_bytes(), type=ControlRun)
    log = read_log(stage.enclave.root, stage.enclave.root / "log.json")
    found = [
        *of_controls(read_again(controls, stock_catalogue(), now)),
        *of_log(log, now),
        *_measured(stage, record, bundle, now),
    ]
    sources = CaseSources(
        at=now,
        bundle=bundle,
        evidence={one.id: one for one in found},
        doubts=doubts_of(log, None),
    )
    made = build_report(read_case("asl3"), sources, Audience.INTERNAL)
    out.write_bytes(msgspec.json.encode(made))
    return out


def _measured(stage: DemoStage, record: Path, bundle: str, now: int) -> Iterator[CaseEvidence]:
    _, results = read_record(record)
    told = {"redteam": msgspec.json.encode(summarise(results))}
    coverage = stage.sources.index.coverage()
    if coverage is not None:
        told["coverage"] = msgspec.json.encode(coverage.found)
    for kind, data in told.items():
        yield CaseEvidence(
            id=kind,
            kind=kind,
            made=now,
            holds_s=_HOLDS_DAYS * _DAY_S,
            bundle=bundle if kind == "redteam" else "",
            fields=figures_of(kind, data, Audience.INTERNAL),
        )
