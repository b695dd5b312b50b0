"""The range of every number and the words of every text in the gateway's settings.

Each numeric field of each settings struct has a row here: a field without one is an error, so that
none is ever accepted unread. A text may be empty only where that is its default.
"""

import math
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from safehold.errors import ConfigError

_WEEK_S, _YEAR_S, _HOUR_S, _MINUTE_S = 7 * 86_400, 366 * 86_400, 3_600, 60
_SOON = 1e-3
_MOST_BYTES, _MOST_COUNT = 1 << 40, 10**15

RANGES: dict[str, tuple[float, float]] = {
    "Settings.port": (0, 65_535),
    "Settings.workers": (1, 64),
    "Limits.max_body_bytes": (1, _MOST_BYTES),
    "Limits.max_reply_bytes": (1, _MOST_BYTES),
    "Limits.max_event_bytes": (1, _MOST_BYTES),
    "Limits.max_header_bytes": (1, 1 << 30),
    "Limits.max_streams": (1, 1_000_000),
    "Limits.body_timeout_s": (_SOON, _WEEK_S),
    "Limits.connect_timeout_s": (_SOON, _WEEK_S),
    "Limits.idle_timeout_s": (_SOON, _WEEK_S),
    "Limits.keepalive_s": (_SOON, _WEEK_S),
    "Limits.stall_timeout_s": (_SOON, _WEEK_S),
    "Limits.total_timeout_s": (_SOON, _WEEK_S),
    "Limits.drain_timeout_s": (_SOON, _WEEK_S),
    "Limits.verdict_wait_s": (_SOON, _WEEK_S),
    "SurfacePolicy.hold_tokens": (0, 4_096),
    "SurfacePolicy.doubt_tokens": (0, 4_096),
    "SurfacePolicy.decoded_tokens": (0, 4_096),
    "SurfacePolicy.unreadable_chars": (0, 1_000_000_000),
    "Rules.max_choices": (1, 128),
    "Rules.max_lanes": (1, 65_536),
    "Budget.requests_per_minute": (0, _MOST_COUNT),
    "Budget.tokens_per_minute": (0, _MOST_COUNT),
    "Budget.tokens_per_day": (0, _MOST_COUNT),
    "Budget.flags_per_day": (0, _MOST_COUNT),
    "Budget.unreadable_per_day": (0, _MOST_COUNT),
    "TenantBudget.requests_per_minute": (0, _MOST_COUNT),
    "TenantBudget.tokens_per_minute": (0, _MOST_COUNT),
    "TenantBudget.tokens_per_day": (0, _MOST_COUNT),
    "TenantBudget.flags_per_day": (0, _MOST_COUNT),
    "Upstream.threads": (1, 1_024),
    "Upstream.slots": (1, 1_024),
    "Target.share": (0, 1_000),
    "Route.retries": (0, 5),
    "Canary.every_s": (_SOON, _WEEK_S),
    "ExemptionSettings.reload_s": (_SOON, _HOUR_S),
    "ReleaseSettings.max_age_s": (1, _YEAR_S),
    "StandingQuestion.compute": (math.ulp(0.0), 1e40),
    "OverlaySettings.approvals": (1, 64),
    "OverlaySettings.reload_s": (_SOON, _MINUTE_S),
    "AccountStateSettings.reload_s": (_SOON, _MINUTE_S),
    "TrialSettings.approvals": (1, 64),
    "TrialSettings.reload_s": (_SOON, _MINUTE_S),
    "GuardClass.wait_s": (_SOON, 10),
    "ClassSwitchSettings.reload_s": (_SOON, _MINUTE_S),
    "MediaScorer.threshold": (math.ulp(0.0), 1),
    "MediaScorer.timeout_s": (_SOON, 600),
    "MediaScorer.max_items": (1, 256),
}
"""Where each number may lie, both ends included."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_WEB = ("http", "https")


def check_values(settings: msgspec.Struct) -> None:
    """Refuse a number out of its range, a text that says nothing, and a name that is none.

    Raises:
        ConfigError: The message names the setting, and says what was expected.
    """
    for place, owner, name, value in _leaves(settings, ""):
        if isinstance(value, str):
            _check_text(place, owner, name, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            least, most = _range(owner, name)
            if not least <= value <= most:  # a NaN lies nowhere
                raise ConfigError(f"{place}: expected {least:g} to {most:g}, came {value!r:.40}")


def _range(owner: msgspec.Struct, name: str) -> tuple[float, float]:
    found = RANGES.get(f"{type(owner).__name__}.{name}")
    if found is None:
        raise ConfigError(f"{name}: no range is known for this setting")
    return found


def _check_text(place: str, owner: msgspec.Struct, name: str, value: str) -> None:
    if not value and _default(owner, name) != "":
        raise ConfigError(f"{place}: expected a text, came an empty one")
    if any(ord(char) < ord(" ") for char in value) and name != "prompts":
        raise ConfigError(f"{place}: expected one line of text, came control characters")
    if name == "bundle_sha256" and _DIGEST.fullmatch(value) is None:
        raise ConfigError(f"{place}: expected 64 hex digits")
    if name == "otlp":
        parts = urlsplit(value)
        if parts.scheme not in _WEB or not parts.netloc:
            raise ConfigError(f"{place}: expected an http(s) URL")


def _default(owner: msgspec.Struct, name: str) -> object:
    field = next(one for one in msgspec.structs.fields(type(owner)) if one.name == name)
    return field.default


def _leaves(owner: msgspec.Struct, place: str) -> Iterator[tuple[str, msgspec.Struct, str, object]]:
    """Yield every value with its place in the file, its struct and its field."""
    for name in owner.__struct_fields__:
        yield from _inside(owner, name, getattr(owner, name), f"{place}{name}")


def _inside(
    owner: msgspec.Struct, name: str, value: object, place: str
) -> Iterator[tuple[str, msgspec.Struct, str, object]]:
    if isinstance(value, msgspec.Struct):
        yield from _leaves(value, f"{place}.")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield place, owner, name, str(key)
            yield from _inside(owner, name, item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _inside(owner, name, item, f"{place}.{number}")
    else:
        yield place, owner, name, value
