"""Safehold: ASL-3-style safeguards around a served language model.

Three doors, each a function. Everything that is not named here is private and may change.

**A guard around a model's text.** It loads a verified bundle and judges requests and replies:

>>> import safehold
>>> guard = safehold.load_guard()  # the stock bundle; or a folder of your own
>>> guard.check_prompt("What goes well with a bowl of soup?")
Allow(score=...)
>>> guard.check("What goes well with a bowl of soup?", "Fresh bread and a little butter.")
Allow(score=...)

While the model still writes, only text that was scored and cleared comes out:

>>> "".join(guard.stream("Name a fruit.", ["An ap", "ple ", "is one."]))
'An apple is one.'

A stop raises `BlockedError` before the text that caused it has left. `astream`, `acheck` and
`acheck_prompt` are the same for asyncio. `open_reply` is for engines that push tokens.

**A transparency log**, verified offline from a copy and public keys alone: `verify_log`.

**Sealed weights**, opened for as long as a grant of several people holds: `open_weights`.

The command line does all of this and the rest (`safehold --help`): the gateway, training, red
team, detection, grants, egress limits and the record.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safehold.api import (
        Allow,
        AsyncReply,
        Block,
        BlockedError,
        DeliveryMode,
        LoadedGuard,
        LogFinding,
        OpenReply,
        SafeholdError,
        SessionPolicy,
        Verdict,
        load_guard,
        open_weights,
        verify_log,
    )

__version__ = "0.1.0"

__all__ = [
    "Allow",
    "AsyncReply",
    "Block",
    "BlockedError",
    "DeliveryMode",
    "LoadedGuard",
    "LogFinding",
    "OpenReply",
    "SafeholdError",
    "SessionPolicy",
    "Verdict",
    "__version__",
    "load_guard",
    "open_weights",
    "verify_log",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the public name stands for
    """Import a public name when it is first used: `import safehold` alone costs nothing."""
    if name in __all__:
        return getattr(importlib.import_module("safehold.api"), name)
    raise AttributeError(f"module 'safehold' has no public name {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
