"""The enrolment page and the verifier speak of the same keys."""

import re
from importlib.resources import files

from safehold.trust.people.passkey import TAKEN


def test_the_page_asks_for_the_keys_that_are_taken_and_no_others() -> None:
    """A key that the page asks for is never refused for its algorithm afterwards."""
    page = files("safehold.console.approvals") / "static" / "ceremony.js"
    text = page.read_text("utf-8")
    found = re.search(r"pubKeyCredParams: \[([-\d, ]+)\]", text)
    assert found is not None
    asked = [int(one) for one in found[1].split(",")]
    assert sorted(asked) == sorted(algorithm for _, algorithm, _ in TAKEN)
    said = re.search(r"signatures that are taken here \"\n\s+\+ \"\(([\w, ]+)\)", text)
    assert said is not None
    assert len(said[1].split(", ")) == len(TAKEN)
