"""The bench's one regular expression as a LiteLLM custom guardrail, as its documentation has it.

LiteLLM finds it beside its configuration: `guardrail: litellm_rule.Rule`.
"""

import re

from litellm.integrations.custom_guardrail import CustomGuardrail

STREAMING = (
    "streaming_buffer_until_moderated",
    "streaming_buffer_release_on_scan",
    "streaming_sampling_rate",
)
PATTERN = re.compile("purple elephant protocol", re.IGNORECASE)


class Rule(CustomGuardrail):
    """Refuses a text that holds the marker."""

    def __init__(self, **options):  # noqa: ANN003, ANN204 - LiteLLM's own
        """Take LiteLLM's options; it reads those of streaming from the guardrail's attributes."""
        super().__init__(**options)
        for name in STREAMING:
            if name in options:
                setattr(self, name, options[name])

    async def apply_guardrail(self, inputs, request_data, input_type, logging_obj=None):  # noqa: ANN001, ANN201, ARG002 - LiteLLM's own
        """Raise if any text matches; else return the texts as they are."""
        for text in inputs.get("texts", []):
            if PATTERN.search(text):
                raise ValueError("blocked by the rule")
        return inputs
