"""Files on the command line: what can't be read as what it must be is one line, before any work."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

import safehold.cli
from safehold.cli import safehold as command_line
from safehold.cli._places import OutPlace
from safehold.cli._reads import (
    MOST_BYTES,
    Form,
    InFile,
    NamedPlace,
    check,
    log_folder,
    read_bytes,
    read_json,
    read_rows,
    read_text,
)
from safehold.cli._trust import key_directory
from safehold.errors import DataError, UsageError

_GROUPS = {
    *("capability", "change", "controls", "drill", "egress", "endpoint", "exemption", "govern"),
    *("grant", "keyd", "keys", "log", "people", "report", "standards", "weights"),
}
_MODULES = (
    *_GROUPS,
    *("_artefacts", "_change_source", "_change_tuf", "_controls_accept", "_egress_hidden"),
    *("_egress_tools", "_endpoint_attack", "_endpoint_lsm", "_grant_sight", "_vetting", "_weights"),
)


def _walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Parameter]]:
    yield from ((path, one) for one in command.params)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            one = command.get_command(context, name)
            if one is not None and (path or name in _GROUPS):
                yield from _walk(one, f"{path} {name}".strip())


_PATHS = [
    (f"{path} {one.opts[-1]}", one)
    for path, one in _walk(command_line, "")
    if isinstance(one.type, click.Path)
]
_READ = [(name, one) for name, one in _PATHS if isinstance(one.type, InFile)]


def test_every_path_of_the_commands_about_security_has_a_type_of_ours() -> None:
    """No command learns in the middle of its work what its file is."""
    assert len(_READ) > 80
    kinds = (InFile, NamedPlace, OutPlace)
    assert [name for name, one in _PATHS if not isinstance(one.type, kinds)] == []


def test_the_commands_about_security_read_files_by_one_reader() -> None:
    """Another way to read would decode by the locale, or end in a traceback."""
    own = re.compile(r"\.read_(?:text|bytes)\(")
    root = Path(safehold.cli.__file__).parent
    found = [one for one in _MODULES if own.search((root / f"{one}.py").read_text("utf-8"))]
    assert found == []


_WRONG = {
    "latin-1": (b'{"a": 1,\n"b": "caf\xe9"}', "line 2: expected UTF-8 text, got the byte 0xe9"),
    "utf-16": ("[a]\n".encode("utf-16"), "got UTF-16"),
    "mark": (b"\xef\xbb\xbf{}", "got a byte order mark"),
    "nul": (b"a\nb\0c", "line 2: expected text, got a NUL character"),
    "blank": (b" \n\t\n", "white space alone"),
}


def _refused(kind: click.Path, value: str, option: click.Parameter | None = None) -> str:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(value, option, None)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(("name", "option"), _READ)
def test_a_file_that_is_no_such_file_is_one_line(
    name: str, option: click.Parameter, tmp_path: Path
) -> None:
    """Nothing, a folder, a loop, an empty file, another encoding: each has its sentence."""
    kind = option.type
    assert isinstance(kind, InFile), name
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").touch()
    assert "an empty one" in _refused(kind, "", option)
    for place in ("none", "loop", "none/none", "a" * 300):
        assert place in _refused(kind, str(tmp_path / place), option)
    assert "directory" in _refused(kind, str(tmp_path), option).lower()
    if kind.form is not Form.ROWS:
        assert "empty" in _refused(kind, str(tmp_path / "empty"), option)
    if kind.form in {Form.BYTES, Form.ROWS}:
        return
    for content, said in _WRONG.values():
        (tmp_path / "wrong").write_bytes(content)
        assert said in _refused(kind, str(tmp_path / "wrong"), option)


def test_a_document_that_is_cut_off_or_too_deep_names_its_place(tmp_path: Path) -> None:
    """Line and column of a syntax error; depth and length have limits of their own."""
    path = tmp_path / "document"
    for form, text, said in (
        (Form.JSON, '{"a": 1,\n "b": ', "line 2"),
        (Form.JSON, "[" * 100_000, "too deep"),
        (Form.JSON, "1" * 5_000, "expected JSON"),
        (Form.TOML, "a = 1\nb = \n", "line 2"),
        (Form.TOML, "a = " + "[" * 100_000, "too deep"),
        (Form.TOML, "a = 1\na = 2\n", "line 2"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=said) as caught:
            check(path, form)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(DataError, match="at most"):
        check(path, Form.JSON)
    check(path, Form.BYTES)


def test_what_can_be_read_once_only_is_left_to_its_reader() -> None:
    """A pipe of the shell is not emptied by the look at it."""
    reading, writing = os.pipe()
    os.write(writing, b'{"a": 1}')
    os.close(writing)
    pipe = Path(f"/proc/self/fd/{reading}")
    check(pipe, Form.JSON)
    assert read_json(pipe, dict[str, int], "numbers") == {"a": 1}
    os.close(reading)


class _Row(msgspec.Struct):
    n: int


def test_readers_name_the_file_the_line_and_the_member(tmp_path: Path) -> None:
    """A wrong member, a wrong line, a link to nothing."""
    path = tmp_path / "rows"
    path.write_bytes(b'{"n": 1}\n{"n": "x"}\n')
    rows = read_rows(path, _Row, "a row")
    assert next(rows) == _Row(1)
    with pytest.raises(DataError, match=r"rows: line 2: expected a row: .*\$\.n"):
        next(rows)
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match="line 1: nested too deep"):
        next(read_rows(path, list[object], "a row"))
    with pytest.raises(DataError, match="too deep"):
        read_json(path, list[object], "members")
    path.write_text('{"n": null}')
    with pytest.raises(DataError, match=r"expected a row: .*\$\.n"):
        read_json(path, _Row, "a row")
    (tmp_path / "link").symlink_to("gone")
    for read in (read_bytes, read_text):
        with pytest.raises(DataError, match="link: can't be read"):
            read(tmp_path / "link")


def test_a_file_has_the_same_text_in_every_locale(tmp_path: Path) -> None:
    """What is signed does not depend on the language of who reads it."""
    (tmp_path / "text").write_bytes("Käse\r\n".encode())
    assert read_text(tmp_path / "text") == "Käse\r\n"


def test_a_wrong_file_is_told_with_its_option(tmp_path: Path) -> None:
    """As the user sees it: status 2, the option, the file, what makes one."""
    words = ["egress", "plan", "--register", str(tmp_path / "none.toml")]
    result = CliRunner().invoke(command_line, words)
    assert result.exit_code == 2
    last = result.output.strip().rsplit("\n", 1)[-1]
    assert last.startswith("Error: Invalid value for '--register': ")
    assert last.endswith("; `safehold egress init` makes one")


@pytest.mark.parametrize(("given", "beside"), [("log", "log.keys"), ("a/log/", "a/log.keys")])
def test_keys_are_beside_the_log_whatever_it_is_called(given: str, beside: str) -> None:
    """A trailing slash is no name."""
    assert key_directory(Path(given), None) == Path(beside)


def test_a_log_that_is_the_current_folder_has_its_keys_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.` and `..` are folders with names; the root has nothing beside it."""
    (tmp_path / "log/tile").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "log")
    assert key_directory(Path(), None) == tmp_path / "log.keys"
    monkeypatch.chdir(tmp_path / "log/tile")
    assert key_directory(Path(".."), None) == tmp_path / "log.keys"
    with pytest.raises(UsageError, match="--keys"):
        key_directory(Path("/"), None)
    assert key_directory(Path("/"), Path("k")) == Path("k")
    assert "empty" in _refused(log_folder(), "")


def test_one_option_name_has_one_meaning() -> None:
    """`--keys` is the folder of a log's private keys, and `--log-keys` the pinned public ones."""
    for option, kind in (("--keys", NamedPlace), ("--log-keys", InFile), ("--log", NamedPlace)):
        shown = [
            (name, type(one.type))
            for name, one in _PATHS
            if option in one.opts and not getattr(one, "hidden", False)
        ]
        assert len(shown) > 5
        assert [name for name, found in shown if found is not kind] == []
