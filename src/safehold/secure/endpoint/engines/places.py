"""Floors that go by place: systemd's drop-in, Landlock's folders, an AppArmor profile."""

from collections.abc import Sequence

from safehold.secure.endpoint.engines.interface import CompileError, Engine, Files, Model
from safehold.secure.endpoint.engines.meaning import (
    BY_CONTENT,
    BY_DENY,
    BY_SUBJECT,
    NOT_OWNED,
    below,
    has_subject,
    kinds_unseen,
    one_form,
    places,
    tree,
)
from safehold.secure.endpoint.interface import Ask, CodeKind
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.policy import EndpointPolicy, PolicyRow, matches

_DROP_IN = """\
# /etc/systemd/system/SERVICE.service.d/50-safehold.conf
[Service]
NoExecPaths=/
ExecPaths={paths}
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
NoNewPrivileges=yes
SystemCallArchitectures=native
SystemCallFilter=~@mount memfd_create io_uring_setup userfaultfd bpf
CapabilityBoundingSet=~CAP_SYS_ADMIN CAP_BPF CAP_SYS_MODULE CAP_SYS_PTRACE
"""
_PROFILE = """\
# /etc/apparmor.d/safehold: attach by name (AppArmorProfile=safehold)
abi <abi/3.0>,
profile safehold flags=(attach_disconnected) {{
  capability,
  network,
  signal,
  unix,
  deny ptrace,
  deny mount,
  /** rwkl,
{rules}
}}
"""
_UNSEEN = kinds_unseen(
    CodeKind.SCRIPT, CodeKind.INLINE, CodeKind.MODULE, reason="an interpreter's input is data to it"
)


def _folders(policy: EndpointPolicy) -> list[str]:
    """Return the folders from which everybody may run programs.

    Raises:
        CompileError: a pattern is no folder, or none is left.
    """
    found = sorted({tree(glob) for glob in places(policy, CodeKind.ELF)})
    if not found:
        raise CompileError("expected at least one allow row for elf by path and for everybody")
    return found


def drop_in(policy: EndpointPolicy, items: Sequence[Item]) -> Files:
    """Return the systemd drop-in: six lines for one service, no daemon.

    Raises:
        CompileError: a path row is no folder.
    """
    del items
    return {"50-safehold.conf": _DROP_IN.format(paths=" ".join(_folders(policy)))}


def drop_in_model(files: Files) -> Model:
    """Return the decision by `ExecPaths`: outside of them a mount is noexec, also for libraries."""
    text = files["50-safehold.conf"]
    (line,) = [row for row in text.splitlines() if row.startswith("ExecPaths=")]
    folders = line.partition("=")[2].split(" ")
    return lambda ask: any(below(folder, ask.target.path) for folder in folders)


def landlock(policy: EndpointPolicy, items: Sequence[Item]) -> Files:
    """Return the folders for `safehold endpoint run --executable`.

    Raises:
        CompileError: a path row is no folder.
    """
    del items
    return {"executable": "\n".join(_folders(policy)) + "\n"}


def landlock_model(files: Files) -> Model:
    """Return the decision: only execve is asked about."""
    folders = files["executable"].splitlines()
    return lambda ask: any(below(folder, ask.target.path) for folder in folders)


def profile(policy: EndpointPolicy, items: Sequence[Item]) -> Files:
    """Return an AppArmor profile; its deny rules win as ours do.

    A `userns` rule is not written: Debian 12's parser refuses it.
    """
    del items
    rules: list[str] = []
    for allow in policy.allow:
        if not has_subject(allow):
            rules += [f"  {glob} {_letters(allow)}," for glob in allow.path if _letters(allow)]
    for deny in policy.deny:
        if not has_subject(deny):
            rules += [
                f"  deny {glob} {_letters(deny, deny=True)},"
                for glob in deny.path
                if _letters(deny)
            ]
    for rule in rules:
        if any(one in rule for one in '"?[]{}^\\'):
            raise CompileError(f"{rule.strip()}: expected a path without AppArmor's own signs")
    return {"safehold": _PROFILE.format(rules="\n".join(rules))}


def _letters(row: PolicyRow, *, deny: bool = False) -> str:
    execute = ("x" if deny else "ix") if CodeKind.ELF in row.kinds else ""
    return ("m" if CodeKind.LIBRARY in row.kinds else "") + execute


def profile_model(files: Files) -> Model:
    """Return the decision: `x` for execve, `m` for mapping as code; a deny rule wins."""
    allow: list[tuple[str, str]] = []
    deny: list[tuple[str, str]] = []
    for line in files["safehold"].splitlines():
        words = line.strip().rstrip(",").split(" ")
        if words[0] == "deny" and words[1].startswith("/"):
            deny.append((words[1], words[2]))
        elif words[0].startswith("/") and len(words) > 1:
            allow.append((words[0], words[1]))

    def decide(ask: Ask) -> bool:
        letter = "m" if ask.target.kind is CodeKind.LIBRARY else "x"

        def meant(rules: list[tuple[str, str]]) -> bool:
            return any(letter in rule and matches(glob, ask.target.path) for glob, rule in rules)

        return meant(allow) and not meant(deny)

    return decide


SYSTEMD = Engine(
    "systemd",
    drop_in,
    drop_in_model,
    (
        _UNSEEN,
        BY_SUBJECT,
        BY_CONTENT,
        BY_DENY,
        NOT_OWNED,
        one_form(CodeKind.ELF, CodeKind.LIBRARY),
    ),
)
LANDLOCK = Engine(
    "landlock",
    landlock,
    landlock_model,
    (
        kinds_unseen(
            CodeKind.LIBRARY,
            CodeKind.SCRIPT,
            CodeKind.INLINE,
            CodeKind.MODULE,
            reason="only execve is asked about",
        ),
        BY_SUBJECT,
        BY_CONTENT,
        BY_DENY,
        NOT_OWNED,
    ),
)
APPARMOR = Engine("apparmor", profile, profile_model, (_UNSEEN, BY_SUBJECT, BY_CONTENT, NOT_OWNED))
