"""Which doors of the gateway are open."""

from collections.abc import Callable

from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.policy import Settings


class Surfaces:
    """Which surfaces are open in this worker; a canary that passes unblocked closes its surface.

    What an administrator or a canary closes is told to all workers and hosts (`SharedState`).
    `tell` hears of each surface that opens or closes.
    """

    def __init__(
        self, settings: Settings, tell: Callable[[Surface, bool], None] = lambda *_: None
    ) -> None:
        self._tell = tell
        self._configured: dict[Surface, str] = {}
        self._closed: dict[Surface, str] = {}
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take which surfaces the configuration closes."""
        before = {surface for surface in Surface if self.reason(surface) is not None}
        self._configured = {
            surface: "closed by configuration"
            for surface in Surface
            if settings.policy(surface, None).closed
        }
        for surface in Surface:
            if (self.reason(surface) is not None) is not (surface in before):
                self._tell(surface, self.reason(surface) is not None)

    def reason(self, surface: Surface) -> str | None:
        """Return why a surface is closed, or None while it is open."""
        return self._closed.get(surface) or self._configured.get(surface)

    def close(self, surface: Surface, reason: str) -> None:
        """Refuse every request of a surface from now on."""
        self._closed[surface] = reason
        self._tell(surface, True)

    def configured(self, surface: Surface) -> bool:
        """Say whether the configuration closes a surface."""
        return surface in self._configured

    def open(self, surface: Surface) -> None:
        """Let requests in again, unless the configuration closes the surface."""
        self._closed.pop(surface, None)
        self._tell(surface, self.reason(surface) is not None)
