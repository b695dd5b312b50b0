"""Names of models in the configuration: exact, or with `*` for any letters."""

from collections.abc import Sequence


def named(model: str, names: Sequence[str]) -> bool:
    """Whether a list of models has one; `*` stands for any letters, an empty list for all."""
    return not names or any(matches(model, name) for name in names)


def matches(model: str, name: str) -> bool:
    """Match in one pass, however many stars a name has: a client chooses the other text."""
    first, *others = name.split("*")
    if not others:
        return model == name
    *middle, last = others
    at, end = len(first), len(model) - len(last)
    if not (model.startswith(first) and model.endswith(last) and at <= end):
        return False
    for part in middle:
        found = model.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
