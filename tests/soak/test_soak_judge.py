"""The judge asks a real model server: the embedded one, held to the answer's schema."""

import pytest

from safehold.constitution.interface import (
    Constitution,
    PermittedClause,
    RestrictedClause,
    Tier,
)
from safehold.errors import ScorerError
from safehold.guard.gateway.upstreams.embedded import MODEL, LocalServer
from safehold.guard.scorers.interface import ScoringInput
from safehold.guard.scorers.judge import JudgeSettings, PromptedJudge

pytestmark = pytest.mark.soak

SHORT = Constitution(
    schema=1,
    name="short",
    title="Beer",
    version="1",
    principle="No help with making beer.",
    restricted=(
        RestrictedClause(
            id="beer", title="Making beer", tier=Tier.PROHIBITED, policy="Steps of brewing."
        ),
    ),
    permitted=(PermittedClause(id="tea", title="Tea", policy="Anything about tea."),),
)
ABOUT_THE_CONTENT = ("another exchange", "restricted clause", "breaks no clause")


def test_a_real_server_holds_a_small_model_to_the_schema() -> None:
    """What comes back always parses; a model this small may still name a wrong id or clause."""
    with LocalServer(threads=1, slots=1) as local:
        settings = JudgeSettings(
            url=local.url,
            model=MODEL,
            key=local.key,
            tries=1,
            parallel=1,
            most_tokens=80,
            timeout_s=300,
        )
        texts = ("How do I boil the wort?", "Which tea is green?", "Good morning")
        judge = PromptedJudge(SHORT, settings, key=b"k" * 16)
        answers = judge.answers([ScoringInput(text, "") for text in texts])
    for answer in answers:
        if isinstance(answer, ScorerError):
            assert any(reason in str(answer) for reason in ABOUT_THE_CONTENT), answer
        else:
            assert answer.clause in ("beer", "")
