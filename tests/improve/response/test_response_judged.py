"""A judge that remembers says what a judge says, and judges each prompt once."""

from safehold.improve.response.judged import Judge, RememberingJudge
from safehold.testing.bundles import WORDS, tiny_bundle


def test_a_remembered_verdict_is_the_verdict() -> None:
    """Asked again, the answer is the same one; other texts keep theirs."""
    bundle = tiny_bundle()
    texts = [" ".join(WORDS), "The choir meets on Tuesday.", " ".join(WORDS)]
    found = RememberingJudge(bundle).prompts(texts)
    assert found == Judge(bundle).prompts(texts)
    assert [one.blocked for one in found] == [True, False, True]
    assert found[0] is found[2]
