"""Moderation by our own guard: each input takes the path of a prompt, with no model behind it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from typing import Any

from safehold.errors import LedgerError
from safehold.guard.gateway.policy import Key, SurfacePolicy
from safehold.guard.gateway.protocols.completions.moderation import ModerationCall, ModerationCodec
from safehold.guard.gateway.relaying.client_response import Outlet
from safehold.guard.gateway.relaying.relay import Relay
from safehold.guard.gateway.relaying.run_state import AdmittedRequest
from safehold.guard.interface import Block


class _Empty:
    """An answer that says nothing."""

    status = 200
    content_type = "application/json"
    headers: Mapping[str, str] = {}

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield an empty object."""
        yield b"{}"

    def abort(self) -> None:
        """Do nothing: there is no connection."""


class NoModel:
    """Stands where a model is: what is moderated is sent to none."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> _Empty:
        """Answer nothing."""
        del path, body, headers
        return _Empty()

    async def get(self, path: str, headers: Mapping[str, str]) -> _Empty:
        """Answer nothing."""
        del path, headers
        return _Empty()

    async def close(self) -> None:
        """Do nothing."""


class Moderation:
    """Judges inputs through the relay of clients, so that rows, rules and counters are the same."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._codec = ModerationCodec()

    def calls(self, body: bytes) -> tuple[ModerationCall, ...]:
        """Read a request as one call for each input.

        Raises:
            WireError: It is malformed.
        """
        return self._codec.calls(body)

    async def judged(
        self,
        calls: Sequence[ModerationCall],
        decision_id: str,
        policy: SurfacePolicy,
        key: Key | None,
        use_case: str | None,
    ) -> list[bool] | None:
        """Say of each input whether a prompt of it would be blocked; None if one can't be judged.

        Raises:
            LedgerError: A row could not be kept.
        """
        found = []
        relay = self._relay.with_client(NoModel())
        for number, call in enumerate(calls):
            ask = AdmittedRequest(
                decision_id=decision_id if number == 0 else f"{decision_id}_{number}",
                surface=self._codec.surface,
                codec=self._codec,
                call=call,
                exchange=call.exchange,
                policy=policy,
                key=key,
                use_case=use_case,
            )
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            state = await relay.serve(ask, Outlet(_nowhere, relay.ticks), gone)
            if state.error == "LedgerError":
                raise LedgerError("the record can't be kept now; try again later")
            if state.verdict is None or (state.error is not None and state.block is None):
                return None
            found.append(isinstance(state.verdict, Block))
        return found


async def _nowhere(message: MutableMapping[str, Any]) -> None:
    """Send nothing: the answer is built from the verdicts."""
    del message
