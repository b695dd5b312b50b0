"""What each engine is declared to leave open, and why: a run that differs is a finding."""

_INTERPRETERS = frozenset(
    {
        "sh x.sh", "python x.py", "script on stdin", "script by FIFO", "python -c",
        "script without a suffix", "script named as an option's file",
        "loader starts an interpreter", "writer kept open", "sh -c",
        "script by /dev/stdin", "script by a link to a descriptor",
        "script by another descriptor", "script by another /proc", "script by BASH_ENV",
        "exported function",
    }
)  # fmt: skip
_MEMORY = frozenset(
    {
        "data mapped as code", "data mapped, then made code", "writable and executable memory",
        "io_uring open, mapped as code", "nameless memory mapped twice",
    }
)  # fmt: skip
_LIBRARIES = frozenset({"ld.so ./prog", "LD_PRELOAD", "library opened by an interpreter"})
_NEW_MOUNTS = frozenset(
    {"new tmpfs in new mount namespace", "new user and mount namespace", "loop-mounted image"}
)

LEAVES: dict[str, frozenset[str]] = {
    "guard-exec": _INTERPRETERS | _MEMORY | _LIBRARIES | {"memfd and fexecve"},
    "guard-mount": _NEW_MOUNTS
    | _MEMORY
    | {"overlay", "memfd and fexecve", "binfmt_misc in a user namespace"},
    "guard": _MEMORY | {"memfd and fexecve"},
    "noexec": (_INTERPRETERS | _NEW_MOUNTS | {"memfd and fexecve", "overlay"})
    | {"writable and executable memory", "nameless memory mapped twice"},
    "landlock": _INTERPRETERS | _MEMORY | _LIBRARIES | {"memfd and fexecve"},
    "confine": _INTERPRETERS | {"data mapped as code", "ld.so ./prog"},
    "guard+confine": frozenset({"data mapped as code"}),
    "all": frozenset(),
    # In the virtual machine: floors that see programs and memory, and no interpreter's input.
    "systemd": _INTERPRETERS - {"script by another /proc"},
    "apparmor": (_INTERPRETERS - {"script by another /proc"})
    # Memory without a file, and memfd, which AppArmor does not mediate when it is mapped.
    | {"writable and executable memory", "nameless memory mapped twice"},
    "bpf-lsm": _INTERPRETERS,
    "ima": _INTERPRETERS | {"writable and executable memory"},
    "guard+systemd": frozenset(),
    "guard+bpf-lsm": frozenset(),
    # It goes by mount, by file, and by a script's first line.
    "fapolicyd": _MEMORY
    | {
        "memfd and fexecve",
        "new tmpfs in new mount namespace",
        "new user and mount namespace",
        "binfmt_misc in a user namespace",
        "python -c",
        "sh -c",
        "script without a suffix",
        "script named as an option's file",
        "script by BASH_ENV",
        "exported function",
    },
}
RACES: dict[str, frozenset[str]] = {
    # What is mounted and executed with nothing in between may run before it is marked: the kernel
    # tells of a mount, and asks nobody. `confine` forbids mounting, so there is no race there.
    "guard": frozenset({"loop-mounted image"}),
}
# Before Linux 6.5 an overlay is such a mount too: nobody is asked at its layers.
MACHINE_RACES: dict[str, frozenset[str]] = {"guard": RACES["guard"] | {"overlay"}}
REASONS: dict[str, str] = {
    "data mapped as code": "a program that may read a file can map it as code; "
    "a noexec mount stops that, no rule on programs does",
}
