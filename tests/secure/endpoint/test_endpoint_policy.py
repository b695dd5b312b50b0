"""What a policy decides, what it may not be, and what it would take from the host."""

# ruff: noqa: E501 - rows of a policy

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import TrustError
from safehold.secure.endpoint.changing import NoLoosening, install, weaker
from safehold.secure.endpoint.essentials import Essential, stopped
from safehold.secure.endpoint.interface import (
    Allowed,
    Ask,
    CodeKind,
    EndpointPolicyError,
    ExecRefused,
    ExecSubject,
    Target,
)
from safehold.secure.endpoint.policy import EndpointPolicy, decide, matches, parse_policy

ROOT = ExecSubject(0, "/usr/bin/bash")
TRUE = Target(CodeKind.ELF, "/usr/bin/true", "ab" * 32, owned=True)
DENY = '\n[[deny]]\nname = "no-true"\nkinds = ["elf"]\nreason = "r"\n'
DUTY = 'owner = "o"\nreason = "r"\nticket = "t"\n'


def test_what_no_row_allows_is_refused(policy: EndpointPolicy, today: dt.date) -> None:
    """The default is a refusal; the row's own target is allowed."""
    assert decide(policy, Ask(ROOT, TRUE), today) == Allowed("system")
    other = msgspec.structs.replace(TRUE, path="/opt/true")
    assert isinstance(decide(policy, Ask(ROOT, other), today), ExecRefused)


NEAR = [
    ("another kind", {"kind": CodeKind.MODULE}),
    ("inline code by an allowed interpreter", {"kind": CodeKind.INLINE}),
    ("others can write it", {"owned": False}),
    ("a neighbour's name", {"path": "/usrx/bin/true"}),
    ("the folder without its slash", {"path": "/usr"}),
    ("no path that can be vouched for", {"path": ""}),
]


@pytest.mark.parametrize(("why", "change"), NEAR, ids=[why for why, _ in NEAR])
def test_near_miss_of_a_path_row_is_refused(
    policy: EndpointPolicy, today: dt.date, why: str, change: dict[str, object]
) -> None:
    """One property away from the row, nothing runs."""
    del why
    target = msgspec.structs.replace(TRUE, **change)
    assert isinstance(decide(policy, Ask(ROOT, target), today), ExecRefused)


@pytest.mark.parametrize("first", [True, False])
def test_deny_row_wins_wherever_it_stands(base_text: str, today: dt.date, *, first: bool) -> None:
    """The order of rows decides nothing: a deny row wins, and names itself."""
    deny = DENY + 'path = ["/usr/bin/true"]\n'
    head, mark, tail = base_text.partition("\n[[allow]]")
    text = head + deny + mark + tail if first else base_text + deny
    assert decide(parse_policy(text), Ask(ROOT, TRUE), today) == ExecRefused("no-true", "r")


def test_deny_row_meets_what_others_can_write_too(base_text: str, today: dt.date) -> None:
    """A deny row needs no owner: it names what must not run, wherever it is."""
    policy = parse_policy(base_text + DENY + 'path = ["/tmp/**"]\n')
    target = Target(CodeKind.ELF, "/tmp/x")
    assert decide(policy, Ask(ROOT, target), today) == ExecRefused("no-true", "r")


def test_subject_rows_allow_an_interpreter_to_one_user_only(base_text: str, today: dt.date) -> None:
    """Inline code of one program and user is not that of another one."""
    row = f'\n[[allow]]\nname = "inline"\nkinds = ["inline"]\npath = ["/usr/bin/dash"]\nuids = [33]\nexes = ["/usr/sbin/cron"]\n{DUTY}'
    policy = parse_policy(base_text + row)
    target = Target(CodeKind.INLINE, "/usr/bin/dash", owned=True)
    for uid, exe, wanted in (
        (33, "/usr/sbin/cron", Allowed),
        (34, "/usr/sbin/cron", ExecRefused),
        (33, "/usr/sbin/cron2", ExecRefused),
    ):
        assert isinstance(decide(policy, Ask(ExecSubject(uid, exe), target), today), wanted)


def test_row_ends_after_its_last_day(base_text: str, today: dt.date) -> None:
    """On the day itself a row holds, on the next one it does not, and is named."""
    policy = parse_policy(base_text + f"expires = {today}\n")
    assert decide(policy, Ask(ROOT, TRUE), today) == Allowed("system")
    verdict = decide(policy, Ask(ROOT, TRUE), today + dt.timedelta(days=1))
    assert isinstance(verdict, ExecRefused)
    assert verdict.row == "system"


REFUSED = {
    "unknown key": 'colour = "red"\n',
    "two identities": f'sha256 = ["{"ab" * 32}"]\n',
    "name twice": f'\n[[allow]]\nname = "system"\nkinds = ["elf"]\npath = ["/opt/**"]\n{DUTY}',
    "no identity": f'\n[[allow]]\nname = "empty"\nkinds = ["elf"]\n{DUTY}',
    "no kinds": f'\n[[allow]]\nname = "empty"\nkinds = []\npath = ["/opt/**"]\n{DUTY}',
    "digest in capitals": f'\n[[allow]]\nname = "x"\nkinds = ["elf"]\nsha256 = ["{"AB" * 32}"]\n{DUTY}',
    "short digest": f'\n[[allow]]\nname = "x"\nkinds = ["elf"]\nsha256 = ["abab"]\n{DUTY}',
    "relative path": f'\n[[allow]]\nname = "x"\nkinds = ["elf"]\npath = ["usr/bin/x"]\n{DUTY}',
    "newline in a path": f'\n[[allow]]\nname = "x"\nkinds = ["elf"]\npath = ["/usr\\nx"]\n{DUTY}',
    "no owner": '\n[[allow]]\nname = "x"\nkinds = ["elf"]\npath = ["/opt/**"]\nreason = "r"\nticket = "t"\n',
    "unknown kind": f'\n[[allow]]\nname = "x"\nkinds = ["exe"]\npath = ["/opt/**"]\n{DUTY}',
}


@pytest.mark.parametrize("more", REFUSED.values(), ids=REFUSED)
def test_malformed_policy_is_refused(base_text: str, more: str) -> None:
    """What is not exactly a policy is an error in one line that names the file."""
    with pytest.raises(EndpointPolicyError, match=r"endpoint\.toml") as error:
        parse_policy(base_text + more)
    assert "\n" not in str(error.value)


@given(st.text(alphabet="ab/*.", max_size=8), st.text(alphabet="ab/.", max_size=8))
def test_star_never_crosses_a_folder(prefix: str, name: str) -> None:
    """What one star matches has no slash in it; two stars match anything."""
    clean = prefix.replace("*", "")
    assert matches(f"/{clean}/*", f"/{clean}/{name}") == ("/" not in name)
    assert matches(f"/{clean}/**", f"/{clean}/{name}")


def test_letters_of_a_path_are_no_pattern() -> None:
    """A dot or a bracket in a path means itself."""
    assert not matches("/usr/lib/a.so", "/usr/lib/abso")
    assert matches("/usr/lib/a[1].so", "/usr/lib/a[1].so")


NEEDED = [
    Essential("the guard", CodeKind.ELF, "/usr/bin/python3.11"),
    Essential("the shell", CodeKind.ELF, "/usr/bin/dash"),
    Essential("the boot", CodeKind.ELF, "/usr/lib/systemd/systemd"),
]


def owned(one: Essential) -> Target:
    """The target of an essential that root alone can change."""
    return Target(one.kind, one.path, "cd" * 32, owned=True)


@pytest.mark.parametrize("needed", NEEDED, ids=lambda one: one.part)
def test_policy_that_would_stop_the_host_is_refused_with_the_row_named(
    base_text: str, today: dt.date, needed: Essential
) -> None:
    """A deny row over the guard, the shell or the boot is named, with what it would stop."""
    policy = parse_policy(base_text + DENY + f'path = ["{needed.path}"]\n')
    (line,) = stopped(policy, iter(NEEDED), owned, today)
    assert "row no-true" in line
    assert needed.path in line
    assert needed.part in line


def test_policy_that_allows_what_the_host_needs_passes(
    policy: EndpointPolicy, today: dt.date
) -> None:
    """The benign twin: nothing is stopped."""
    assert stopped(policy, iter(NEEDED), owned, today) == []


LOOSER: dict[str, Callable[[str], str]] = {
    "audit": lambda text: text.replace('"enforce"', '"audit"'),
    "learn": lambda text: text.replace('"enforce"', '"learn"'),
    "a row more": lambda text: (
        text + f'\n[[allow]]\nname = "x"\nkinds = ["elf"]\npath = ["/opt/**"]\n{DUTY}'
    ),
    "a kind more": lambda text: text.replace('["elf",', '["module", "elf",'),
    "another path": lambda text: text.replace("/usr/**", "/**"),
    "a reader": lambda text: text.replace(
        'host = "gpu-1"', 'host = "gpu-1"\nreaders = ["/usr/bin/x"]'
    ),
    "another host": lambda text: text.replace("gpu-1", "gpu-2"),
}


@pytest.mark.parametrize("loosen", LOOSER.values(), ids=LOOSER)
def test_stepping_down_needs_a_grant(
    base_text: str, tmp_path: Path, loosen: Callable[[str], str]
) -> None:
    """A looser policy is not installed without a grant; the stricter direction needs none."""
    place = tmp_path / "installed.toml"
    install(base_text, place, NoLoosening())
    assert weaker(base_text, loosen(base_text))
    with pytest.raises(TrustError, match=r"endpoint\.loosen"):
        install(loosen(base_text), place, NoLoosening())
    assert place.read_text() == base_text


def test_stepping_up_needs_no_grant(base_text: str) -> None:
    """From audit to enforce, a deny row more, a row less: nothing of it is weaker."""
    assert weaker(base_text.replace('"enforce"', '"audit"'), base_text) == ()
    assert weaker(base_text, base_text + DENY + 'path = ["/opt/**"]\n') == ()
