"""Every command of a page runs as it is printed, in the order of the page."""

from pathlib import Path

import pytest
from docs_sessions import ROOT, Session, play

_CHECKED = (
    "--checked identity --checked use-case --checked conflicts --checked least --checked licence "
    "--checked people --checked security --checked sanctions"
)

PAGES = {
    "transparency-log": Session(
        own={
            "SHA256": "$(printf drill | sha256sum | cut -c1-64)",
            "prove trust-log 7": "prove trust-log 0",
            "show trust-log 7": "show trust-log 0",
            "verify COPY": "verify trust-log",
            "witness COPY": "witness trust-log",
            '"witness.example/w1+…"': '"$(grep witness.example w1.pub | tail -1)"',
            "--init witness.example/w1": "--init witness.example/w1 >w1.pub",
            "--at-least 1000": "--at-least 1",
        },
        after={
            "safehold log list": "witnesses",
            "safehold log add-key": "cp trust-log/log.json pinned-log.json",
        },
    ),
    "constitution": Session(
        until={"safehold constitution lint glue.yaml": 1},
        left={"safehold constitution neighbours": "your-own-class.md plays it with a model"},
    ),
    "ledger": Session(
        before="kit ledger safehold-ledger.db",
        own={"DECISION_ID": "d0"},
        left={
            "safehold ledger tail -f": "it ends when its reader ends it; tests/cli reads its lines",
            "safehold ledger --ledger postgresql": "tests/guard/ledger has a real PostgreSQL",
        },
    ),
    "review": Session(
        before="kit ledger safehold-ledger.db; safehold log init trust-log --origin example.org/r",
        own={"d-3f9c2a": "d0", "show 4": "show 1", "verdict 4": "verdict 1"},
        after={
            "safehold review verdict": """
safehold review open account laptop --by ann; safehold review next bea
safehold review show 2 bea --reason look; safehold review verdict 2 bea permitted
"""
        },
        left={
            "safehold review draw": "it needs a scanned month; tests/soak plays it",
            "safehold review estimate": "the same",
        },
    ),
    "gateway": Session(
        before="model",
        own={"http://127.0.0.1:8000/v1": "$MODEL"},
        left={
            "safehold serve --upstream hf:": "gigabytes; tests/improve/probes has a small one",
            "safehold serve --upstream https://api": "nothing is asked of a vendor by a test",
        },
    ),
    "trust": Session(
        before="people; application",
        own={
            "--checked identity … --constitution": f"{_CHECKED} --constitution",
            "p-0123456789abcdef": "$(safehold people list | grep Ada | cut -d' ' -f1)",
        },
        others={"safehold grant approve": "ben"},
        after={
            "safehold grant approve": """
(HOME=$PWD/cleo; echo y | safehold grant approve $ID --ssh-key ~/.ssh/id_ed25519)
""",
            "safehold exemption tell": "safehold ledger --ledger safehold-ledger.db migrate",
            "safehold people sign": """
for who in ben cleo; do
    (HOME=$PWD/$who; safehold people sign founding.json --ssh-key ~/.ssh/id_ed25519)
done
""",
        },
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_plays_as_printed(name: str, tmp_path: Path) -> None:
    """Each line of the page does what it says, one after the other."""
    play(ROOT / "docs" / f"{name}.md", PAGES[name], tmp_path)
