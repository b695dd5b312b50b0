"""Settings of several upstreams: their names, and which of them a model's requests go to."""

import re

import msgspec

from safehold.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_SHARE = 1000
MAX_RETRIES = 5


class NamedUpstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model server beside `upstream`; a client's own key is never sent to it."""

    url: str
    api_key_file: str | None = None


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where requests go: a named upstream, the model's name there, and its share of the traffic.

    Raises:
        ConfigError: The share is out of range.
    """

    upstream: str
    model: str | None = None
    share: int = 1

    def __post_init__(self) -> None:
        """Refuse a share that is none.

        Raises:
            ConfigError: It is out of range.
        """
        if not 0 <= self.share <= MAX_SHARE:
            raise ConfigError(f"routes: share: expected 0 to {MAX_SHARE}")


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to requests for some models; `*` in a name stands for any letters.

    `to` share the traffic; `retries` more attempts go to them while they fail before an answer
    began, then each of `fallbacks` is tried once.

    Raises:
        ConfigError: There is nowhere to go, or a number is out of range.
    """

    models: tuple[str, ...]
    to: tuple[Target, ...]
    fallbacks: tuple[Target, ...] = ()
    retries: int = 1

    def __post_init__(self) -> None:
        """Refuse a route that leads nowhere.

        Raises:
            ConfigError: See the class.
        """
        if not self.models or not self.to:
            raise ConfigError("routes: expected at least one model and one target")
        if not any(target.share for target in self.to):
            raise ConfigError("routes: expected a target with a share above 0")
        if not 0 <= self.retries <= MAX_RETRIES:
            raise ConfigError(f"routes: retries: expected 0 to {MAX_RETRIES}")


def check_routes(upstreams: dict[str, NamedUpstream], routes: tuple[Route, ...]) -> None:
    """Refuse names that nothing has, or that something else has.

    Raises:
        ConfigError: A target names no upstream, a model has two routes, or a name is none.
    """
    for name in upstreams:
        if _NAME.fullmatch(name) is None:
            raise ConfigError("upstreams: expected names of up to 64 of A-Z, a-z, 0-9 and ._-")
    models = [model for route in routes for model in route.models]
    if len(set(models)) != len(models):
        raise ConfigError("routes: a model has two routes")
    for route in routes:
        for target in (*route.to, *route.fallbacks):
            if target.upstream not in upstreams:
                raise ConfigError(f"routes: {target.upstream} is no name of an upstream")
