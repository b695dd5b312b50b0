"""Chat Completions as servers really write it, put into the protocol's own form.

Sources: Azure (chunks without a delta), Gemini's OpenAI mode (calls without an index), Ollama and
SGLang (arguments as an object, an index that is null), LM Studio (an empty type), Mistral (content
as a list), OpenRouter.
"""

from typing import Any

from safehold.guard.gateway.protocols.json_border import encode


def mend(value: Any) -> None:
    """Rewrite one body or event in place."""
    if value.get("choices", ()) is None:
        value["choices"] = []
    for choice in _dicts(value.get("choices")):
        if "message" not in choice and choice.get("delta") is None:
            choice["delta"] = {}
        for said in (choice.get("delta"), choice.get("message")):
            if isinstance(said, dict):
                _calls(said)
                _parts(said)


def _parts(said: dict[str, Any]) -> None:
    """Join content that comes as a list: its texts, and its thoughts as reasoning."""
    parts = said.get("content")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return
    if any(part.get("type") not in ("text", "thinking") for part in parts):
        return  # content of another kind is not read
    thoughts = [part.get("thinking") for part in parts if part["type"] == "thinking"]
    texts = [part.get("text") for part in parts if part["type"] == "text"]
    said["content"] = "".join(text for text in texts if isinstance(text, str)) or None
    told = [thought if isinstance(thought, str) else _joined(thought) for thought in thoughts]
    if told and not said.get("reasoning_content"):
        said["reasoning_content"] = "".join(told)


def _joined(thought: Any) -> str:
    texts = [part.get("text") for part in _dicts(thought)]
    return "".join(text for text in texts if isinstance(text, str))


def _calls(said: dict[str, Any]) -> None:
    calls = _dicts(said.get("tool_calls"))
    for call in calls:
        if call.get("type") in ("", None):
            call.pop("type", None)
        if call.get("index", 0) is None:
            del call["index"]
    for function in _dicts([call.get("function") for call in calls] + [said.get("function_call")]):
        if isinstance(function.get("arguments"), dict):
            function["arguments"] = encode(function["arguments"]).decode()


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
