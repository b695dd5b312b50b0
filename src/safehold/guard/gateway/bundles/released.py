"""Enforcing mode: what the log did not release does not load, swap or roll back."""

from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.errors import BundleError, ConfigError, TrustError
from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.bundles.swap import LoadedBundle, Loader
from safehold.guard.gateway.bundles.trial_file import TrialPlan
from safehold.guard.gateway.policy import Settings
from safehold.trust.release.interface import ArtefactKind
from safehold.trust.release.weaker import settings_document
from safehold.trust.released.follow import ReleaseLog
from safehold.trust.released.interface import ReleaseSettings

UNRELEASED = "UnsafeUnreleased"
"""The mode of a gateway that names no log: any bundle with a trusted signature loads."""


class Releases(ReleaseLog):
    """The releases of this gateway's channel."""

    def admit_guard(self, held: Held) -> None:
        """Refuse a guard that the release in force does not hold.

        Raises:
            BundleError: it is not released, or no release is in force.
        """
        rules = held.name.endswith((".yaml", ".yml"))
        kind = ArtefactKind.RULES if rules else ArtefactKind.BUNDLE
        try:
            self.current().admit(kind, held.digest)
        except TrustError as error:
            raise BundleError(f"not released: {error}") from error

    def admit_trial(self, plan: TrialPlan) -> None:
        """Refuse a step of a trial that the release in force does not hold.

        Raises:
            TrustError: it is another step, or no release is in force.
        """
        self.admit_settings(ArtefactKind.TRIAL, plan)

    def admit_gateway(self, settings: msgspec.Struct) -> None:
        """Refuse settings that are not those of the release in force.

        Raises:
            TrustError: they differ, or no release is in force.
        """
        self.admit_settings(ArtefactKind.GATEWAY, settings)


def settings_digest(settings: msgspec.Struct) -> str:
    """Return the digest under which a release holds these settings."""
    return sha256_hex(canonical(settings_document(settings)))


def enforced(settings: Settings) -> ReleaseSettings | None:
    """Return where releases come from, if this gateway names an enclave's log at all.

    Raises:
        ConfigError: a part names a log, and there is no part `releases`; or hot rules name none.
    """
    states = settings.account_states
    named = "exemptions" if settings.exemptions is not None else None
    if states is not None and states.log is not None:
        named = named or "account_states"
    if settings.class_switches is not None:
        named = named or "class_switches"
    if settings.releases is None and named is not None:
        raise ConfigError(
            f"{named} names an enclave's log, so this gateway enforces its releases: expected a "
            "part `releases` (docs/change.md)"
        )
    rules = settings.hot_rules
    if settings.releases is not None and rules is not None and rules.log is None:
        raise ConfigError(
            "hot_rules: this gateway enforces releases, so a rule acts by a grant in the log: "
            "expected log and log_keys (docs/response.md)"
        )
    return settings.releases


class ReleasedLoader:
    """A loader that gives only released guards."""

    def __init__(self, inner: Loader, releases: Releases) -> None:
        """Take the loader that verifies signatures, and the releases."""
        self._inner = inner
        self._releases = releases

    def __call__(self, path: Path) -> LoadedBundle:
        """Load, then look at the digest of what was loaded, so that nothing changes in between.

        Raises:
            BundleError: it does not verify, or it is not released.
        """
        loaded = self._inner(path)
        try:
            self._releases.admit_guard(loaded.held)
        except BundleError:
            loaded.held.retire()
            raise
        return loaded
