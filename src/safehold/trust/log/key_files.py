"""Private keys on disk: for their owner alone, in a folder that nobody else can change."""

import os
import stat
from pathlib import Path

from safehold.errors import ConfigError
from safehold.trust.log.note import SigningKey

_MAX_BYTES = 4096


def read_private_key(path: Path) -> SigningKey:
    """Return a private key file's key, after looking at who else could read or replace it.

    Raises:
        ConfigError: it can't be read, is a link, is open to others, is somebody else's, or lies
            in a folder that others can change.
        LogError: it holds no key.
    """
    try:
        text = read_secret(path).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"can't read the private key {path}") from error
    return SigningKey.parse(text)


def read_secret(path: Path, *, limit: int = _MAX_BYTES) -> bytes:
    """Return the bytes of a secret file, after looking at who else could read or replace it.

    Raises:
        ConfigError: it can't be read, is a link or no file, is open to others, is somebody
            else's, is longer than `limit` bytes, or lies in a folder that others can change.
    """
    check_key_folder(path.parent)
    try:
        # A pipe that nobody writes to would hold up who reads it.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        link = " (a link is not followed)" if path.is_symlink() else ""
        raise ConfigError(f"can't read the private key {path}: {error.strerror}{link}") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise ConfigError(f"can't read the private key {path}: expected a regular file")
    with os.fdopen(handle, "rb") as file:
        if found.st_mode & 0o077:
            raise ConfigError(
                f"{path}: expected a private key for its owner alone, got mode "
                f"{stat.S_IMODE(found.st_mode):o}: chmod 600 {path}, and think of it as read"
            )
        if found.st_uid not in {0, os.geteuid()}:
            raise ConfigError(f"{path}: expected a private key of yours, got user {found.st_uid}'s")
        try:
            secret = file.read(limit + 1)
        except OSError as error:
            raise ConfigError(f"can't read the private key {path}") from error
    if len(secret) > limit:
        raise ConfigError(f"{path}: expected at most {limit} bytes of key")
    return secret


def read_bearer(path: Path) -> str:
    """Return the key of a file with one line of ASCII: what opens another service's door.

    Raises:
        ConfigError: as for `read_secret`, or it is empty or is no line.
    """
    try:
        text = read_secret(path).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected a key of ASCII letters in one line") from error
    if not text or not text.isprintable() or " " in text:
        raise ConfigError(f"{path}: expected a key of ASCII letters in one line")
    return text


def check_key_folder(folder: Path) -> None:
    """Refuse a folder of keys that others can change: they could put their own key there.

    Raises:
        ConfigError: it is not there, is no folder, or is writable by its group or by others.
    """
    try:
        found = folder.stat()
    except OSError as error:
        raise ConfigError(f"can't read the folder of keys {folder}: {error.strerror}") from error
    shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    if not stat.S_ISDIR(found.st_mode) or shared:
        raise ConfigError(
            f"{folder}: expected a folder of keys that only its owner changes: chmod 700 {folder}"
        )
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"{folder}: expected a folder of yours, got user {found.st_uid}'s")
