"""One policy, several engines: each is told what the policy says, but for its blind spots."""

# ruff: noqa: E501 - rows of a policy; a seeded choice of test cases

import datetime as dt
import random

import pytest

from safehold.secure.endpoint.engines.equivalence import compare
from safehold.secure.endpoint.engines.interface import CompileError, Engine
from safehold.secure.endpoint.engines.table import ENGINES
from safehold.secure.endpoint.interface import Ask, CodeKind, ExecSubject, Target
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.policy import EndpointPolicy, parse_policy

PAIRS = 10_000
DUTY = 'owner = "o"\nreason = "r"\nticket = "t"\n'


def sha(number: int) -> str:
    """A digest."""
    return f"{number:064x}"


ITEMS = [
    Item(f"/usr/{folder}/f{number}", 10, sha(number), kind, f"pkg{number % 7}", "1")
    for number, (folder, kind) in enumerate(
        (folder, kind)
        for folder in ("bin", "lib", "lib/deep", "share")
        for kind in (CodeKind.ELF, CodeKind.LIBRARY, CodeKind.SCRIPT, CodeKind.MODULE)
        for _ in range(4)
    )
] + [
    Item(f"/opt/app/g{number}", 10, sha(1000 + number), CodeKind.ELF, "", "") for number in range(8)
]
HEAD = 'version = 1\nmode = "enforce"\nhost = "h"\n[[inventory]]\nfile = "i"\nsigner = "platform"\nkey = "k"\n'
FORMS = '["elf", "library", "script", "module"]'
POLICIES = {
    "places": f'[[allow]]\nname = "a"\nkinds = {FORMS}\npath = ["/usr/**"]\n{DUTY}',
    "places and deny": f'[[allow]]\nname = "a"\nkinds = {FORMS}\npath = ["/usr/**", "/opt/**"]\n{DUTY}'
    f'[[deny]]\nname = "d"\nkinds = {FORMS}\npath = ["/usr/lib/**"]\nreason = "r"\n',
    "packages, digests, users": f'[[allow]]\nname = "a"\nkinds = {FORMS}\npackage = ["pkg1", "pkg2"]\n{DUTY}'
    f'[[allow]]\nname = "b"\nkinds = ["elf"]\nsha256 = ["{sha(1001)}"]\n{DUTY}'
    f'[[allow]]\nname = "c"\nkinds = ["elf", "library"]\npath = ["/usr/bin/**"]\nuids = [33]\n{DUTY}'
    f'[[allow]]\nname = "p"\nkinds = ["elf"]\npath = ["/usr/share/**"]\n{DUTY}'
    f'[[deny]]\nname = "d"\nkinds = ["elf"]\nsha256 = ["{sha(2)}"]\nreason = "r"\n',
    "signer": f'[[allow]]\nname = "a"\nkinds = {FORMS}\nsigner = ["platform"]\n{DUTY}'
    f'[[allow]]\nname = "p"\nkinds = ["elf"]\npath = ["/usr/bin/**"]\n{DUTY}',
}


def ask(chance: random.Random) -> Ask:
    """One random question: true items, and ones whose place, content, form or owner is another."""
    item = chance.choice(ITEMS)
    forms = (
        [CodeKind.SCRIPT]
        if item.kind is CodeKind.SCRIPT
        else [CodeKind.ELF, CodeKind.LIBRARY, CodeKind.MODULE]
    )
    kind = item.kind if chance.random() < 0.7 else chance.choice([*forms, CodeKind.INLINE])
    path, digest, package = item.path, item.sha256, item.package
    if chance.random() < 0.15:
        digest, package = sha(9999), ""
    if chance.random() < 0.15:
        path = chance.choice(("/tmp/x", "/usr/bin/new", "/usrx/f1", "/opt/app/new", "/usr"))
    signers = frozenset({"platform"}) if digest != sha(9999) else frozenset()
    target = Target(kind, path, digest, chance.random() < 0.9, package, signers)
    subject = ExecSubject(
        chance.choice((0, 33, 1000)), chance.choice(("/usr/bin/f0", "/usr/bin/f1"))
    )
    return Ask(subject, target)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda one: one.name)
def test_engine_decides_as_the_policy_outside_its_blind_spots(
    engine: Engine, today: dt.date
) -> None:
    """Over 10,000 questions the model of the compiled files agrees with the policy."""
    chance = random.Random(18)
    asks = [ask(chance) for _ in range(PAIRS // len(POLICIES))]
    compared = 0
    for text in POLICIES.values():
        found = compare(engine, parse_policy(HEAD + text), ITEMS, asks, today)
        assert found.differ == ()
        assert found.compared + found.blind == len(asks)
        compared += found.compared
    assert compared >= PAIRS // 25


@pytest.mark.parametrize("engine", ENGINES, ids=lambda one: one.name)
def test_comparison_sees_an_engine_that_is_told_something_else(
    engine: Engine, today: dt.date
) -> None:
    """The test above can fail: files of another policy are found to differ."""
    chance = random.Random(18)
    asks = [ask(chance) for _ in range(2000)]
    mean = parse_policy(HEAD + POLICIES["places"].replace("/usr/**", "/opt/**"))

    def other(policy: EndpointPolicy, items: object) -> object:
        del policy, items
        return engine.compile(mean, ITEMS)

    false = Engine(engine.name, other, engine.model, engine.blind)  # type: ignore[arg-type]
    assert compare(false, parse_policy(HEAD + POLICIES["places"]), ITEMS, asks, today).differ


def test_row_that_an_engine_can_not_say_is_named() -> None:
    """A deny row by unit can't be left out of fapolicyd's rules in silence."""
    deny = '[[deny]]\nname = "by-unit"\nkinds = ["elf"]\npath = ["/usr/**"]\nunits = ["/a"]\nreason = "r"\n'
    policy = parse_policy(HEAD + POLICIES["places"] + deny)
    with pytest.raises(CompileError, match="by-unit"):
        ENGINES[0].compile(policy, ITEMS)


def test_fapolicyd_rules_deny_the_loader_and_know_the_shell(today: dt.date) -> None:
    """The two holes of its sample rules on Debian are closed in what is written."""
    del today
    files = ENGINES[0].compile(parse_policy(HEAD + POLICIES["places"]), ITEMS)
    rules = files["compiled.rules"].splitlines()
    assert any("exe=/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 : all" in rule for rule in rules)
    assert "text/x-shellscript" in rules[0]
    assert "overlay" in files["fapolicyd.conf"]
