"""Engines that go by a label on each file: IMA appraisal, and the BPF LSM program's map."""

import datetime as dt
import json
import shlex
from collections.abc import Sequence

from safehold.secure.endpoint.engines.interface import Engine, Files, Model
from safehold.secure.endpoint.engines.meaning import (
    BY_SUBJECT,
    NOT_LISTED,
    NOT_OWNED,
    allowed_items,
    kinds_unseen,
    one_form,
)
from safehold.secure.endpoint.interface import Ask, CodeKind
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.policy import EndpointPolicy

_IMA = """\
# /etc/ima/ima-policy: what has no true security.ima is refused (boot with ima_appraise=enforce)
dont_appraise fsmagic=0x9fa0
dont_appraise fsmagic=0x62656572
dont_appraise fsmagic=0x64626720
dont_appraise fsmagic=0x1021994 func=FILE_CHECK
dont_appraise fsmagic=0x858458f6
dont_appraise fsmagic=0x73636673
dont_appraise fsmagic=0x1cd1
dont_appraise fsmagic=0x27e0eb
dont_appraise fsmagic=0x63677270
appraise func=BPRM_CHECK
appraise func=MMAP_CHECK mask=MAY_EXEC
appraise func=MODULE_CHECK
"""


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def ima(policy: EndpointPolicy, items: Sequence[Item]) -> Files:
    """Return the kernel's policy, and a script that labels what everybody may run.

    A label is a hash: it says nothing of the form, so what may run in one form may in all.
    """
    today = _today()
    found = {
        item.path: item.sha256
        for kind in (CodeKind.ELF, CodeKind.LIBRARY, CodeKind.MODULE)
        for item in allowed_items(policy, items, kind, today)
    }
    lines = [
        "#!/bin/sh",
        "# label by hash; a file that has changed since is not labelled",
        "set -u",
    ]
    for path, digest in sorted(found.items()):
        name = shlex.quote(path)
        lines.append(
            f"echo {digest}'  '{name} | sha256sum -c --status && evmctl ima_hash -a sha256 {name}"
        )
    return {"ima-policy": _IMA, "label.sh": "\n".join(lines) + "\n"}


def ima_model(files: Files) -> Model:
    """Return the decision: the digest is that of the label."""
    labels: set[tuple[str, str]] = set()
    for line in files["label.sh"].splitlines():
        if line.startswith("echo "):
            words = shlex.split(line)
            digest, _, path = words[1].partition("  ")
            labels.add((path, digest))
    return lambda ask: (ask.target.path, ask.target.sha256) in labels


def bpf(policy: EndpointPolicy, items: Sequence[Item]) -> Files:
    """Return the rows of the program's map: paths, whose keys the loader takes at load time."""
    today = _today()
    found = {
        item.path: item.sha256
        for kind in (CodeKind.ELF, CodeKind.LIBRARY)
        for item in allowed_items(policy, items, kind, today)
    }
    rows = [json.dumps({"path": path, "sha256": digest}) for path, digest in sorted(found.items())]
    return {"allow.jsonl": "".join(row + "\n" for row in rows)}


def bpf_model(files: Files) -> Model:
    """Return the decision by the map; the loader hashes each file before it puts its key in."""
    rows = [json.loads(line) for line in files["allow.jsonl"].splitlines()]
    known = {(row["path"], row["sha256"]) for row in rows}

    def decide(ask: Ask) -> bool:
        return (ask.target.path, ask.target.sha256) in known

    return decide


IMA = Engine(
    "ima",
    ima,
    ima_model,
    (
        kinds_unseen(
            CodeKind.SCRIPT, CodeKind.INLINE, reason="an interpreter's input is data to it"
        ),
        BY_SUBJECT,
        NOT_LISTED,
        NOT_OWNED,
        one_form(CodeKind.ELF, CodeKind.LIBRARY, CodeKind.MODULE),
    ),
)
BPF = Engine(
    "bpf-lsm",
    bpf,
    bpf_model,
    (
        kinds_unseen(
            CodeKind.SCRIPT,
            CodeKind.INLINE,
            CodeKind.MODULE,
            reason="its hooks are exec, mmap and mprotect",
        ),
        BY_SUBJECT,
        NOT_LISTED,
        NOT_OWNED,
        one_form(CodeKind.ELF, CodeKind.LIBRARY),
    ),
)
