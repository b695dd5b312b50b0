"""What the messages of errors are made of."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

SOURCE = Path(__file__).parents[1] / "src" / "safehold"

RECORDED = {
    "cli/_replays.py": (2, "a function's name, kept by a decorator"),
    "detect/redteam/run.py": (1, "a row of results counts by kind of error"),
    "detect/runners/items.py": (1, "a row of the queue; who reads it takes the name off"),
    "guard/gateway/access/exemptions.py": (1, "a row of the ledger"),
    "guard/gateway/app.py": (1, "a row of the ledger; the client has the message alone"),
    "guard/gateway/operate/logs.py": (1, "a line of the log"),
    "guard/gateway/protocols/unknown_fields.py": (1, "a key of a count"),
    "guard/gateway/relaying/relay.py": (1, "a row of the ledger"),
    "guard/gateway/settings_check.py": (1, "a key of a table"),
    "guard/ledger/engine.py": (1, "a driver's class is compared, not told"),
    "guard/session/drivers.py": (3, "a defect: its text may hold content, its class does not"),
    "govern/controls/interface.py": (1, "a kind of facts, told in words"),
    "improve/synthesis/spread.py": (1, "the name that is taken off a row of the queue"),
    "secure/endpoint/attack/act.py": (1, "a key of a table"),
    "secure/fanotify/hold.py": (1, "a line of the holder's log"),
    "trust/release/weaker.py": (2, "a defect of a table of settings, and the word of an order"),
}
"""Where the name of a class may be taken: how often, and what for."""


def _names_of_classes(path: Path) -> Iterator[int]:
    """Yield the lines that take a class's name, or an error's own form, which begins with it."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"__name__", "__qualname__"}:
            yield node.lineno
        if isinstance(node, ast.ExceptHandler) and node.name:
            yield from (one.lineno for one in ast.walk(node) if _shows(one, node.name))


def _shows(node: ast.AST, error: str) -> TypeGuard[ast.expr]:
    """Tell whether it is `{error!r}`, `repr(error)` or the like."""
    match node:
        case ast.FormattedValue(value=ast.Name(id=name), conversion=form):
            return name == error and form in {ord("r"), ord("a")}
        case ast.Call(func=ast.Name(id="repr" | "ascii"), args=[ast.Name(id=name)]):
            return name == error
        case _:
            return False


def test_no_message_tells_the_class_of_an_error() -> None:
    """What a reader sees says what happened in words; class names are for logs and records."""
    found = {
        str(path.relative_to(SOURCE)): list(_names_of_classes(path))
        for path in sorted(SOURCE.rglob("*.py"))
    }
    counted = Counter({name: len(lines) for name, lines in found.items() if lines})
    wrong = {name: found[name] for name in counted if counted[name] != RECORDED.get(name, (0,))[0]}
    assert wrong == {}, "say it in words (`http_words.why_no_answer` for a connection)"
    assert set(RECORDED) == set(counted), "a row of the table that nothing needs any more"
