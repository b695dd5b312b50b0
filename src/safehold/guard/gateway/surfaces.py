"""Which doors of the gateway are open."""

from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.policy import Settings


class Surfaces:
    """Which surfaces are open; a canary that passes unblocked closes its surface."""

    def __init__(self, settings: Settings) -> None:
        self._closed: dict[Surface, str] = {
            surface: "closed by configuration"
            for surface in Surface
            if settings.policy(surface, None).closed
        }

    def reason(self, surface: Surface) -> str | None:
        """Return why a surface is closed, or None while it is open."""
        return self._closed.get(surface)

    def close(self, surface: Surface, reason: str) -> None:
        """Refuse every request of a surface from now on."""
        self._closed[surface] = reason

    def open(self, surface: Surface) -> None:
        """Let requests in again."""
        self._closed.pop(surface, None)
