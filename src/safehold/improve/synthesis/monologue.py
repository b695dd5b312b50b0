"""What a model says to itself before it answers, taken off: reasoning is no message and no reply.

Models mark it in several ways: `<think>` and its kin, `[THINK]` (Mistral), `◁think▷` (Kimi),
`<|START_THINKING|>` (Cohere), `<|begin_of_thought|>`, and the channels of gpt-oss. The opening mark
may stand in the prompt, so that the answer has the closing one alone.
"""

import re

_NAMES = r"think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad"
_BEFORE = r"(?:[a-z0-9.]+[:_-])*"
_MARK = re.compile(
    rf"<(?P<tag>/?){_BEFORE}(?:{_NAMES})(?:[_-](?:process|block|trace|content))?(?:\s[^<>]*)?>"
    rf"|<\|(?P<special>/?(?:[a-z]+_)*)(?:{_NAMES})\|>"
    r"|\[(?P<square>/?)think(?:ing)?\](?!\()"
    r"|\u25c1(?P<kimi>/?)think(?:ing)?\u25b7"
    r"|(?:<\|start\|>assistant)?<\|channel\|>\s*(?P<channel>analysis|commentary|final)\b"
    r"[^<]{0,80}<\|message\|>",
    re.IGNORECASE,
)
_ENDS = ("/", "end_", "final")


def spoken(answer: str) -> str | None:
    """Return an answer without the model's reasoning; None where that never ends.

    Blocks go wherever they stand. What is before a closing mark without an opening one is
    reasoning too; what follows an opening mark that is never closed is not known to be an answer.
    """
    said: list[str] = []
    at, inside = 0, False
    for mark in _MARK.finditer(answer):
        ends = next(one for one in mark.groups() if one is not None).casefold().startswith(_ENDS)
        if not inside:
            said = [] if ends else [*said, answer[at : mark.start()]]
        at, inside = mark.end(), not ends
    return None if inside else "".join((*said, answer[at:]))
