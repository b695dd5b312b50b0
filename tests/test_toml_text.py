"""TOML that Python's parser breaks at: malformed files of one kind, for every reader."""

import re
import tomllib
from pathlib import Path

import pytest

import safehold
from safehold.errors import SafeholdError
from safehold.govern.controls.library import read_site
from safehold.govern.report.case import read_case
from safehold.govern.standards.library import load_standards
from safehold.secure.egress.declare.plan import load_plan
from safehold.secure.egress.declare.register import load_register
from safehold.secure.endpoint.policy import read_policy
from safehold.secure.weights.providers.config import read_provider
from safehold.toml_text import parse_toml
from safehold.trust.grants.policy import load_policy
from safehold.trust.released.interface import read_release_settings

_BREAKING = {
    "deep": "a = " + "[" * 100_000,
    "deep tables": "a = " + "{b = " * 50_000,
    "long number": "a = " + "9" * 6_000,
    "malformed": "a = \n",
}


@pytest.mark.parametrize("text", _BREAKING.values(), ids=_BREAKING)
def test_what_breaks_the_parser_is_a_malformed_file(text: str, tmp_path: Path) -> None:
    """One kind of error, and one of ours from each reader, in one short line."""
    with pytest.raises(tomllib.TOMLDecodeError):
        parse_toml(text)
    path = tmp_path / "document.toml"
    path.write_text(text)
    for read in (
        load_plan,
        load_register,
        lambda one: load_policy(one.read_text()),
        lambda one: load_standards(str(one)),
        lambda one: read_case(str(one)),
        read_policy,
        read_provider,
        read_release_settings,
        read_site,
    ):
        with pytest.raises(SafeholdError) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_what_is_sound_is_read() -> None:
    """As Python reads it."""
    assert parse_toml("a = 1\n[b]\nc = [[2]]\n") == {"a": 1, "b": {"c": [[2]]}}


def test_nobody_reads_toml_otherwise() -> None:
    """Another call of the parser would be another traceback."""
    root = Path(safehold.__file__).parent
    own = re.compile(r"tomllib\.loads?\(")
    found = {one.name for one in root.rglob("*.py") if own.search(one.read_text("utf-8"))}
    assert found == {"toml_text.py"}
