"""Which of a vendor's beta features a client may ask for, by name without the date.

None of these runs a tool at the vendor or reads text that is not in the request; a beta that is not
here is dropped. Source: Anthropic's beta headers page and what Claude Code sends.
"""

import re

ALLOWED = frozenset(
    {
        "adaptive-thinking",
        "advanced-tool-use",
        "claude-code",
        "computer-use",
        "context-1m",
        "context-management",
        "dev-full-thinking",
        "effort",
        "extended-cache-ttl",
        "fast-mode",
        "fine-grained-tool-streaming",
        "interleaved-thinking",
        "model-context-window-exceeded",
        "oauth",
        "output-128k",
        "prompt-caching",
        "prompt-caching-scope",
        "structured-outputs",
        "token-counting",
        "token-efficient-tools",
        "tool-examples",
    }
)
_BETA = re.compile(r"([a-z0-9-]{1,60}?)-20\d\d-?\d\d-?\d\d")


def allowed_betas(header: str) -> str:
    """Return the allowed names of an `anthropic-beta` header, joined by commas."""
    names = [name.strip() for name in header.split(",")]
    found = [(name, _BETA.fullmatch(name)) for name in names]
    return ",".join(name for name, match in found if match and match.group(1) in ALLOWED)
