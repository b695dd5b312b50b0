"""fapolicyd 1.1: ordered rules and a trust file (fapolicyd.rules(5), fapolicyd.trust(5)).

Two corrections to its sample rules, both measured on Debian: its pattern `ld_so` compares with a
path that Debian resolves elsewhere, so the loader is denied by name; and shell scripts are a
language like the others. `watch_fs` must name overlay, or an overlay is not watched.
"""

import datetime as dt
import re
from collections.abc import Iterator, Sequence

from safehold.secure.endpoint.engines.interface import CompileError, Engine, Files, Model
from safehold.secure.endpoint.engines.meaning import (
    BY_UNIT,
    NOT_LISTED,
    NOT_OWNED,
    allowed_items,
    can_be,
    has_subject,
    kinds_unseen,
    subjects,
    target_of,
    with_signers,
)
from safehold.secure.endpoint.interface import Ask, CodeKind
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.policy import (
    AllowRow,
    DenyRow,
    EndpointPolicy,
    matches,
    speaks_of_target,
)

LOADERS = (
    "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "/usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
)
_LANGUAGES = (
    "application/x-bytecode.python,application/javascript,text/javascript,text/x-awk,text/x-gawk,"
    "text/x-lua,text/x-perl,text/x-php,text/x-python,text/x-ruby,text/x-tcl,text/x-shellscript"
)
_LIBRARIES = "application/x-sharedlib,application/x-executable,application/x-pie-executable"
_PERM = {CodeKind.ELF: "execute", CodeKind.SCRIPT: "any", CodeKind.LIBRARY: "open"}
_FTYPE = {
    CodeKind.ELF: "",
    CodeKind.SCRIPT: " ftype=%languages",
    CodeKind.LIBRARY: " ftype=%libraries",
}
_SEEN = (CodeKind.ELF, CodeKind.LIBRARY, CodeKind.SCRIPT)
_BLANK = re.compile(r"\s")
CONF = """\
permissive = 0
nice_val = 14
q_size = 4096
uid = fapolicyd
gid = fapolicyd
do_stat_report = 0
detailed_report = 0
db_max_size = 100
subj_cache_size = 1549
obj_cache_size = 16381
watch_fs = ext2,ext3,ext4,tmpfs,xfs,btrfs,overlay,squashfs,erofs,iso9660,vfat,ramfs,devtmpfs
trust = file
integrity = sha256
syslog_format = rule,dec,perm,auid,pid,exe,:,path,ftype,trust
rpm_sha256_only = 0
allow_filesystem_mark = 0
"""


def compile_files(policy: EndpointPolicy, items: Sequence[Item]) -> Files:
    """Return `compiled.rules`, `fapolicyd.trust` and `fapolicyd.conf`.

    The trust file lists what everybody may run: only code, since it enforces nothing while it
    reads a long one.

    Raises:
        CompileError: a row names units or patterns of programs, or a path holds a blank.
    """
    today = _today()
    rules = [f"%languages={_LANGUAGES}", f"%libraries={_LIBRARIES}"]
    rules += [f"deny_audit perm=open exe={loader} : all" for loader in LOADERS]
    rules += [line for row in policy.deny for line in _rules("deny_audit", row, items)]
    rules += [
        line
        for row in policy.allow
        if has_subject(row) and (row.expires is None or today <= row.expires)
        for line in _rules("allow", row, items)
    ]
    listed = {kind: allowed_items(policy, items, kind, today) for kind in _SEEN}
    trusted = {item.path: item for found in listed.values() for item in found}
    # What some subjects may run is trusted too, and denied to everybody else below.
    trusted |= {
        item.path: item
        for row in policy.allow
        if has_subject(row)
        for kind in set(_SEEN) & set(row.kinds)
        for item in items
        if can_be(item, kind) and speaks_of_target(row, with_signers(policy, target_of(item, kind)))
    }
    paths = {kind: {item.path for item in found} for kind, found in listed.items()}
    everywhere = {
        item.path
        for item in trusted.values()
        if all(item.path in paths[kind] for kind in _SEEN if can_be(item, kind))
    }
    for kind in _SEEN:
        # What may run in one form but not in all of them is named; the rest is by trust.
        for item in listed[kind]:
            if item.path not in everywhere:
                rules.append(
                    f"allow perm={_PERM[kind]} all : path={item.path}{_FTYPE[kind]} trust=1"
                )
    for path in sorted(set(trusted) - everywhere):
        rules.append(f"deny_audit perm=execute all : path={path}")
        rules.append(f"deny_audit perm=open all : path={path} ftype=%libraries")
        rules.append(f"deny_audit perm=open all : path={path} ftype=%languages")
    rules += [
        "allow perm=execute all : trust=1",
        "deny_audit perm=execute all : all",
        "allow perm=open all : ftype=%libraries trust=1",
        "deny_audit perm=open all : ftype=%libraries",
        "allow perm=any all : ftype=%languages trust=1",
        "deny_audit perm=any all : ftype=%languages",
        "allow perm=open all : all",
    ]
    rows = [f"{item.path} {item.size} {item.sha256}" for _, item in sorted(trusted.items())]
    for item in trusted.values():
        if _BLANK.search(item.path):
            raise CompileError(f"{item.path}: fapolicyd's trust file takes no blanks")
    return {
        "compiled.rules": "\n".join(rules) + "\n",
        "fapolicyd.trust": "\n".join(rows) + "\n",
        "fapolicyd.conf": CONF,
    }


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _rules(decision: str, row: AllowRow | DenyRow, items: Sequence[Item]) -> Iterator[str]:
    """Yield the rules of one row, once for each subject, kind and object."""
    try:
        pairs = subjects(row)
    except CompileError:
        if isinstance(row, DenyRow):
            raise
        return  # an allow row that it can't say is left out: the engine is stricter
    for uid, exe in pairs:
        who = " ".join([f"uid={uid}"] * (uid is not None) + [f"exe={exe}"] * bool(exe)) or "all"
        for kind in row.kinds:
            if kind in _PERM:
                for what in _objects(row, items):
                    trust = " trust=1" if decision == "allow" else ""
                    yield f"{decision} perm={_PERM[kind]} {who} : {what}{_FTYPE[kind]}{trust}"


def _objects(row: AllowRow | DenyRow, items: Sequence[Item]) -> list[str]:
    if row.sha256:
        return [f"sha256hash={digest}" for digest in row.sha256]
    found = [
        f"dir={glob[:-2]}" for glob in row.path if glob.endswith("/**") and "*" not in glob[:-3]
    ]
    rest = [glob for glob in row.path if f"dir={glob[:-2]}" not in found]
    found += [f"path={glob}" for glob in rest if "*" not in glob]
    rest = [glob for glob in rest if "*" in glob]
    found += [
        f"path={item.path}"
        for item in items
        if any(matches(glob, item.path) for glob in rest)
        or (item.package and item.package in row.package)
        or row.signer
    ]
    return found


def model(files: Files) -> Model:
    """Return the first-match decision over the rules, as fapolicyd.rules(5) describes it."""
    sets: dict[str, frozenset[str]] = {}
    rules: list[tuple[bool, str, dict[str, str], dict[str, str]]] = []
    for line in files["compiled.rules"].splitlines():
        if line.startswith("%"):
            name, _, values = line[1:].partition("=")
            sets[name] = frozenset(values.split(","))
            continue
        left, _, right = line.partition(" : ")
        decision, perm, *who = left.split(" ")
        rules.append(
            (decision == "allow", perm.partition("=")[2], _pairs(who), _pairs(right.split(" ")))
        )
    trust = {
        (row.split(" ")[0], row.split(" ")[2])
        for row in files["fapolicyd.trust"].splitlines()
        if row
    }

    def decide(ask: Ask) -> bool:
        kind = ask.target.kind
        perm = "open" if kind is CodeKind.LIBRARY else "execute"
        family = {CodeKind.LIBRARY: "%libraries", CodeKind.SCRIPT: "%languages"}.get(
            kind, "%libraries"
        )
        for allow, wanted, who, what in rules:
            if wanted not in {perm, "any"}:
                continue
            if _subject_is(ask, who) and _object_is(ask, what, family, trust):
                return allow
        return False

    return decide


def _pairs(words: list[str]) -> dict[str, str]:
    return {} if words == ["all"] else dict(word.split("=", 1) for word in words)


def _subject_is(ask: Ask, who: dict[str, str]) -> bool:
    given = {"uid": str(ask.subject.uid), "exe": ask.subject.exe}
    return all(given.get(name) == value for name, value in who.items())


def _object_is(ask: Ask, what: dict[str, str], family: str, trust: set[tuple[str, str]]) -> bool:
    target = ask.target
    for name, value in what.items():
        match name:
            case "path":
                holds = target.path == value
            case "dir":
                holds = target.path.startswith(value)
            case "sha256hash":
                holds = target.sha256 == value
            case "ftype":
                holds = value == family
            case "trust":
                holds = ((target.path, target.sha256) in trust) == (value == "1")
            case _:
                holds = False
        if not holds:
            return False
    return True


ENGINE = Engine(
    "fapolicyd",
    compile_files,
    model,
    (
        kinds_unseen(
            CodeKind.INLINE, CodeKind.MODULE, reason="it sees files that are opened, and no .ko"
        ),
        BY_UNIT,
        NOT_LISTED,
        NOT_OWNED,
    ),
)
"""A file that everybody may run is known by path and digest both."""
