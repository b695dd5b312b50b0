"""Values on the command line: what click takes unread is read by a type of ours, everywhere."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from safehold.cli import safehold
from safehold.cli._values import (
    POSIX_S,
    SEED,
    SENTENCE,
    WHO,
    Address,
    Finite,
    HeaderKey,
    LanguageCode,
    Words,
)
from safehold.trust.text import is_hidden

_SECRETS = ("API key", "Key of the server")
_ADDRESSES = ("URL that", "Base URL of the model", "Base URL of an OpenAI", "by its OpenAI")


def _parameters(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Parameter]]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            one = command.get_command(context, name)
            assert one is not None
            yield from _parameters(one, (*path, name))
        return
    for parameter in command.params:
        yield " ".join((*path, parameter.opts[0])), parameter


_ALL = dict(_parameters(safehold))


def _kinds(parameter: click.Parameter) -> tuple[click.ParamType, ...]:
    kind = parameter.type
    return tuple(kind.types) if isinstance(kind, click.Tuple) else (kind,)


def _help(parameter: click.Parameter) -> str:
    return (parameter.help or "") if isinstance(parameter, click.Option) else ""


def test_no_option_takes_a_number_that_is_none() -> None:
    """Every option with a fraction, in every command, refuses `nan` and infinities."""
    plain = [
        name
        for name, parameter in _ALL.items()
        for kind in _kinds(parameter)
        if isinstance(kind, click.types.FloatParamType) and not isinstance(kind, Finite)
    ]
    assert plain == []
    assert sum(isinstance(one.type, Finite) for one in _ALL.values()) > 40


def test_no_whole_number_is_without_bounds() -> None:
    """Every whole number, in every command, has two ends, within what a database can keep."""
    unbounded = [
        name
        for name, parameter in _ALL.items()
        for kind in _kinds(parameter)
        if isinstance(kind, click.types.IntParamType)
        and not (
            isinstance(kind, click.IntRange)
            and kind.min is not None
            and kind.max is not None
            and -(2**63) <= kind.min <= kind.max < 2**63
        )
    ]
    assert unbounded == [], "give it a type of `cli/_values.py`"
    moments = [name for name, one in _ALL.items() if "POSIX" in _help(one)]
    assert len(moments) > 8
    assert [name for name in moments if _ALL[name].type is not POSIX_S] == []


def test_options_of_one_name_and_help_are_declared_once_for_generators() -> None:
    """`synth` and `up` say and take the same of what they ask a model with."""
    for name in ("seed", "seeds", "generator-model", "generator-key", "temperature", "timeout"):
        one, other = _ALL[f"synth --{name}"], _ALL[f"up --{name}"]
        assert one.to_info_dict() == other.to_info_dict(), name


def test_every_seed_is_one_that_every_generator_of_numbers_takes() -> None:
    """A seed that counts has one type in all commands."""
    seeds = {name: one for name, one in _ALL.items() if one.opts[0] == "--seed"}
    other = [name for name, one in seeds.items() if one.type is not SEED]
    assert other == ["bounty freeze --seed"], "a secret text, and no number"


def test_every_key_that_is_sent_can_stand_in_a_header() -> None:
    """Options that take a server's key itself, not a file of it, have the type for it."""
    sent = {
        name: one
        for name, one in _ALL.items()
        if any(said in _help(one) for said in _SECRETS)
        or (
            str(one.envvar or "").endswith("_KEY")
            and isinstance(one.type, (click.types.StringParamType, HeaderKey))
        )
    }
    assert len(sent) >= 6
    assert [name for name, one in sent.items() if not isinstance(one.type, HeaderKey)] == []


def test_every_language_and_address_has_its_type() -> None:
    """Options for a language, and for a model's address, have the types for them."""
    languages = {name: one for name, one in _ALL.items() if one.opts[0] == "--language"}
    assert len(languages) >= 2
    assert all(isinstance(one.type, LanguageCode) for one in languages.values())
    named = {
        name: one
        for name, one in _ALL.items()
        if one.opts[0] in {"--generator", "--judge", "--upstream"}
    }
    assert len(named) >= 8
    assert [name for name, one in named.items() if not isinstance(one.type, Address)] == []


_TYPED = {"--reason", "--why", "--note", "--purpose", "--ticket", "--consent"}
_TYPED |= {"--by", "--as", "--owner", "--reporter", "--confirmed-by", "person"}


def test_every_text_that_people_type_for_people_is_words() -> None:
    """Reasons, notes and names have one type with one rule, in all commands."""
    typed = {name: one for name, one in _ALL.items() if one.opts[0] in _TYPED}
    assert len(typed) > 60
    assert [name for name, one in typed.items() if not isinstance(one.type, Words)] == []


@given(st.text(max_size=410), st.sampled_from([SENTENCE, WHO]))
def test_words_are_one_visible_line_within_bounds(text: str, kind: Words) -> None:
    """What is let through is as it was typed, visible, not blank and within bounds."""
    try:
        taken = kind.convert(text, None, None)
    except click.BadParameter as refused:
        taken, text = "", refused.message
    assert not any(is_hidden(one) for one in text)
    if taken:
        assert taken == text
        assert text.strip()
        assert len(text) <= kind.most


@given(st.text(alphabet="Ab ž日本語-.'", min_size=1, max_size=120).filter(str.strip))
def test_words_of_every_script_are_taken(text: str) -> None:
    """Names and reasons of people everywhere are taken."""
    assert WHO.convert(text, None, None) == text


@given(st.one_of(st.floats(), st.text(), st.integers()))
def test_a_number_is_finite_and_within_its_range(value: object) -> None:
    """Whatever comes, what is let through is a finite number of the range."""
    try:
        good = 0 <= float(value) < 1  # type: ignore[arg-type]
    except ValueError:
        good = False
    kind = Finite(0, 1, max_open=True)
    if good:
        assert kind.convert(value, None, None) == float(value)  # type: ignore[arg-type]
        return
    with pytest.raises(click.BadParameter, match=r"(?s)expected .*, got ") as caught:
        kind.convert(value, None, None)
    assert "\n" not in caught.value.message


@given(st.text(), st.characters(max_codepoint=0x20), st.text())
def test_a_key_that_breaks_a_header_is_refused_unshown(before: str, bad: str, after: str) -> None:
    """No control character or space is let through, and no message repeats the key."""
    key = "s3cret-" + before + bad + after
    with pytest.raises(click.BadParameter) as caught:
        HeaderKey().convert(key, None, None)
    assert "s3cret" not in caught.value.message
    assert "\n" not in caught.value.message


_SYNTH = ["synth", "--constitution", "soap", "--out", "d", "--generator", "http://127.0.0.1:9/v1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*_SYNTH, "--timeout", "nan"], "expected a finite number (x>0.0), got 'nan'"),
        ([*_SYNTH, "--temperature", "inf"], "expected a finite number (0<=x<=5), got 'inf'"),
        ([*_SYNTH, "--temperature", "warm"], "expected a finite number (0<=x<=5), got 'warm'"),
        ([*_SYNTH, "--price", "nan", "1"], "expected a finite number (x>=0.0), got 'nan'"),
        ([*_SYNTH, "--language", "English, please"], "expected the code of a language"),
        ([*_SYNTH, "--language", "en,de"], "give --language again"),
        ([*_SYNTH, "--generator-key", "a\nb"], "got a line break as number 2 of 3"),
        ([*_SYNTH, "--generator", "http://a b/v1"], "without spaces"),
        ([*_SYNTH, "--generator", "gpt"], "http or https address, got 'gpt'"),
        ([*_SYNTH, "--seed", "-1"], "-1 is not in the range"),
        (["up", "soap", "--timeout", "-inf"], "expected a finite number (x>0.0), got '-inf'"),
        (["up", "soap", "--generator", "localhost:8000"], "`embedded` or an http or https"),
        (["up", "soap", "--upstream", "model"], "expected `local`, `hf:` or an http or https"),
        (["train", "--data", ".", "--out", "b", "--alpha", "2"], "expected a number (0<x<1)"),
        (["train", "--data", ".", "--out", "b", "--seed", "9" * 30], "is not in the range"),
        (["calibrate", "b", "--out", "c", "--alpha", "nan"], "expected a finite number"),
        (["eval", "b", "--data", ".", "--judge", "file:///etc/passwd"], "http or https address"),
        (["eval", "b", "--data", ".", "--judge-key", "k\r\nx: y"], "got a line break"),
        (["serve", "--upstream", "http://a b/"], "without spaces"),
        (["synth", "--out", "d", "--rounds", "9" * 30], "is not in the range"),
        (["respond", "variants", "--case", "c", "--count", "9" * 30], "is not in the range"),
        (["report", "stale", "--at", "9" * 30], "is not in the range"),
        (["review", "open", "sample", "d-1", "--by", " "], "1 to 120 visible characters, got none"),
        (["review", "show", "1", "ann", "--reason", "a\nb"], "got U+000A as number 2"),
        (["monitor", "close", "k", "--by", "a" * 121], "1 to 120 visible characters, got 121"),
        (["intel", "export", "--by", "a\u202eb"], "got U+202E as number 2"),
        (["respond", "trial", "back", "--as", "\x1b[2J"], "got U+001B as number 1"),
        (["bounty", "reject", "1", "ann", "--why", "a" + "\u0301" * 9], "marks piled up"),
        (["serve", "--upstream", "http://:80/"], "or an http or https address, got"),
    ],
)
def test_bad_values_are_one_line_with_their_option(words: list[str], said: str) -> None:
    """What came, what was expected and the option stand in one line; exit status 2."""
    result = CliRunner().invoke(safehold, words)
    assert result.exit_code == 2
    last = result.output.strip().rsplit("\n", 1)[-1]
    assert last.startswith("Error: Invalid value for '--")
    assert said in last


@pytest.mark.parametrize("code", ["en", "de", "zh-Hant", "sr-Latn-RS", "fil"])
def test_codes_of_languages_are_taken(code: str) -> None:
    """A code with a script or a region is one as a lexicon has it."""
    assert LanguageCode().convert(code, None, None) == code


def test_names_and_prefixes_stand_in_place_of_an_address() -> None:
    """`local`, `hf:PATH` and addresses are taken as they are given."""
    kind = Address("local", prefixes=("hf:",))
    for text in ("local", "hf:models/m y", "http://[::1]:8000/v1", "https://api.example/v1"):
        assert kind.convert(text, None, None) == text
