"""Where the gateway's guard comes from: a verified bundle, or a file of written rules."""

import hashlib
from pathlib import Path

import msgspec

from safehold.errors import BundleError, ConfigError
from safehold.guard.bundle.interface import Golden
from safehold.guard.bundle.load import PinnedDigest, SignedBy, Trust, UnsafeUnsigned, load_bundle
from safehold.guard.bundle.signing import load_public_key
from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.bundles.swap import LoadedBundle, Loader, Probe
from safehold.guard.gateway.class_settings import GuardClass
from safehold.guard.gateway.policy import Settings
from safehold.guard.interface import Heard
from safehold.guard.scorers.interface import ActivationScorer
from safehold.guard.scorers.rules import Rule, RuleSet
from safehold.guard.scorers.similar import KnownAttack
from safehold.guard.served.interface import AttachedModel, Said
from safehold.guard.session.batching import Stage2
from safehold.guard.session.cascade import Cascade, Thresholds
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import no_stage2
from safehold.guard.session.session import Guard

_NEVER = Thresholds(escalate=100.0, weights=(1.0, 0.0, 0.0), block=100.0, alone=100.0)
_PLAIN = "What a lovely morning it is."


class BundleLoader(msgspec.Struct, frozen=True):
    """Loads bundles that a trusted key signed, or the one with a pinned digest.

    A further class's bundle `may_hear` no model: what a probe hears reaches the first class alone.
    """

    key_files: tuple[str, ...] = ()
    sha256: str | None = None
    unsafe_unsigned: bool = False
    served: AttachedModel | None = None
    may_hear: bool = True

    def __call__(self, path: Path) -> LoadedBundle:
        """Return the loaded bundle, its stage 2 on a thread of its own.

        Raises:
            BundleError: It does not verify, or has a probe that would hear nothing.
        """
        bundle = load_bundle(path, self._trust(), served=self.served)
        probe = None if bundle.cascade.probe is None else bundle.cascade.probe.scorer
        if probe is not None and not self.may_hear:
            raise BundleError(
                f"{path}: this bundle has a probe, and only the first class's probe hears the "
                "model: make it the first class, or train it without --probe"
            )
        golden = tuple(
            Probe(item.prompt, item.reply, item.blocked, self._heard(item, probe))
            for item in bundle.golden
        )
        canaries = tuple(item.prompt for item in bundle.golden if item.blocked and not item.reply)
        stage2 = Stage2(bundle.stage2) if bundle.stage2 is not None else None
        held = Held(
            Guard(bundle.cascade, ViewDecoder()),
            stage2 if stage2 is not None else no_stage2,
            name=str(path),
            canaries=canaries,
            close=stage2.close if stage2 is not None else None,
            asks=None if probe is None or self.served is None else self.served.attach(probe),
        )
        return LoadedBundle(held=held, golden=golden)

    def _heard(self, item: Golden, probe: ActivationScorer | None) -> Heard | None:
        if self.served is None or probe is None or not item.reply:
            return None
        reading = self.served.read([Said("user", item.prompt)], item.reply, probe.layers)
        return probe.logits(reading.activations)

    def _trust(self) -> Trust:
        if self.key_files:
            return SignedBy(keys=tuple(load_public_key(Path(name)) for name in self.key_files))
        if self.sha256 is not None:
            return PinnedDigest(sha256=self.sha256)
        if self.unsafe_unsigned:
            return UnsafeUnsigned()
        raise BundleError(
            "a bundle needs trust: bundle_keys (files of public keys) or bundle_sha256"
        )


class WrittenRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule of a rules file; `example` is a text that it must block."""

    id: str
    clause: str
    pattern: str
    example: str


class RulesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rules file: a guard without a trained model.

    `known_attacks` are texts that came once and will come back changed.
    """

    rules: tuple[WrittenRule, ...] = ()
    known_attacks: tuple[KnownAttack, ...] = ()


class RulesLoader(msgspec.Struct, frozen=True):
    """Loads a guard of regular expressions and known attacks from a YAML file."""

    def __call__(self, path: Path) -> LoadedBundle:
        """Return the guard; each rule's example is its golden set and its canary.

        Raises:
            BundleError: The file can't be read or a rule is wrong.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path}: can't read the rules: {error.strerror}") from error
        try:
            given = msgspec.yaml.decode(content, type=RulesFile)
        except msgspec.DecodeError as error:
            raise BundleError(f"{path.name}: expected a file of rules: {error}") from error
        try:
            rules = RuleSet(
                [Rule(rule.id, rule.clause, rule.pattern) for rule in given.rules],
                given.known_attacks,
            )
        except ConfigError as error:
            raise BundleError(f"{path.name}: {error}") from error
        cascade = Cascade(
            digest=hashlib.sha256(content).hexdigest(),
            stage1=None,
            has_stage2=False,
            prompt=_NEVER,
            reply=_NEVER,
            rules=rules,
        )
        examples = tuple(rule.example for rule in given.rules)
        examples += tuple(attack.text for attack in given.known_attacks)
        golden = [Probe(prompt=text, reply="", blocked=True) for text in examples]
        golden += [Probe(prompt=_PLAIN, reply=text, blocked=True) for text in examples]
        golden.append(Probe(prompt=_PLAIN, reply=_PLAIN, blocked=False))
        held = Held(Guard(cascade, ViewDecoder()), name=str(path), canaries=examples)
        return LoadedBundle(held=held, golden=tuple(golden))


def class_loader(
    settings: Settings, one: GuardClass, served: AttachedModel | None = None
) -> Loader:
    """Return how a further class is loaded; it trusts the first bundle's keys unless it has own."""
    if one.bundle.endswith((".yaml", ".yml")):
        return RulesLoader()
    own = bool(one.bundle_keys or one.bundle_sha256)
    return BundleLoader(
        key_files=one.bundle_keys if own else settings.bundle_keys,
        sha256=one.bundle_sha256,
        unsafe_unsigned=settings.unsafe_unsigned_bundle,
        served=served,
        may_hear=False,
    )


def loader_for(settings: Settings, served: AttachedModel | None = None) -> Loader:
    """Return how the configured guard is loaded: a `.yaml` file holds rules, a folder a bundle.

    `served` is the model whose activations a bundle's probe reads.
    """
    if settings.bundle is not None and settings.bundle.endswith((".yaml", ".yml")):
        return RulesLoader()
    return BundleLoader(
        key_files=settings.bundle_keys,
        sha256=settings.bundle_sha256,
        unsafe_unsigned=settings.unsafe_unsigned_bundle,
        served=served,
    )
