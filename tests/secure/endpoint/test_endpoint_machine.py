"""The virtual machine's bench, without the machine: what it refuses, and what it calls short."""

import datetime as dt

import pytest
from bench.vm.guest import every_minute
from bench.vm.page import KNOWN, WANTED, shown, table

from safehold.errors import EndpointError
from safehold.secure.endpoint.attack.attacks import ATTACKS, COUNTED
from safehold.secure.endpoint.attack.declared import LEAVES
from safehold.secure.endpoint.attack.machine import THROWAWAY, in_unit, require_throwaway
from safehold.secure.endpoint.engines.labels import IMA
from safehold.secure.endpoint.interface import Ask, CodeKind, ExecSubject, Target
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.policy import EndpointPolicy

ABSENT = "binfmt_misc in a user namespace"


def column(engine: str, stops: int) -> dict[str, object]:
    """A column that stops so many of the counted attacks, those first that it may not leave."""
    left = LEAVES.get(engine, frozenset())
    names = [one.name for one in COUNTED if one.name != ABSENT]
    names.sort(key=lambda name: name in left)
    stopped = {*names[:stops], ABSENT}
    stopped |= {one.name for one in ATTACKS if one.extra and engine != "none"}
    rows = [{"attack": one.name, "ran": one.name not in stopped} for one in ATTACKS]
    return {"engine": engine, "rows": rows, "after_kill": None}


def answers(**changed: object) -> dict[str, object]:
    """What a machine answers when all is well, with something changed."""
    steps = {"install": 0, "remove": 0}
    host = {"state": "running", "failed": "", "kernel": "6.1"}
    learned = {"seen": 900, "rows": 12, "host": host, "apt": steps, "notes": ["Started."]}
    enforced = {
        "host": host,
        "apt": steps,
        "refused": [],
        "unknown_ran": [],
        "notes": ["Started."],
        "pulse": {"asked": 5000, "mode": "enforce"},
    }
    full = {name: KNOWN - sum(one.name in LEAVES[name] for one in COUNTED) for name in WANTED}
    columns = {"none": column("none", 0), **{name: column(name, n) for name, n in full.items()}}
    return {
        "last": changed.get("last", {}),
        "columns": {**columns, **dict(changed.get("columns", {}))},  # type: ignore[call-overload]
        "boot": {"learn": learned, "enforce": {**enforced, **dict(changed.get("enforce", {}))}},  # type: ignore[call-overload]
    }


def test_answers_as_designed_fall_short_of_nothing() -> None:
    """34 attacks run without an engine; each engine stops what the design measured."""
    found = shown(answers())
    assert found.short == []
    assert found.stopped["none"] == (0, KNOWN)
    assert found.stopped["systemd"] == (29, KNOWN)
    assert "n/a" in table(answers())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"columns": {"ima": column("ima", 25)}}, "ima stops 25 of 34"),
        ({"columns": {"systemd": column("systemd", 28)}}, "systemd leaves, undeclared: "),
        ({"columns": {"none": column("none", 3)}}, "only 31 attacks run"),
        ({"columns": {"bpf-lsm": {"broken": "no kernel"}}}, "bpf-lsm: no kernel"),
        (
            {"columns": {"bpf-lsm": {**column("bpf-lsm", 30), "after_kill": True}}},
            "after its daemon was killed",
        ),
        ({"enforce": {"refused": ["elf /usr/bin/apt"]}}, "1 things were refused in error"),
        ({"enforce": {"unknown_ran": ["/srv/unknown"]}}, "an unknown program ran"),
        ({"enforce": {"apt": {"install": 100}}}, "a step of apt failed"),
        ({"enforce": {"pulse": {"silent": "nobody answers"}}}, "did not enforce"),
        ({"enforce": {"notes": ["worker ended with status 9"]}}, "worker was replaced (1 notes)"),
        ({"enforce": {"notes": ["no notes of the worker: x"]}}, "worker was replaced (1 notes)"),
        ({"enforce": {"host": {"state": "degraded", "failed": "x"}}}, "degraded, was running"),
        ({"last": {"broken": "no answer"}}, "the machine: no answer"),
        ({"enforce": {"broken": "it did not end"}}, "it did not end"),
    ],
)
def test_what_falls_short_is_named(changed: dict[str, object], said: str) -> None:
    """Each row of what the machine must show can fail."""
    assert any(said in line for line in shown(answers(**changed)).short)


def test_what_comes_by_the_clock_comes_at_once() -> None:
    """A crontab's jobs are run at every minute; its comments and variables are no jobs."""
    text = (
        "# 17 * * * * root comment\nSHELL=/bin/sh\n\n17 *\t* * *\troot\tcd / && run-parts /x\n"
        "*/5 * * 1-5 7 nobody true  %\n"
    )
    assert every_minute(text) == (
        "* * * * * root\tcd / && run-parts /x\n* * * * * nobody true  %\n"
    )


def test_machine_that_somebody_needs_is_refused() -> None:
    """Engines that hold until the next boot are started on a marked machine only."""
    assert not THROWAWAY.exists()
    with pytest.raises(EndpointError, match="thrown away"):
        require_throwaway()


def test_attack_in_a_unit_has_the_whole_drop_in(policy: EndpointPolicy) -> None:
    """Every line that is compiled becomes a property, and the text is not expanded by systemd."""
    words = in_unit(policy, "attack-1", "echo $HOME", 5)
    properties = {word.removeprefix("--property=") for word in words if "--property=" in word}
    assert {"NoExecPaths=/", "ExecPaths=/usr", "MemoryDenyWriteExecute=yes"} <= properties
    assert words[-1] == "echo $$HOME"


@pytest.mark.parametrize("name", ["plain", "with space", "back\\slash", "a=b", "new\nline", "é"])
def test_label_names_any_path(policy: EndpointPolicy, today: dt.date, name: str) -> None:
    """A dump for setfattr can't be made to label another file by a file's name."""
    del today
    item = Item(f"/usr/bin/{name}", 1, "a" * 64, CodeKind.ELF, "", "")
    decides = IMA.model(IMA.compile(policy, [item]))
    subject = ExecSubject(0, "/usr/bin/sh")
    assert decides(Ask(subject, Target(CodeKind.ELF, item.path, "a" * 64)))
    assert not decides(Ask(subject, Target(CodeKind.ELF, item.path, "b" * 64)))
    assert not decides(Ask(subject, Target(CodeKind.ELF, "/usr/bin/other", "a" * 64)))
