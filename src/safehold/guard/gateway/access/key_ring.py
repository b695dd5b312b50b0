"""Which keys are let in: those of the configuration, and those of the admin API beside them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from safehold.errors import TrustError
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.key_settings import Tenant, moment
from safehold.guard.gateway.model_names import named
from safehold.guard.gateway.policy import Key


class Former(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The digest that a key had before it was rotated, and until when it still opens."""

    sha256: str
    until: float


class KeyRing:
    """Keys by digest, and the tenants that they belong to. Without client keys no key is needed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take the clock by which keys run out."""
        self._clock = clock
        self._configured: tuple[Key, ...] = ()
        self._managed: dict[str, Key | None] = {}
        self._former: dict[str, Former] = {}
        self._tenants: dict[str, Tenant] = {}
        self._shared_tenants: dict[str, Tenant] = {}
        self._blocked: frozenset[str] = frozenset()
        self._sort()

    def use(self, keys: Sequence[Key], tenants: Mapping[str, Tenant]) -> None:
        """Take the configuration's keys and tenants, in the place of those before."""
        self._configured = tuple(keys)
        self._tenants = dict(tenants)
        self._sort()

    def manage(self, keys: Mapping[str, Key | None], former: Mapping[str, Former]) -> None:
        """Take the keys of the admin API, by id; None is a key that was revoked.

        A revoked id stays out though the configuration names it, and so does the digest that it
        had before. A managed key never takes the place of a configured one, and never opens the
        admin API.
        """
        self._managed = dict(keys)
        self._former = dict(former)
        self._sort()

    def manage_tenants(self, tenants: Mapping[str, Tenant], blocked: Sequence[str]) -> None:
        """Take the tenants of the admin API; those of the configuration stay as they are."""
        self._shared_tenants = dict(tenants)
        self._blocked = frozenset(blocked)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key that is let in, one that has run out too."""
        return (*(key for key, _ in self._clients.values()), *self._admins.values())

    @property
    def tenants(self) -> dict[str, Tenant]:
        """Every tenant that has bounds, by name."""
        return self._shared_tenants | self._tenants

    @property
    def blocked(self) -> frozenset[str]:
        """The tenants none of whose keys is let in."""
        return self._blocked

    @property
    def needed(self) -> bool:
        """Whether clients must show a key."""
        return self._closed

    def configured(self, name: str) -> bool:
        """Say whether the configuration has a key of this id."""
        return any(key.id == name for key in self._configured)

    def configured_tenant(self, name: str) -> bool:
        """Say whether the configuration bounds this tenant."""
        return name in self._tenants

    def client(self, token: str | None) -> Key | None:
        """Return whose key this is; None where none is needed.

        Raises:
            TrustError: A key is needed, and this is none, or one that ran out.
        """
        if not self._closed:
            return None
        digest = _digest(token)
        key, until = self._clients.get(digest) or self._rotated.get(digest) or (None, None)
        if key is None:
            raise TrustError(
                "expected a valid API key in `Authorization: Bearer` or `x-api-key`, came "
                + ("another" if token else "none")
            )
        if until is not None and self._clock() >= until:
            raise TrustError("expected a valid API key; this one has run out")
        return key

    def admin(self, token: str | None) -> Key:
        """Return the administrator whose key this is.

        Raises:
            TrustError: It is no administrator's, or one that ran out.
        """
        key = self._admins.get(_digest(token))
        if key is None:
            raise TrustError("expected an administrator's key")
        if key.expires_at is not None and self._clock() >= moment(key.expires_at):
            raise TrustError("expected an administrator's key; this one has run out")
        return key

    def tenant(self, key: Key) -> Tenant:
        """Return the bounds of a key's tenant; one without an entry has none."""
        return self._tenants.get(key.tenant) or self._shared_tenants.get(key.tenant) or _UNBOUND

    def may_use(self, key: Key, surface: Surface) -> bool:
        """Whether a key, and its tenant, may use a surface."""
        return all(not of or surface in of for of in (key.surfaces, self.tenant(key).surfaces))

    def may_ask(self, key: Key | None, model: str) -> bool:
        """Whether a key, and its tenant, may ask for a model."""
        if key is None:
            return True
        return named(model, key.models) and named(model, self.tenant(key).models)

    def _sort(self) -> None:
        own = {key.id for key in self._configured}
        given = [key for key in self._configured if self._managed.get(key.id, key) is not None]
        given += [
            key
            for name, key in self._managed.items()
            if key is not None and name not in own and not key.admin
        ]
        self._clients = {key.sha256: (key, _until(key)) for key in given if not key.admin}
        self._rotated: dict[str, tuple[Key, float | None]] = {}
        for key, until in self._clients.values():
            former = self._former.get(key.id)
            if former is not None and key.id not in own:
                bound = former.until if until is None else min(until, former.until)
                self._rotated[former.sha256] = (key, bound)
        self._admins = {key.sha256: key for key in given if key.admin}
        self._closed = any(not key.admin for key in self._configured) or bool(self._managed)


_UNBOUND = Tenant()


def _until(key: Key) -> float | None:
    return None if key.expires_at is None else moment(key.expires_at)


def _digest(token: str | None) -> str:
    return hashlib.sha256((token or "").encode("utf-8", "surrogateescape")).hexdigest()
