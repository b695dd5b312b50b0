"""What an interpreter was started to run, from its arguments alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.endpoint.invocation import (
    LANGUAGES,
    CodeSource,
    carries_code,
    invocation,
    language_of,
)

F, A, S, N = CodeSource.FILE, CodeSource.ARGUMENT, CodeSource.STDIN, CodeSource.NOTHING
CASES = [
    ("python3 x.py -c no", F, "x.py"),
    ("python3 -I -S -B x.py", F, "x.py"),
    ("python3 -W ignore x.py", F, "x.py"),
    ("python3 -c print(1)", A, ""),
    ("python3 -Ic print(1)", A, ""),
    ("python3 -m http.server", F, ""),
    ("python3 -Im http.server", F, ""),
    ("python3", S, ""),
    ("python3 -", S, ""),
    ("python3 -i x.py", S, ""),
    ("python3 -X dev -", S, ""),
    ("python3 --version", N, ""),
    ("sh x.sh", F, "x.sh"),
    ("sh -e x.sh", F, "x.sh"),
    ("sh -c true", A, ""),
    ("bash -ec true", A, ""),
    ("bash -o pipefail -c true", A, ""),
    ("bash -o pipefail x.sh", F, "x.sh"),
    ("bash +o history x.sh", F, "x.sh"),
    ("bash --rcfile evil -i", S, ""),
    ("sh -s arg", S, ""),
    ("bash -- x.sh", F, "x.sh"),
    ("perl -e print", A, ""),
    ("perl -ne print", A, ""),
    ("perl x.pl", F, "x.pl"),
    ("node --eval=1", A, ""),
    ("node -r ./evil.js x.js", F, "x.js"),
    ("awk {print}", A, ""),
    ("awk -F : -f x.awk", F, "x.awk"),
]


@pytest.mark.parametrize(("line", "source", "path"), CASES, ids=[case[0] for case in CASES])
def test_arguments_say_where_the_code_comes_from(line: str, source: CodeSource, path: str) -> None:
    """File, argument or standard input: as the interpreter itself would read it."""
    words = tuple(line.split())
    language = language_of(words[0])
    assert language is not None
    found = invocation(language, words)
    assert (found.source, found.path) == (source, path)


@pytest.mark.parametrize("line", ["bash --rcfile evil -i", "node -r evil x.js"])
def test_files_that_options_load_are_code_too(line: str) -> None:
    """A start-up file or a preloaded module is named beside the main file."""
    words = tuple(line.split())
    language = language_of(words[0])
    assert language is not None
    assert "evil" in invocation(language, words).also


@given(st.sampled_from(LANGUAGES), st.lists(st.text(max_size=6), max_size=6))
def test_any_arguments_have_an_answer(language: object, words: list[str]) -> None:
    """Nonsense never ends in an error: it counts as some source of code."""
    assert invocation(language, ("x", *words)).source in CodeSource  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["/usr/bin/python3.11", "/bin/dash", "/usr/bin/perl5.36", "awk"])
def test_interpreters_are_known_by_name(name: str) -> None:
    """Versions in a name do not hide an interpreter."""
    assert language_of(name) is not None


@pytest.mark.parametrize("name", ["/usr/bin/true", "/usr/bin/pythonista", "/usr/bin/flash", ""])
def test_other_programs_are_no_interpreters(name: str) -> None:
    """A part of a name is not the name."""
    assert language_of(name) is None


@pytest.mark.parametrize(
    ("program", "row", "carries"),
    [
        ("bash", "BASH_ENV=/tmp/x", True),
        ("bash", "BASH_FUNC_ls%%=() { evil; }", True),
        ("bash", "BASH_ENV=", False),
        ("bash", "BASHES=/tmp/x", False),
        ("bash", "PYTHONSTARTUP=/tmp/x", False),
        ("python3", "PYTHONSTARTUP=/tmp/x", True),
        ("perl", "PERL5OPT=-Mevil", True),
        ("node", "NODE_OPTIONS=--require /tmp/x", True),
        ("lua", "LUA_INIT_5_4=evil()", True),
        ("sh", "PATH=/usr/bin", False),
    ],
)
def test_environment_that_carries_code_is_known(program: str, row: str, carries: bool) -> None:  # noqa: FBT001
    """A variable that an interpreter takes code from counts; an empty one and others do not."""
    language = language_of(program)
    assert language is not None
    assert carries_code(language, ["HOME=/root", row]) is carries
