"""How much of a text nobody can read: neither as a language, code or data, nor under any view."""

from safehold.exchange.views.legibility.lane import LegibleLane
from safehold.exchange.views.legibility.stretches import unreadable

__all__ = ["LegibleLane", "unreadable"]
