"""Settings of the scorer that images and files go to, where `rules.images` is `score`."""

import math
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from safehold.errors import ConfigError

_MOST_TIMEOUT_S = 600.0
_MOST_EACH = 256


class MediaScorer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An HTTP endpoint that is given an image or a file and answers a score from 0 to 1.

    `form`: `moderations` posts OpenAI's body to `url` + `/moderations`, and takes the highest score
    among `categories` (all of them where none is named; a flag counts as 1); `plain` posts
    `{"media_type", "sha256", "data"}` (base64) to `url` itself, and takes `{"score"}`. A score of
    `threshold` or more blocks under `clause`. `media_types` begin the types that it can read;
    another is refused. A scorer that fails or takes more than `timeout_s` releases nothing.

    Raises:
        ConfigError: A value is out of range.
    """

    url: str
    api_key_file: str | None = None
    form: Literal["moderations", "plain"] = "moderations"
    model: str = "omni-moderation-latest"
    categories: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ("image/",)
    threshold: float = 0.5
    timeout_s: float = 10.0
    max_items: int = 16
    clause: str = "media/restricted"

    def __post_init__(self) -> None:
        """Refuse what could not score.

        Raises:
            ConfigError: A value is out of range.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise ConfigError("media_scorer: url: expected an http(s) URL without a query")
        if parts.username or parts.password:
            raise ConfigError("media_scorer: put the key into api_key_file, not into the URL")
        if not math.isfinite(self.threshold) or not 0 < self.threshold <= 1:
            raise ConfigError("media_scorer: threshold: expected above 0, up to 1")
        if not 0 < self.timeout_s <= _MOST_TIMEOUT_S:
            raise ConfigError(f"media_scorer: timeout_s: expected above 0, up to {_MOST_TIMEOUT_S}")
        if not 1 <= self.max_items <= _MOST_EACH:
            raise ConfigError(f"media_scorer: max_items: expected 1 to {_MOST_EACH}")
        if not self.media_types or not all(self.media_types):
            raise ConfigError("media_scorer: media_types: expected at least one, such as image/")
        if not self.clause or not self.model:
            raise ConfigError("media_scorer: clause and model: expected a name")
