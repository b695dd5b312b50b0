"""What an interpreter was started to run, by its arguments.

The kernel does not see `python -c`. But an interpreter's first act is to open its libraries, and
at that moment its arguments are still those of `execve`: what they mean is known before it runs.
What is not understood counts as inline code.
"""

# ruff: noqa: E501 - one line for each language; names are strings of the kernel

import os.path
import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec


class CodeSource(StrEnum):
    """Where the code comes from."""

    FILE = "file"
    """A file, which is judged when it is opened."""
    ARGUMENT = "argument"
    STDIN = "stdin"
    """A pipe, a terminal, or what is not a file."""
    NOTHING = "nothing"
    """No code of anybody's: `--version`."""


class Invocation(msgspec.Struct, frozen=True):
    """What is run; `path` for a file, as it was given; `also` are files that options load."""

    source: CodeSource
    path: str = ""
    also: tuple[str, ...] = ()


class Language(msgspec.Struct, frozen=True):
    """How an interpreter reads its arguments.

    `inline` options carry code, `module` options name code that is found as a file, `valued`
    options take a value, `quiet` ones run nothing. `environment` are variables that carry code,
    or name a file of it that no argument names.
    """

    name: str
    programs: re.Pattern[str]
    suffixes: tuple[str, ...]
    inline: frozenset[str]
    valued: frozenset[str] = frozenset()
    module: frozenset[str] = frozenset()
    stdin: frozenset[str] = frozenset()
    quiet: frozenset[str] = frozenset({"--version", "--help"})
    environment: tuple[str, ...] = ()


def _language(
    name: str, programs: str, suffixes: str, inline: str, valued: str = "", module: str = "",
    stdin: str = "", quiet: str = "--version --help", environment: str = "",
) -> Language:  # fmt: skip
    return Language(
        name,
        re.compile(programs),
        tuple(suffixes.split()),
        frozenset(inline.split()),
        frozenset(valued.split()),
        frozenset(module.split()),
        frozenset(stdin.split()),
        frozenset(quiet.split()),
        tuple(environment.split()),
    )


# An interpreter of another name is one line here.
LANGUAGES: tuple[Language, ...] = (
    _language(
        "python", r"(python|pypy)[0-9.]*", ".py .pyc .pyw .pth", "-c", "-W -X --check-hash-based-pycs",
        "-m", "-i", "--version -V --help -h", "PYTHONSTARTUP PYTHONINSPECT PYTHONBREAKPOINT",
    ),
    _language(
        "shell", r"(ba|da|k|z|mk|a)?sh|busybox", ".sh .bash .zsh", "-c", "-o -O +o +O --rcfile --init-file",
        "", "-s -i", environment="BASH_ENV ENV BASH_FUNC_ PS4 PROMPT_COMMAND",
    ),
    _language("perl", r"perl[0-9.]*", ".pl .pm .ph", "-e -E", "-I -C -x -F", "", "-", "--version --help -v", "PERL5OPT PERL5DB"),
    _language("ruby", r"ruby[0-9.]*", ".rb", "-e", "-I -r -C -E", "", "-", "--version --help -v", "RUBYOPT"),
    _language(
        "node", r"node(js)?|deno|bun", ".js .mjs .cjs .node", "-e --eval -p --print",
        "-r --require --import", "", "- -i --interactive", "--version --help -v -h", "NODE_OPTIONS NODE_REPL_EXTERNAL_MODULE",
    ),
    _language("php", r"php[0-9.]*", ".php .phar", "-r -B -R -E", "-c -d -z -S -t", "", "-a", "-v -h -i", "PHPRC PHP_INI_SCAN_DIR"),
    _language("lua", r"lua(jit)?[0-9.]*", ".lua", "-e", "-l", "", "- -i", "-v", "LUA_INIT"),
    _language("awk", r"(g|m|n|original-)?awk", ".awk", "", "-F -v", "", "", "--version --help -V"),
    _language("tcl", r"(tcl|wi|exp)sh?[0-9.]*|expect", ".tcl .exp", "-c", "", "", "-"),
)  # fmt: skip


def language_of(program: str) -> Language | None:
    """Return the language of a program's path, if it is an interpreter's name."""
    name = os.path.basename(program)
    return next((one for one in LANGUAGES if one.programs.fullmatch(name)), None)


def carries_code(language: Language, environment: Iterable[str]) -> bool:
    """Tell whether a variable (`NAME=value`) gives the interpreter code beside its arguments.

    A name counts with whatever follows it: `BASH_FUNC_ls%%`, `LUA_INIT_5_4`.
    """
    return any(
        row.startswith(name) and row.partition("=")[2]
        for row in environment
        for name in language.environment
    )


def invocation(language: Language, arguments: tuple[str, ...]) -> Invocation:
    """Return what the interpreter was started to run; `arguments` with its own name first."""
    rest = list(arguments[1:])
    also: list[str] = []
    program = os.path.basename(arguments[0]) if arguments else ""
    if program == "busybox":
        rest = rest[1:]
    while rest:
        word = rest.pop(0)
        if word == "--":
            found: Invocation | None = Invocation(CodeSource.STDIN)
            if rest:
                found = Invocation(CodeSource.FILE, rest[0])
        elif word == "-":
            found = Invocation(CodeSource.STDIN)
        elif not word.startswith(("-", "+")):
            inline = language.name == "awk"
            found = Invocation(CodeSource.ARGUMENT) if inline else Invocation(CodeSource.FILE, word)
        else:
            found = _option(language, word, rest, also)
        if found is not None:
            return msgspec.structs.replace(found, also=tuple(also))
    return Invocation(CodeSource.STDIN, "", tuple(also))


def _option(language: Language, word: str, rest: list[str], also: list[str]) -> Invocation | None:
    """Return what one option decides, taking its value from `rest`; None: read on."""
    name, joined, value = word.partition("=")
    if name in language.quiet:
        return Invocation(CodeSource.NOTHING)
    if language.name == "awk" and name in {"-f", "--file", "-E", "--exec"}:
        return Invocation(CodeSource.FILE, rest[0] if rest else "")
    if name in language.inline:
        return Invocation(CodeSource.ARGUMENT)
    if name in language.stdin:
        return Invocation(CodeSource.STDIN)
    if name in language.module:
        return Invocation(CodeSource.FILE, "")
    if name in language.valued:
        if not joined and rest:
            value = rest.pop(0)
        also.append(value)
        return None
    if not word.startswith("--"):
        return _letters(language, word, rest)
    return None


def _letters(language: Language, word: str, rest: list[str]) -> Invocation | None:
    """Return what letters in one word decide, as `-Ic` or `-ec`: each may be the one."""
    for at, letter in enumerate(word[1:], start=1):
        option = word[0] + letter
        if option in language.inline:
            return Invocation(CodeSource.ARGUMENT)
        if option in language.stdin:
            return Invocation(CodeSource.STDIN)
        if option in language.module:
            return Invocation(CodeSource.FILE, "")
        if option in language.valued:
            if at == len(word) - 1 and rest:
                rest.pop(0)
            return None
    return None
