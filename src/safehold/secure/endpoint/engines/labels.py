"""Engines that go by a label on each file: IMA appraisal, and the BPF LSM program's map."""

import datetime as dt
import json
import re
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
from safehold.secure.endpoint.lsm.keys import rows_text
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


_LABELLED = (CodeKind.ELF, CodeKind.LIBRARY, CodeKind.MODULE, CodeKind.SCRIPT)


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def ima(policy: EndpointPolicy, items: Sequence[Item]) -> Files:
    """Return the kernel's policy, and the labels of what everybody may run.

    The labels are a dump that `setfattr --restore=labels` sets in one go, from `/`. The kernel
    compares each label with the content, so a file that has changed since is refused.
    A label is a hash: it says nothing of the form, so what may run in one form may in all.
    """
    rows = [
        f"# file: {_escaped(path.removeprefix('/'))}\nsecurity.ima=0x0404{digest}\n"
        for path, digest in sorted(_listed(policy, items, _LABELLED))
    ]
    return {"ima-policy": _IMA, "labels": "\n".join(rows)}


def _listed(
    policy: EndpointPolicy, items: Sequence[Item], kinds: Sequence[CodeKind]
) -> set[tuple[str, str]]:
    """Return path and digest of what everybody may run in one of these forms."""
    today = _today()
    return {
        (item.path, item.sha256)
        for kind in kinds
        for item in allowed_items(policy, items, kind, today)
    }


def _escaped(path: str) -> str:
    """Return a path as attr's dumps write it: a backslash and three octal digits."""
    signs = "".join(chr(one) for one in range(33)) + "\\=\x7f"
    return "".join(f"\\{ord(one):03o}" if one in signs else one for one in path)


def ima_model(files: Files) -> Model:
    """Return the decision: the digest is that of the label."""
    labels: set[tuple[str, str]] = set()
    path = ""
    for line in files["labels"].splitlines():
        if line.startswith("# file: "):
            name = line.removeprefix("# file: ")
            path = "/" + re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)
        elif line.startswith("security.ima=0x0404"):
            labels.add((path, line.removeprefix("security.ima=0x0404")))
    return lambda ask: (ask.target.path, ask.target.sha256) in labels


def bpf(policy: EndpointPolicy, items: Sequence[Item]) -> Files:
    """Return the rows of the program's map: paths, whose keys the loader takes at load time.

    Scripts are among them: the kernel asks for a script first, and then for its interpreter.
    """
    kinds = (CodeKind.ELF, CodeKind.LIBRARY, CodeKind.SCRIPT)
    return {"allow.jsonl": rows_text(_listed(policy, items, kinds))}


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
