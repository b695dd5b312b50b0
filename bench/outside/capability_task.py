"""The staged tasks as a task of Inspect, scored by the very rubric of `safehold capability run`.

Needs `inspect-ai`, and Safehold on the path. The log that Inspect writes is read back by
`safehold capability import-eval`, with our own reader. With OpenAI-shaped servers:
`inspect eval bench/outside/capability_task.py --model openai-api/local/any -T elicitation=expert`.
"""

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import TaskState, generate

from safehold.govern.capability.interface import SampleOutcome, StagedTask
from safehold.govern.capability.run import ELICITATIONS, stock_suite
from safehold.govern.capability.score import score_reply

UNSCORABLE = "unscorable"
"""Neither right nor wrong: our reader counts it apart, and a rule-out counts it as solved."""


@scorer(metrics=[accuracy()])
def rubric(suite: str, elicitation: str) -> Scorer:
    """Score a reply by the task's rubric."""
    known: dict[str, StagedTask] = {one.id: one for one in stock_suite(suite).task}

    async def score(state: TaskState, target: Target) -> Score:
        del target
        found = score_reply(
            known[str(state.sample_id)], elicitation, state.epoch, state.output.completion
        )
        values = {SampleOutcome.SUCCESS: CORRECT, SampleOutcome.FAILURE: INCORRECT}
        return Score(
            value=values.get(found.outcome, UNSCORABLE),
            explanation=f"met: {', '.join(found.met)}; missed: {', '.join(found.missed_critical)}",
        )

    return score


@task
def staged(suite: str = "homebrewing", elicitation: str = "plain") -> Task:
    """Put each staged task to the model, drawn out in one way."""
    samples = [
        Sample(
            id=one.id,
            input=ELICITATIONS[elicitation].format(prompt=one.prompt),
            metadata={"stage": one.stage},
        )
        for one in stock_suite(suite).task
    ]
    return Task(
        dataset=MemoryDataset(samples, name=suite),
        solver=generate(),
        scorer=rubric(suite, elicitation),
    )
