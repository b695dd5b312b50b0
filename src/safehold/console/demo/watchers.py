"""What the demo's monitor and its standards owner do, through the code that serves people."""

import json

from safehold.console.demo.stage import DemoStage
from safehold.detect.monitoring.account_book import AccountBook
from safehold.detect.monitoring.accounts import Caps
from safehold.detect.monitoring.campaign_book import look
from safehold.detect.monitoring.cases import sources
from safehold.detect.monitoring.cases.book import CaseBook
from safehold.detect.monitoring.scan.interface import ScannerSpec
from safehold.detect.monitoring.scan.scanners import load_scanner
from safehold.detect.monitoring.scan.work import ScanJob
from safehold.govern.standards.library import load_standards
from safehold.trust.demands.document import document_digest
from safehold.trust.grants.details import StandingAct
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.keys import read_keys

_SCANNER = "decoded"
_PURPOSES = {
    "standards.plan": "Plan how the first threshold is to be ruled out",
    "standards.activate": "Put the deployment standard in force as a precaution",
}


def watch(stage: DemoStage, now: float) -> None:
    """Scan every exchange once, and open cases from labels, campaigns, the ledger and the log."""
    store, reader = stage.sources.monitor, stage.sources.reader
    if store is None:
        return
    job = ScanJob(
        ledger=stage.ledger,
        monitor=str(stage.folder / "monitor.db"),
        spec=ScannerSpec(_SCANNER),
        load=load_scanner,
    )
    worker = job.worker("demo")
    worker.queue.plan(reader, name=_SCANNER)
    while worker.step():
        pass
    book = CaseBook(store)
    book.open(sources.of_labels(AccountBook(store, caps=Caps()).labels(now=now)))
    book.open(sources.of_campaigns(look(store, reader).found, now=now))
    alarms = sources.of_ledger(store, reader)
    book.open(alarms.cases, alarms.cursor)
    log = stage.enclave.root
    leaves = sources.of_log(store, DirectorySource(log), read_keys(log / "log.json"), now=now)
    book.open(leaves.cases, leaves.cursor)


def decide_standing(stage: DemoStage) -> None:
    """Plan an evaluation, and put a standard in force as a precaution: acts in the log."""
    plan = {
        "id": "uplift-2026",
        "threshold": "weapons-basic-uplift",
        "suites": ["homebrewing-stand-in"],
        "below": 0.2,
        "least_items": 200,
    }
    _act(stage, "standards.plan", plan, "Ines Pereira")
    precaution = {
        "standard": "asl-3-deployment",
        "precautionary": True,
        "provisional": True,
        "rationale": "The threshold is not ruled out yet: the evaluation is only planned.",
    }
    _act(stage, "standards.activate", precaution, "Mara Okoye", "Wei Zhang")


def _act(stage: DemoStage, operation: str, record: dict[str, object], *names: str) -> None:
    enclave = stage.enclave
    enclave.time = max(enclave.time, int(stage.clock()))
    details = StandingAct(document_digest(load_standards("rsp")), json.dumps(record))
    asked = enclave.ask("Tomas Keller", operation, details=details, purpose=_PURPOSES[operation])
    enclave.file(asked)
    if names:
        enclave.approve(asked, *names)
