"""A whole gateway on a thread, for tests that want a real socket and a real HTTP client."""

import asyncio
import threading
import time
from types import TracebackType
from typing import Self

import uvicorn

from safehold.errors import SafeholdError
from safehold.guard.gateway.app import Gateway
from safehold.guard.gateway.policy import Limits, Settings
from safehold.guard.gateway.server import (
    GatewayApplication,
    Parts,
    build_app,
    listen,
    server_config,
)

PATIENT = Limits(verdict_wait_s=60)
"""For tests of something else: a busy machine is no reason to turn a client away."""


class RunningGateway:
    """Serves on a free loopback port while used as a context manager."""

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._sock = listen(settings)
        self.port: int = self._sock.getsockname()[1]
        self._config: uvicorn.Config = server_config(settings, parts)
        self._app: GatewayApplication = build_app(settings, parts)
        self._config.app = self._app
        self._config.factory = False
        self._config.loop = "asyncio"
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """The gateway's address; OpenAI clients add `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def gateway(self) -> Gateway:
        """The application.

        Raises:
            SafeholdError: It did not start.
        """
        if self._app.gateway is None:
            raise SafeholdError("the gateway did not start")
        return self._app.gateway

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._sock])

        asyncio.run(serve())

    def __enter__(self) -> Self:
        """Start and wait until requests are taken.

        Raises:
            SafeholdError: It did not start within a minute.
        """
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise SafeholdError("the gateway did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain and stop."""
        self._server.should_exit = True
        self._thread.join(30)
        self._sock.close()
