"""Labelled files: what is read, and what is refused with one clear error."""

from collections.abc import Callable
from pathlib import Path

import pytest

from safehold.errors import DataError
from safehold.exchange import Role
from safehold.improve.evaluation.interface import Label
from safehold.improve.evaluation.items import NEUTRAL, data_files, read_items

Write = Callable[..., Path]
GOOD = {"text": "hello there", "label": "benign"}
SECRET = "very private words"


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "' + SECRET + '", "label": "benign"',
        '["' + SECRET + '"]',
        '{"text": "' + SECRET + '"}',
        '{"text": "' + SECRET + '", "label": "odd"}',
        '{"text": 5, "label": "benign"}',
        '{"text": "   ", "label": "benign"}',
        '{"messages": [], "label": "benign"}',
        '{"messages": [{"role": "pope", "content": "' + SECRET + '"}], "label": "benign"}',
        '{"messages": [{"role": "user", "content": ["' + SECRET + '"]}], "label": "benign"}',
    ],
)
def test_malformed_line_is_named_and_never_quoted(write_lines: Write, line: str) -> None:
    """A bad line gives an error with file and line number, and none of its content."""
    folder = write_lines("a.jsonl", GOOD, line)
    with pytest.raises(DataError, match=r"a\.jsonl, line 2") as caught:
        read_items(folder / "a.jsonl", "homebrewing")
    assert SECRET not in str(caught.value)


def test_invalid_utf8_is_named(write_lines: Write) -> None:
    """Bytes that are no UTF-8 give the same kind of error."""
    folder = write_lines("a.jsonl", GOOD)
    (folder / "a.jsonl").write_bytes(b'{"text": "\xff\xfe", "label": "benign"}\n')
    with pytest.raises(DataError, match="line 1"):
        read_items(folder / "a.jsonl", "homebrewing")


def test_empty_file_refuses(write_lines: Write) -> None:
    """A file without items is an error, never a report about nothing."""
    folder = write_lines("a.jsonl", "")
    with pytest.raises(DataError, match="empty file"):
        read_items(folder / "a.jsonl", "homebrewing")


def test_folder_with_network_data_only_refuses(write_lines: Write) -> None:
    """A folder whose every file is skipped has nothing to score."""
    folder = write_lines("net_dns.jsonl", GOOD)
    with pytest.raises(DataError, match="came none"):
        data_files(folder)


def test_network_data_is_skipped_by_name(labelled: Path) -> None:
    """Files of network data are left out and named."""
    paths, skipped = data_files(labelled)
    assert skipped == ("net_dns.jsonl",)
    assert all(not path.name.startswith("net_") for path in paths)


def test_line_separators_inside_a_text_do_not_cut_its_line(write_lines: Write) -> None:
    """A Unicode line separator in a text is not the end of a JSON line."""
    folder = write_lines("a.jsonl", '{"text": "one\u2028two\x85three", "label": "benign"}')
    (item,) = read_items(folder / "a.jsonl", "homebrewing").items
    assert item.reply == "one\u2028two\x85three"


def test_another_domains_texts_are_permitted(write_lines: Write) -> None:
    """What is restricted under the soap constitution is benign to a brewing bundle."""
    line = {"text": "stir the lye", "label": "restricted"}
    folder = write_lines("standin_soap_domain.jsonl", line)
    path = folder / "standin_soap_domain.jsonl"
    assert read_items(path, "homebrewing").items[0].label is Label.OTHER_DOMAIN
    assert read_items(path, "soap").items[0].label is Label.RESTRICTED


def test_answer_is_scored_under_its_own_question(write_lines: Write) -> None:
    """A conversation that ends with an answer is a reply, and a restricted label is about that."""
    said = [
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": "mash the malt"},
    ]
    folder = write_lines("a.jsonl", {"messages": said, "label": "restricted"})
    (item,) = read_items(folder / "a.jsonl", "homebrewing").items
    assert item.reply == "mash the malt"
    assert [turn.role for turn in item.before.turns] == [Role.USER]
    assert not item.asks


def test_plain_text_answers_a_neutral_prompt(write_lines: Write) -> None:
    """A text without a conversation is shown as a reply to a prompt that says nothing."""
    folder = write_lines("a.jsonl", GOOD)
    (item,) = read_items(folder / "a.jsonl", "homebrewing").items
    assert item.before == NEUTRAL
    assert item.asks


def test_limit_takes_items_from_the_whole_file(write_lines: Write) -> None:
    """A limit spreads over the file, so that a sorted file is not cut to its first slice."""
    folder = write_lines("a.jsonl", *({"text": f"n{n}", "label": "benign"} for n in range(100)))
    items = read_items(folder / "a.jsonl", "homebrewing", limit=4).items
    assert [item.reply for item in items] == ["n0", "n25", "n50", "n75"]
