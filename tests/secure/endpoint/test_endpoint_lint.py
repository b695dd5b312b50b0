"""Each near miss of a good row is found under its own code; the good row has no finding."""

import datetime as dt

import pytest

from safehold.secure.endpoint.interface import CodeKind
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.lint import lint
from safehold.secure.endpoint.policy import parse_policy

# ruff: noqa: E501 - rows of a policy
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SHA = "ab" * 32
ITEMS = [
    Item("/usr/bin/tool", 10, SHA, CodeKind.ELF, "tool", "1"),
    Item("/usr/lib/libtool.so", 10, "cd" * 32, CodeKind.LIBRARY, "libtool", "1"),
]
HEAD = 'version = 1\nmode = "{mode}"\nhost = "gpu-1"\nreaders = [{readers}]\n[[inventory]]\nfile = "i"\nsigner = "platform"\nkey = "k"\n'
GOOD = {
    "kinds": '["elf"]',
    "identity": f'sha256 = ["{SHA}"]',
    "more": "",
    "mode": "enforce",
    "readers": "",
    "rows": "",
}
ROW = '[[allow]]\nname = "one"\nkinds = {kinds}\n{identity}\nowner = "o"\nreason = "r"\nticket = "t"\n{more}\n'
DENY = '[[deny]]\nname = "no"\nkinds = {kinds}\n{identity}\nreason = "r"\n'

NEAR: dict[str, dict[str, str]] = {
    "not-enforced": {"mode": "audit"},
    "reader-interpreter": {"readers": '"/usr/bin/python3.11"'},
    "everything": {"identity": 'path = ["/**"]'},
    "writable-place": {"identity": 'path = ["/tmp/tool"]'},
    "one-folder": {"identity": 'path = ["/usr/*"]'},
    "never-matches": {"identity": 'path = ["/usr/bin/../bin/tool"]'},
    "through-link": {"identity": 'path = ["/proc/self/exe"]'},
    "no-such-path": {"identity": 'path = ["/usr/no-such-folder/**"]'},
    "empty-file": {"identity": f'sha256 = ["{SHA}", "{EMPTY}"]'},
    "unknown-signer": {"identity": 'signer = ["platfrom"]'},
    "unknown-package": {"identity": 'package = ["tools"]'},
    "qualified": {"identity": 'package = ["tool:amd64"]'},
    "inline-to-all": {"kinds": '["inline"]', "identity": 'path = ["/usr/bin/dash"]'},
    "inline-by-origin": {
        "kinds": '["inline"]',
        "identity": 'package = ["tool"]',
        "more": "uids = [1]",
    },
    "interpreter-to-all": {"identity": 'path = ["/usr/bin/python3.11"]'},
    "unit-path": {"more": 'units = ["/web.service"]'},
    "expired": {"more": "expires = 2026-11-28"},
    "expires-soon": {"more": "expires = 2026-11-30"},
    "expires-late": {"more": "expires = 2028-11-30"},
    "meets-nothing": {"identity": f'sha256 = ["{"ef" * 32}"]'},
    "other-kind": {"kinds": '["script"]'},
    "twice": {"rows": ROW.replace('"one"', '"two"')},
    "never-applies": {"rows": DENY},
    "not-owned": {"identity": 'path = ["/proc/self/environ"]'},
}


def codes(change: dict[str, str], today: dt.date) -> set[str]:
    """The codes that lint says of the good row with one change."""
    values = {**GOOD, **change}
    text = HEAD.format(**values) + ROW.format(**values) + values["rows"].format(**values)
    return {one.code for one in lint(parse_policy(text), ITEMS, today)}


def test_good_row_has_no_finding(today: dt.date) -> None:
    """The row that all near misses start from is clean."""
    assert codes({}, today) == set()


@pytest.mark.parametrize("code", [code for code in NEAR if code != "not-owned"])
def test_near_miss_is_found_under_its_code(code: str, today: dt.date) -> None:
    """One thing wrong in a row is named by its code."""
    assert code in codes(NEAR[code], today)


def test_close_name_of_a_package_is_suggested(today: dt.date) -> None:
    """A mistyped package is told which one there is."""
    text = HEAD.format(**GOOD) + ROW.format(**{**GOOD, "identity": 'package = ["libtol"]'})
    assert any("libtool is" in one.message for one in lint(parse_policy(text), ITEMS, today))
