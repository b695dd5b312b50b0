"""Tools that a request offers: those that the client runs pass, those that the vendor runs do not.

What a client-run tool is asked and answers goes through the guard like any text. A tool that the
vendor runs reads and answers past it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from safehold.guard.gateway.interface import Rules, UnsupportedError
from safehold.guard.gateway.protocols.unknown_fields import Strainer

Tool = dict[str, Any]

_MESSAGES = ("bash_", "text_editor_", "memory_", "computer_")
_RESPONSES = (
    "function",
    "custom",
    "local_shell",
    "apply_patch",
    "computer",
    "computer_use_preview",
    "computer-preview",
)


def runs_at_chat_client(tool: Tool) -> bool:
    """Whether a tool of Chat Completions is run by the client; routers add ones that they run."""
    return tool.get("type", "function") in ("function", "custom")


def runs_at_messages_client(tool: Tool) -> bool:
    """Whether a tool of Messages is run by the client; the vendor names the others' types.

    Source: the tool reference of Anthropic's documentation (client tools, server tools).
    """
    kind = tool.get("type")
    return kind in (None, "custom") or (isinstance(kind, str) and kind.startswith(_MESSAGES))


def runs_at_responses_client(tool: Tool) -> bool:
    """Whether a tool of Responses is run by the client.

    Source: the tool types of the `openai` SDK, and what Codex sends (namespaces of functions).
    """
    kind = tool.get("type")
    if kind == "namespace":
        inner = tool.get("tools")
        return isinstance(inner, list) and all(
            isinstance(one, dict) and runs_at_responses_client(one) for one in inner
        )
    if kind == "shell":
        environment = tool.get("environment")
        return environment is None or (
            isinstance(environment, dict) and environment.get("type") == "local"
        )
    if kind == "tool_search":
        return tool.get("execution") == "client"
    return kind in _RESPONSES


def client_tools(
    tools: Sequence[Tool] | None,
    choice: Any,
    runs_here: Callable[[Tool], bool],
    rules: Rules,
    strainer: Strainer,
) -> list[Tool] | None:
    """Return the tools that go on; one that the vendor runs is left out, counted, or refused.

    It is refused by policy, where nothing else is offered, and where `choice` asks for it: then
    the client counts on it.

    Raises:
        UnsupportedError: A tool that the vendor runs was refused.
    """
    if tools is None:
        return None
    kept = [tool for tool in tools if runs_here(tool)]
    away = [tool for tool in tools if not runs_here(tool)]
    if not away:
        return kept
    names = {str(tool.get(key)) for tool in away for key in ("type", "name") if tool.get(key)}
    if rules.vendor_tools == "refuse" or not kept or _names(choice) & names:
        kind = str(away[0].get("type"))
        shown = f"`{kind}`" if kind.replace("_", "").isalnum() and kind.isascii() else "one"
        raise UnsupportedError(
            f"tools: {shown[:42]} is a tool that the vendor runs, past the guard; leave it out "
            "(`rules.vendor_tools: drop` leaves it out where the client runs other tools)"
        )
    strainer.dropped += len(away)
    return kept


def _names(choice: Any) -> set[str]:
    """Return every type and name that a tool choice asks for."""
    if not isinstance(choice, dict):
        return set()
    asked = [choice, *(one for one in choice.get("tools") or () if isinstance(one, dict))]
    return {str(one[key]) for one in asked for key in ("type", "name") if one.get(key)}
