"""Key providers: where the keys live that wrap data keys."""

from safehold.secure.weights.providers.config import KINDS, open_provider, read_provider

__all__ = ["KINDS", "open_provider", "read_provider"]
