"""A constitution file: strict YAML in which every value knows its line and column.

Of YAML only plain data is read: one document, mappings with distinct string keys, sequences and
scalars. Aliases, tags and deep nesting refuse, so a file can neither swell nor construct objects.
"""

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import msgspec
import yaml

from safehold.constitution.interface import Constitution, SchemaError

MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
_AT = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")

ValuePath = tuple[str | int, ...]
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Document:
    """A constitution with the place of each of its values. Keys are paths such as `("name",)`."""

    constitution: Constitution
    source: str
    positions: dict[ValuePath, Position]

    def position(self, path: ValuePath) -> Position:
        """Return the place of a value, or of the nearest value around it."""
        return _nearest(self.positions, path)


def parse(data: bytes, *, source: str) -> Document:
    """Read a constitution from the bytes of a YAML file.

    Raises:
        SchemaError: with the line and column at which the file breaks the schema.
    """
    constitution, positions = parse_as(Constitution, data, source=source)
    return Document(constitution, source, positions)


def parse_as(
    kind: type[_Kind], data: bytes, *, source: str
) -> tuple[_Kind, dict[ValuePath, Position]]:
    """Read a value of any struct from strict YAML, with the place of each of its values.

    Raises:
        SchemaError: with the line and column at which the file breaks the schema.
    """
    value, positions = _Reader(source).read(data)
    try:
        return msgspec.convert(value, type=kind), positions
    except msgspec.ValidationError as error:
        problem, path = _explain(str(error))
        place = _nearest(positions, path)
        where = words(path)
        raise SchemaError(
            f"{where}: {problem}" if where else problem,
            source=source,
            line=place.line,
            column=place.column,
        ) from error


def words(path: ValuePath) -> str:
    """Return a path as people write it: `restricted[0].title`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(
        "."
    )


@dataclass(slots=True)
class _Frame:
    """A container that is being filled."""

    container: dict[str, object] | list[object]
    path: ValuePath
    key: str | None = None


@dataclass(slots=True)
class _Reader:
    """Builds plain values from YAML events, without recursion."""

    source: str
    positions: dict[ValuePath, Position] = field(default_factory=dict)
    frames: list[_Frame] = field(default_factory=list)
    roots: list[object] = field(default_factory=list)

    def read(self, data: bytes) -> tuple[object, dict[ValuePath, Position]]:
        """Return the document's value and the place of everything in it."""
        if len(data) > MAX_BYTES:
            self._refuse(f"expected at most {MAX_BYTES} bytes, got more", None)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise SchemaError("expected UTF-8 text", source=self.source, line=line) from error
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                self._take(event)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or "unreadable characters"
            mark = getattr(error, "problem_mark", None)
            raise self._error(f"expected YAML: {problem}", mark) from error
        if not self.roots:
            self._refuse("expected a constitution, got an empty file", None)
        return self.roots[0], self.positions

    def _take(self, event: Any) -> None:
        mark = event.start_mark
        if getattr(event, "tag", None) not in (None, "!"):
            self._refuse("expected plain YAML, got a tag", mark)
        match event:
            case yaml.AliasEvent():
                self._refuse("expected plain YAML, got an alias", mark)
            case yaml.ScalarEvent():
                self._scalar(event, mark)
            case yaml.MappingStartEvent():
                self._open({}, mark)
            case yaml.SequenceStartEvent():
                self._open([], mark)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.frames.pop()
            case yaml.DocumentStartEvent() if self.roots:
                self._refuse("expected one document, got a second", mark)
            case _:
                pass

    def _scalar(self, event: Any, mark: Any) -> None:
        text: str = event.value
        try:
            text.encode()
        except UnicodeEncodeError:
            self._refuse("expected text, got a lone surrogate", mark)
        frame = self.frames[-1] if self.frames else None
        if frame is not None and isinstance(frame.container, dict) and frame.key is None:
            if text in frame.container:
                self._refuse(f"expected each key once, got {text!r} again", mark)
            frame.key = text
            self.positions[(*frame.path, text)] = _position(mark)
            return
        self._put(_plain(text) if event.implicit[0] else text, mark)

    def _open(self, container: dict[str, object] | list[object], mark: Any) -> None:
        if len(self.frames) >= _MAX_DEPTH:
            self._refuse(f"expected at most {_MAX_DEPTH} levels, got more", mark)
        path = self._put(container, mark)
        self.frames.append(_Frame(container, path))

    def _put(self, value: object, mark: Any) -> ValuePath:
        if not self.frames:
            self.roots.append(value)
            self.positions[()] = _position(mark)
            return ()
        frame = self.frames[-1]
        if isinstance(frame.container, list):
            path: ValuePath = (*frame.path, len(frame.container))
            self.positions[path] = _position(mark)
            frame.container.append(value)
            return path
        if frame.key is None:
            self._refuse("expected a text as key", mark)
        path = (*frame.path, frame.key)
        frame.container[frame.key] = value
        frame.key = None
        return path

    def _refuse(self, problem: str, mark: Any) -> NoReturn:
        raise self._error(problem, mark)

    def _error(self, problem: str, mark: Any) -> SchemaError:
        place = Position(1, 1) if mark is None else _position(mark)
        return SchemaError(problem, source=self.source, line=place.line, column=place.column)


def _plain(text: str) -> object:
    """Return the value of an unquoted scalar; unlike YAML 1.1, `no` and dates stay texts."""
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.fullmatch(text) else text


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _nearest(positions: dict[ValuePath, Position], path: ValuePath) -> Position:
    while path and path not in positions:
        path = path[:-1]
    return positions.get(path, Position(1, 1))


def _explain(message: str) -> tuple[str, ValuePath]:
    """Split msgspec's message into the problem and the path that it names."""
    found = _AT.search(message)
    steps: list[str | int] = []
    if found is not None:
        message = message[: found.start()]
        steps += [step[1] or int(step[2]) for step in _STEP.finditer(found[1])]
    unknown = _UNKNOWN.search(message)
    if unknown is not None:
        steps.append(unknown[1])
        message = "expected a key of the schema, got an unknown one"
    return message[:1].lower() + message[1:], tuple(steps)
