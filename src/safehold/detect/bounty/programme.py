"""The programme's file, and what is published of it: `security.txt` (RFC 9116)."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.detect.bounty.interface import BountyProgramme
from safehold.errors import ConfigError

_LONGEST_DAYS = 365


def read_programme(path: Path) -> BountyProgramme:
    """Return the programme in a YAML file.

    Raises:
        ConfigError: it can't be read, has an unknown key, or its terms contradict each other.
    """
    try:
        found = msgspec.yaml.decode(path.read_bytes(), type=BountyProgramme)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a bounty programme: {error}") from error
    mark = found.pass_mark
    if mark.runs_needed > mark.replays:
        raise ConfigError(
            f"{path}: expected runs_needed of at most replays, came {mark.runs_needed} of "
            f"{mark.replays}"
        )
    return found


def programme_digest(programme: BountyProgramme) -> str:
    """Return the SHA-256 of the programme's canonical JSON: which terms a submitter agreed to."""
    return sha256_hex(canonical(programme))


def security_txt(programme: BountyProgramme, *, expires: datetime, now: datetime) -> str:
    """Return the text of `/.well-known/security.txt` (RFC 9116).

    Raises:
        ConfigError: `expires` is past, or more than a year away (RFC 9116 section 2.5.5).
    """
    ahead = (expires - now).total_seconds()
    if not 0 < ahead <= _LONGEST_DAYS * 86_400:
        raise ConfigError("expected an expiry between now and a year from now")
    when = expires.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    lines = [
        f"# {programme.name}: submissions are sealed to {programme.triage_key}",
        f"Contact: {programme.contact}",
        f"Expires: {when}",
        f"Policy: {programme.policy_url}",
        "Preferred-Languages: en",
    ]
    return "\r\n".join(lines) + "\r\n"
