"""Labelled and unlabelled files as traffic that thresholds are set on."""

from pathlib import Path

from safehold.improve.evaluation.interface import DataFile, Label
from safehold.improve.evaluation.items import data_files, read_items
from safehold.improve.evaluation.parts import Part
from safehold.improve.training.traffic import Traffic, TrafficText


def traffic_of(
    paths: tuple[Path, ...],
    constitution: str,
    part: str | None = None,
    limit: int | None = None,
) -> Traffic:
    """Return the benign items of files and folders, general ones and near ones apart.

    Raises:
        DataError: A file can't be read or holds something else.
    """
    chosen = None if part is None else Part(part)
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
    return Traffic(tuple(general), tuple(near), {file.name: file.sha256 for file in files})
