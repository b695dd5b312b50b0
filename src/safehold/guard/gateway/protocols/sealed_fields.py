"""Ciphertexts and signatures of reasoning in fields of a dialect: found by name and by shape.

Gemini's OpenAI mode puts a `thought_signature` into `extra_content` of a tool call; OpenRouter puts
`signature` and encrypted `data` into `reasoning_details`; LiteLLM has `thinking_blocks`. No scorer
reads them, so `rules.opaque_reasoning` decides, as for those of the protocols themselves.
"""

from collections.abc import Iterator
from typing import Any

from safehold.guard.gateway.protocols.json_border import IDENTIFIER, MAX_DEPTH, SEALED

_NAMES = ("thought_signature", "thoughtSignature", "signature", "encrypted_content", "encrypted")
_DATA_OF = ("reasoning.encrypted", "redacted_thinking", "encrypted")
_BESIDE = ("type", "format", "id", "index")
"""What goes with a ciphertext, so that whoever reads it knows what it is: words and a number."""
_LEAST_CHARS = 16


def _is_sealed(name: str, value: Any, kind: Any) -> bool:
    if not isinstance(value, str) or len(value) < _LEAST_CHARS:
        return False
    known = name in _NAMES or (name == "data" and kind in _DATA_OF)
    return known and SEALED.fullmatch(value) is not None


def without_sealed(value: Any, depth: int = 0) -> tuple[Any, int]:
    """Return a value without its sealed strings, and how many there were."""
    if depth > MAX_DEPTH:
        return value, 0
    found = 0
    if isinstance(value, list):
        items = [without_sealed(item, depth + 1) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    if not isinstance(value, dict):
        return value, 0
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if _is_sealed(name, item, value.get("type")):
            found += 1
            continue
        kept[name], count = without_sealed(item, depth + 1)
        found += count
    return kept, found


def only_sealed(value: Any, depth: int = 0) -> Any:
    """Return the sealed strings of a value, with what names each; None where there are none."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, list):
        items = [one for item in value if (one := only_sealed(item, depth + 1)) is not None]
        return items or None
    if not isinstance(value, dict):
        return None
    kept = {
        name: item if _is_sealed(name, item, value.get("type")) else only_sealed(item, depth + 1)
        for name, item in value.items()
    }
    kept = {name: item for name, item in kept.items() if item is not None}
    if any(isinstance(item, str) for item in kept.values()):
        kept = {name: value[name] for name in _BESIDE if _plain(value.get(name))} | kept
    return kept or None


def names_of(value: Any) -> Iterator[str]:
    """Yield the name of everything inside a value, however deep: what the depth allows is here."""
    if isinstance(value, list):
        for item in value:
            yield from names_of(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from names_of(item)


def _plain(value: Any) -> bool:
    if isinstance(value, str):
        return IDENTIFIER.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool)
