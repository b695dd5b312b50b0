"""A prompted judge: the constitution in the prompt of any OpenAI-compatible model."""

from safehold.guard.scorers.judge.framing import Framing, Verdict
from safehold.guard.scorers.judge.judge import JudgeAwayError, JudgeSettings, PromptedJudge

__all__ = ["Framing", "JudgeAwayError", "JudgeSettings", "PromptedJudge", "Verdict"]
