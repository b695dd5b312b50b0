"""Every setting has its range and its words checked at the start: one walk over all of them."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from safehold.cli import main
from safehold.cli.serve import read_settings
from safehold.errors import ConfigError
from safehold.guard.gateway.policy import Settings
from safehold.guard.gateway.settings_check import RANGES

HEX = "ab" * 32
POLICY: dict[str, Any] = {"rules": {"images": "score"}, "fallback_model": "small"}
WHOLE: dict[str, Any] = {
    "upstream": {"url": "http://127.0.0.1:1/v1"},
    "upstreams": {"one": {"url": "http://127.0.0.1:2/v1"}},
    "routes": [{"models": ["m"], "to": [{"upstream": "one"}], "fallbacks": [{"upstream": "one"}]}],
    "default": POLICY,
    "surfaces": {"openai.chat": POLICY},
    "store": "sqlite:///s.db",
    "keys": [
        {
            "id": "k",
            "sha256": HEX,
            "budget": {},
            "surfaces": ["openai.chat"],
            "models": ["m"],
            "policies": {"openai.chat": POLICY},
            "expires_at": "2027-01-31T18:00:00Z",
        }
    ],
    "tenants": {"t": {"surfaces": ["openai.chat"], "models": ["m"], "budget": {}}},
    "exemptions": {
        "log": "l",
        "log_keys": "k",
        "constitution": "c",
        "seats": "s",
        "callers": {"k": {"user": "u"}},
    },
    "classes": {
        "soap": {
            "bundle": "b",
            "bundle_keys": ["k"],
            "surfaces": ["openai.chat"],
            "tenants": ["t"],
            "constitution": "soap",
        }
    },
    "class_switches": {"log": "l", "log_keys": "k"},
    "releases": {
        "log": "l",
        "log_keys": "k",
        "channel": "c",
        "documents": "d",
        "memory": "m",
    },
    "standing": {
        "document": "d",
        "document_sha256": HEX,
        "log": "l",
        "log_keys": "k",
        "controls": "c",
        "controls_key": "k",
        "compute": 1e25,
    },
    "hot_rules": {"file": "f", "keys": {"a": "a", "b": "b"}, "memory": "m"},
    "account_states": {"file": "f", "keys": {"a": "a"}, "memory": "m"},
    "trial": {"file": "f", "keys": {"a": "a", "b": "b"}, "memory": "m", "secret_file": "s"},
    "media_scorer": {"url": "http://127.0.0.1:3/", "categories": ["c"]},
    "limits": {},
    "canary": {"prompts": ["p"]},
    "explain": {"to": "t", "key": "k", "flow": "f"},
}
"""A configuration with every part in it."""
Path_ = tuple[str | int, ...]
ODD: list[Any] = [
    "an unknown word\x07",
    "",
    -1,
    -0.5,
    math.nan,
    math.inf,
    -math.inf,
    10**30,
    [],
    [[]],
    {},
    {"novel": 1},
    None,
    True,
    7,
    0.25,
    "word",
]


def struct_of(kind: inspect.Type) -> inspect.StructType | None:
    """Return the struct that a field holds, alone, in a list or in a mapping."""
    match kind:
        case inspect.StructType():
            return kind
        case inspect.UnionType(types=types):
            return next((one for each in types if (one := struct_of(each))), None)
        case inspect.VarTupleType(item_type=inner) | inspect.DictType(value_type=inner):
            return struct_of(inner)
        case _:
            return None


def fields(kind: inspect.StructType, at: Path_ = ()) -> Iterator[tuple[Path_, inspect.Field, str]]:
    """Yield every field of a settings struct and of those inside, with its place in `WHOLE`."""
    for field in kind.fields:
        place = (*at, field.encode_name)
        yield place, field, kind.cls.__name__
        inner = struct_of(field.type)
        if inner is None:
            continue
        held = field.type
        if isinstance(held, inspect.VarTupleType):
            place = (*place, 0)
        elif isinstance(held, inspect.DictType):
            place = (*place, next(iter(at_place(WHOLE, place))))
        yield from fields(inner, place)


def at_place(value: Any, place: Path_) -> Any:
    """Return what stands at a place."""
    for step in place:
        value = value[step]
    return value


def changed(place: Path_, value: Any) -> dict[str, Any]:
    """Return the configuration with one value at a place."""
    given = copy.deepcopy(WHOLE)
    inner = given
    for step in place[:-1]:
        inner = inner.setdefault(step, {}) if isinstance(inner, dict) else inner[step]
    inner[place[-1]] = value
    return given


ROOT = inspect.type_info(Settings)
assert isinstance(ROOT, inspect.StructType)
EVERY = list(fields(ROOT))


TYPES: dict[type[inspect.Type], tuple[type, ...]] = {
    inspect.BoolType: (bool,),
    inspect.IntType: (int,),
    inspect.FloatType: (int, float),
    inspect.StrType: (str,),
    inspect.EnumType: (str,),
    inspect.LiteralType: (str,),
    inspect.NoneType: (type(None),),
    inspect.VarTupleType: (list,),
    inspect.DictType: (dict,),
    inspect.StructType: (dict,),
}


def allowed(kind: inspect.Type) -> tuple[type, ...]:
    """Return the types that a field may hold."""
    if isinstance(kind, inspect.UnionType):
        return tuple(one for each in kind.types for one in allowed(each))
    return TYPES[type(kind)]


def words_of(kind: inspect.Type) -> list[str] | None:
    """Return the words of a field that takes only some; None of a free text."""
    match kind:
        case inspect.LiteralType(values=values):
            return [str(value) for value in values]
        case inspect.EnumType(cls=cls):
            return [str(one) for one in cls]
        case _:
            return None


def may_be(field: inspect.Field, owner: str, value: Any) -> bool:
    """Whether a value may be accepted: of a type of the field's, in its range, of its words."""
    kinds = allowed(field.type)
    if isinstance(value, bool):
        return bool in kinds
    if type(value) not in kinds:
        # A whole number may stand for a float, as 7.0 for a 7.
        return isinstance(value, float) and int in kinds and value.is_integer()
    if isinstance(value, int | float):
        least, most = RANGES[f"{owner}.{field.name}"]
        return least <= value <= most
    if isinstance(value, str):
        words = words_of(field.type)
        if words is not None:
            return value in words
        return value.isprintable() and (bool(value) or field.default == "")
    return value in ([], {}) or value is None


def test_the_whole_configuration_is_accepted(tmp_path: Path) -> None:
    """The base of this walk is sound, and holds every part that there is."""
    file = tmp_path / "s.yaml"
    file.write_bytes(msgspec.yaml.encode(WHOLE))
    settings = read_settings(file, {})
    assert all(getattr(settings, name) is not None for name in WHOLE)
    parts = {name for name in Settings.__struct_fields__ if getattr(settings, name) is None}
    assert parts == {"bundle", "bundle_sha256", "bundles", "journal", "state", "otlp"}


def test_every_number_has_a_range() -> None:
    """A new numeric setting needs a row, and no row is left without its setting."""
    numbers = {
        f"{owner}.{field.name}"
        for _, field, owner in EVERY
        if set(allowed(field.type)) & {int, float}
    }
    assert numbers == set(RANGES)


def refusal(file: Path) -> str | None:
    """Return why settings are refused; None where they are accepted."""
    try:
        read_settings(file, {})
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("place", "field", "owner"), EVERY, ids=[".".join(map(str, one[0])) for one in EVERY]
)
def test_no_odd_value_is_accepted_and_each_is_one_line(
    tmp_path: Path, place: Path_, field: inspect.Field, owner: str
) -> None:
    """A wrong type, an unknown word, a NaN, a number out of range or an empty text is an error."""
    file = tmp_path / "s.yaml"
    for value in ODD:
        file.write_bytes(msgspec.yaml.encode(changed(place, value)))
        said = refusal(file)
        if said is None:
            assert may_be(field, owner, value), (place, value)
        else:
            assert 0 < len(said) < 400, value
            assert "\n" not in said, value


@pytest.mark.parametrize(
    "place",
    sorted({place[:-1] for place, _, _ in EVERY}, key=str),
    ids=lambda place: ".".join(map(str, place)) or "top",
)
def test_unknown_key_is_refused_at_every_depth(tmp_path: Path, place: Path_) -> None:
    """A misspelt setting is an error wherever it stands."""
    file = tmp_path / "s.yaml"
    file.write_bytes(msgspec.yaml.encode(changed((*place, "novel"), 1)))
    with pytest.raises(ConfigError):
        read_settings(file, {})


@pytest.mark.parametrize("value", [-1, math.nan, "word", None, [], 70_000])
def test_command_ends_with_one_line_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: Any
) -> None:
    """`safehold serve` says what is wrong in one line, with a status above 0."""
    file = tmp_path / "s.yaml"
    file.write_bytes(msgspec.yaml.encode(changed(("port",), value)))
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--config", str(file)])
    assert ended.value.code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert said.err.startswith("safehold: error: ")
