"""The gateway's configuration: read once, checked, frozen. Unknown keys are errors."""

import hashlib
import re
from typing import Literal

import msgspec

from safehold.errors import ConfigError
from safehold.guard.gateway.account_settings import AccountStateSettings
from safehold.guard.gateway.class_settings import (
    FIRST,
    ClassSwitchSettings,
    GuardClass,
    check_class_names,
)
from safehold.guard.gateway.exemption_settings import ExemptionSettings
from safehold.guard.gateway.interface import Rules, Surface
from safehold.guard.gateway.key_settings import Budget, Tenant, check_name, moment
from safehold.guard.gateway.media_settings import MediaScorer
from safehold.guard.gateway.overlay_settings import OverlaySettings
from safehold.guard.gateway.routing_settings import NamedUpstream, Route, check_routes
from safehold.guard.gateway.settings_check import check_values
from safehold.guard.gateway.trial_settings import TrialSettings
from safehold.guard.interface import DeliveryMode, FailMode
from safehold.guard.session.session import SessionPolicy
from safehold.trust.demands.ask import StandingQuestion
from safehold.trust.released.interface import ReleaseSettings

MIN_KEY_CHARS = 24
MIN_KEY_DISTINCT = 10
MAX_HOLD_TOKENS = 4096
MAX_WORKERS = 64
_WEEK_S = 7 * 86_400.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes and times that bound one request; each is a refusal or an error, never a hang.

    A request that would wait longer than `verdict_wait_s` for its verdict is refused at once.
    """

    max_body_bytes: int = 8 * 1024 * 1024
    max_reply_bytes: int = 16 * 1024 * 1024
    max_event_bytes: int = 1024 * 1024
    max_header_bytes: int = 32 * 1024
    max_streams: int = 1024
    body_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 120.0
    keepalive_s: float = 10.0
    stall_timeout_s: float = 60.0
    total_timeout_s: float = 1800.0
    drain_timeout_s: float = 60.0
    verdict_wait_s: float = 1.5

    def __post_init__(self) -> None:
        """Refuse bounds under which no request could end well.

        Raises:
            ConfigError: A size is not positive, or a time is not between 0 and a week.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and name.startswith("max_") and value < 1:
                raise ConfigError(f"limits: {name}: expected at least 1, came {value}")
            if name.endswith("_s") and not 0 < value <= _WEEK_S:
                raise ConfigError(f"limits: {name}: expected seconds above 0, up to a week")


class SurfacePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one surface guards.

    `on_block`: `block` refuses; `fallback` sends a blocked prompt to `fallback_model` (its reply
    is guarded all the same); `review` refuses and queues the exchange for a reviewer.
    `shadow` delivers everything and only records what would have been blocked.
    `fail_mode_stage1` and `fail_mode_stage2` are for a scorer of that stage that breaks,
    `ledger_fail_mode` for a row that can't be kept; `bypass` is written to the ledger each time.
    `unreadable_chars` of a reply may leave although nobody can read them.
    `closed` refuses every request. `expose_overhead` tells clients how long the prompt's verdict
    and its row took; a client may learn from it which stages ran, so it is off by default.
    """

    mode: DeliveryMode = DeliveryMode.HOLD
    hold_tokens: int = 16
    doubt_tokens: int = 64
    decoded_tokens: int = 1024
    unreadable_chars: int = 200
    on_block: Literal["block", "fallback", "review"] = "block"
    fallback_model: str | None = None
    shadow: bool = False
    fail_mode_stage1: FailMode = FailMode.BLOCK
    fail_mode_stage2: FailMode = FailMode.BLOCK
    ledger_fail_mode: FailMode = FailMode.BLOCK
    category: str = "restricted"
    closed: bool = False
    expose_overhead: bool = False
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ConfigError: A value is out of range or a needed one is missing.
        """
        if self.on_block == "fallback" and not self.fallback_model:
            raise ConfigError("on_block: fallback needs a fallback_model")
        if not 0 <= self.hold_tokens <= MAX_HOLD_TOKENS:
            raise ConfigError(f"hold_tokens: expected 0 to {MAX_HOLD_TOKENS}")
        for name in ("doubt_tokens", "decoded_tokens"):
            if not 0 <= getattr(self, name) <= MAX_HOLD_TOKENS:
                raise ConfigError(f"{name}: expected 0 to {MAX_HOLD_TOKENS}")
        if self.unreadable_chars < 0:
            raise ConfigError("unreadable_chars: expected 0 or more")
        if re.fullmatch(r"[a-z0-9_-]{1,32}", self.category) is None:
            raise ConfigError("category: expected up to 32 of a-z, 0-9, _ and -")

    def stepped_up(self) -> "SurfacePolicy":
        """Return the policy of an account on the step `step-up`: held whole, closed, reviewed."""
        return msgspec.structs.replace(
            self,
            mode=DeliveryMode.FULL,
            shadow=False,
            on_block="review",
            fail_mode_stage1=FailMode.BLOCK,
            fail_mode_stage2=FailMode.BLOCK,
            ledger_fail_mode=FailMode.BLOCK,
        )

    def session(self) -> SessionPolicy:
        """Return how a guard session runs under this policy."""
        mode = DeliveryMode.AUDIT if self.shadow else self.mode
        return SessionPolicy(
            mode=mode,
            hold_tokens=self.hold_tokens,
            doubt_tokens=self.doubt_tokens,
            decoded_tokens=self.decoded_tokens,
            unreadable_chars=self.unreadable_chars,
            fail_mode_stage1=self.fail_mode_stage1,
            fail_mode_stage2=self.fail_mode_stage2,
        )


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A client's key: its hash, whose it is, and what it may do.

    `sha256` is the hex digest of the key; the key itself is nowhere. `surfaces` empty means all.
    `models` are the names it may ask for (`*` for any letters), empty for all. `policies`
    overrides a surface's policy for this key. `admin` opens the admin API only. From `expires_at`
    on (ISO 8601 with its zone) the key is none.
    """

    id: str
    sha256: str
    tenant: str = "default"
    surfaces: tuple[Surface, ...] = ()
    models: tuple[str, ...] = ()
    budget: Budget = Budget()
    policies: dict[Surface, SurfacePolicy] = {}
    admin: bool = False
    expires_at: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no digest, and a time that is none.

        Raises:
            ConfigError: `sha256` is not 64 hex digits, `expires_at` no time with a zone, or a
                name is none that could be typed again.
        """
        check_name("key: id", self.id, slash=False)
        check_name(f"key {self.id}: tenant", self.tenant)
        if self.expires_at is not None:
            moment(self.expires_at)
        if re.fullmatch(r"[0-9a-f]{64}", self.sha256) is None:
            raise ConfigError(f"key {self.id}: sha256 must be 64 hex digits, never the key itself")


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model server. `url` is its base URL, `local` for the embedded model, or `hf:PATH`.

    `hf:PATH` runs a Hugging Face model (a folder of safetensors, or a GGUF file) in a child process
    that gives a bundle's probe its activations; `dtype` is the number format it computes in.

    `api_key_file` holds the key that the gateway presents; without one the client's own key is
    forwarded when the gateway itself asks for none.
    """

    url: str = "local"
    api_key_file: str | None = None
    threads: int = 1
    slots: int = 4
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Synthetic requests that must be blocked; `prompts` come from the bundle when empty."""

    every_s: float = 300.0
    prompts: tuple[str, ...] = ()
    enabled: bool = True


class Explain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed rows of the bytes that leave, for egress accounting; see docs/egress.md.

    `to` is the file of rows, `key` a private key from `safehold egress sender-key`, `flow` the row
    of the register that these bytes belong to, `sender` this gateway's name in the senders file.
    """

    to: str
    key: str
    flow: str
    sender: str = "gateway"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything `safehold serve` needs."""

    host: str = "127.0.0.1"
    port: int = 8400
    workers: int = 1
    upstream: Upstream = Upstream()
    upstreams: dict[str, NamedUpstream] = {}
    routes: tuple[Route, ...] = ()
    bundle: str | None = None
    bundle_keys: tuple[str, ...] = ()
    bundle_sha256: str | None = None
    unsafe_unsigned_bundle: bool = False
    bundles: str | None = None
    class_name: str = FIRST
    classes: dict[str, GuardClass] = {}
    class_switches: ClassSwitchSettings | None = None
    ledger: str = "safehold-ledger.db"
    journal: str | None = None
    store: str | None = None
    state: str | None = None
    default: SurfacePolicy = SurfacePolicy()
    surfaces: dict[Surface, SurfacePolicy] = {}
    embeddings: Literal["refuse", "pass"] = "refuse"
    keys: tuple[Key, ...] = ()
    tenants: dict[str, Tenant] = {}
    exemptions: ExemptionSettings | None = None
    releases: ReleaseSettings | None = None
    standing: StandingQuestion | None = None
    hot_rules: OverlaySettings | None = None
    account_states: AccountStateSettings | None = None
    trial: TrialSettings | None = None
    media_scorer: MediaScorer | None = None
    limits: Limits = Limits()
    canary: Canary = Canary()
    log: Literal["json", "none"] = "json"
    otlp: str | None = None
    explain: Explain | None = None

    def __post_init__(self) -> None:
        """Refuse an exposed gateway without keys.

        Raises:
            ConfigError: The address is not loopback and there is no client key, or two keys share
                an id or a digest.
        """
        check_values(self)
        if self.host not in LOOPBACK and not any(not key.admin for key in self.keys):
            raise ConfigError(f"host {self.host}: an address beyond loopback needs a client key")
        for tenant in self.tenants:
            check_name("tenants", tenant)
        for field in ("id", "sha256"):
            values = [getattr(key, field) for key in self.keys]
            if len(set(values)) != len(values):
                raise ConfigError(f"keys: two keys have the same {field}")
        policies = [self.default, *self.surfaces.values()]
        policies += [one for key in self.keys for one in key.policies.values()]
        if self.media_scorer is None and any(one.rules.images == "score" for one in policies):
            raise ConfigError("rules: images: score needs a media_scorer")
        check_routes(self.upstreams, self.routes)
        check_class_names(self.class_name, self.classes)
        known = {key.id for key in self.keys if not key.admin}
        for caller in self.exemptions.callers if self.exemptions else ():
            if caller not in known:
                raise ConfigError(f"exemptions: callers: {caller} is no id of a client's key")
        if not 1 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers: expected 1 to {MAX_WORKERS}")
        if self.workers > 1 and self.store is None:
            raise ConfigError("workers: several need a store that they share (sqlite:///… will do)")

    def policy(self, surface: Surface, key: Key | None) -> SurfacePolicy:
        """Return the policy of a surface for a key."""
        if key is not None and surface in key.policies:
            return key.policies[surface]
        return self.surfaces.get(surface, self.default)


def digest_key(key: str) -> str:
    """Return the digest under which a strong key is kept.

    Raises:
        ConfigError: The key is too short or too plain to resist guessing.
    """
    if len(key) < MIN_KEY_CHARS or len(set(key)) < MIN_KEY_DISTINCT:
        raise ConfigError(
            f"weak key: expected at least {MIN_KEY_CHARS} characters, "
            f"{MIN_KEY_DISTINCT} of them different; `safehold init --new-key` makes one"
        )
    return hashlib.sha256(key.encode()).hexdigest()
