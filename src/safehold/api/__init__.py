"""What a program may import: guards, logs, sealed weights. `import safehold` shows these names."""

from safehold.api.guarding import AsyncReply, LoadedGuard, OpenReply, Prompt, load_guard
from safehold.api.logs import LogFinding, verify_log
from safehold.api.weights import open_weights
from safehold.errors import BlockedError, SafeholdError
from safehold.guard.interface import Allow, Block, DeliveryMode, SessionPolicy, Verdict

__all__ = [
    "Allow",
    "AsyncReply",
    "Block",
    "BlockedError",
    "DeliveryMode",
    "LoadedGuard",
    "LogFinding",
    "OpenReply",
    "Prompt",
    "SafeholdError",
    "SessionPolicy",
    "Verdict",
    "load_guard",
    "open_weights",
    "verify_log",
]
