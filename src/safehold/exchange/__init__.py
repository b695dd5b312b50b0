"""The exchange: turns, typed parts and channels, and decoded views of obfuscated text."""

from safehold.exchange.interface import (
    Channel,
    Exchange,
    Lane,
    OpaquePart,
    Part,
    Role,
    TextPart,
    Turn,
    user_says,
)

__all__ = [
    "Channel",
    "Exchange",
    "Lane",
    "OpaquePart",
    "Part",
    "Role",
    "TextPart",
    "Turn",
    "user_says",
]
