"""Labelled and unlabelled files, and a gateway's ledger, as traffic that thresholds are set on."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from safehold.exchange import Channel

if TYPE_CHECKING:
    from safehold.improve.training.traffic import BenignTraffic

_PROBE = "canary"
_SAID = frozenset({Channel.TEXT, Channel.REASONING})


def traffic_of(
    paths: tuple[Path, ...],
    constitution: str,
    part: str | None = None,
    limit: int | None = None,
) -> "BenignTraffic":
    """Return the benign items of files and folders, general ones and near ones apart.

    Raises:
        DataError: A file can't be read or holds something else.
    """
    from safehold.improve.evaluation.interface import DataFile, Label
    from safehold.improve.evaluation.items import data_files, read_items
    from safehold.improve.evaluation.parts import DataPart
    from safehold.improve.training.traffic import BenignTraffic, TrafficText

    chosen = None if part is None else DataPart(part)
    files: list[DataFile] = [
        read_items(file, constitution, limit, chosen, unlabelled=Label.BENIGN)
        for path in paths
        for file in data_files(path)[0]
    ]
    general: list[TrafficText] = []
    near: list[TrafficText] = []
    for file in files:
        for item in file.items:
            if item.label is not Label.BENIGN:
                continue
            kept = near if item.adjacent else general
            if item.prompt == item.before:
                kept.append(TrafficText(item.prompt, item.reply))
            else:
                kept.append(TrafficText(item.prompt, ""))
                kept.append(TrafficText(item.before, item.reply, asks=False))
    return BenignTraffic(tuple(general), tuple(near), {file.name: file.sha256 for file in files})


def traffic_in_ledger(url: str, limit: int | None = None) -> "BenignTraffic":
    """Return what a gateway's clients asked and were answered, the last `limit` exchanges.

    The gateway's own probes and what never reached the guard are left out. What was blocked is
    traffic too: thresholds that looked away from it would drift down at each calibration.

    Raises:
        ConfigError: The URL can't be used.
        LedgerError: There is no ledger, or it can't be read.
    """
    from safehold.guard.ledger.interface import Action
    from safehold.guard.ledger.joined import joined, watermark
    from safehold.guard.ledger.reader import LedgerReader
    from safehold.improve.training.traffic import BenignTraffic, TrafficText

    found: list[TrafficText] = []
    digest = hashlib.sha256()
    with LedgerReader.open(url).snapshot() as connection:
        for one in joined(connection, after=0, through=watermark(connection)):
            prompt = one.prompt
            if prompt is None or prompt.exchange is None or prompt.action is Action.REFUSE:
                continue
            if prompt.use_case == _PROBE:
                continue
            lanes = [lane.text for lane in one.final.delivered if lane.lane.channel in _SAID]
            found.append(TrafficText(prompt.exchange, "\n".join(lanes)))
    kept = tuple(found if limit is None else found[-limit:])
    for text in kept:
        digest.update(hashlib.sha256(repr(text).encode("utf-8", "surrogatepass")).digest())
    return BenignTraffic(kept, (), {f"ledger: {len(kept)} exchanges": digest.hexdigest()})


def together(first: "BenignTraffic", second: "BenignTraffic") -> "BenignTraffic":
    """Return the traffic of two sources as one."""
    from safehold.improve.training.traffic import BenignTraffic

    return BenignTraffic(
        first.general + second.general,
        first.near + second.near,
        {**first.sources, **second.sources},
    )
