"""What every answer carries and what no request may be, in one ASGI layer around the console."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# A page with an attacker's text: no string becomes markup or script, in any library.
_TRUSTED = "; require-trusted-types-for 'script'; trusted-types 'none'"
_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # `no-referrer` would blank the Origin of our own forms, which the check below reads.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"permissions-policy",
        b"publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), "  # noqa: ISC004 - one header
        b"microphone=(), geolocation=()",
    ),
)
HOSTILE = "safehold.hostile"
"""Set in a request's scope by a page that shows an attacker's text."""
MAX_BODY_BYTES = 64 * 1024
_MAX_TARGET_BYTES = 4096


class Hardened:
    """Refuses foreign hosts and long targets, and writes the headers of every answer."""

    def __init__(self, app: App, *, hosts: frozenset[str], secure: bool) -> None:
        """Take the application, the host names it answers to, and whether it is behind TLS."""
        self._app, self._hosts, self._secure = app, hosts, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers(scope)]
            await send(message)

        if not self._ours(scope):
            await _refuse(headed, 400, b"expected another host name\n")
        elif len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _MAX_TARGET_BYTES:
            await _refuse(headed, 414, b"expected a shorter address\n")
        else:
            await self._app(scope, receive, headed)

    def _ours(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and hosts[0].decode("latin-1").lower() in self._hosts

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        policy = _POLICY + (_TRUSTED if scope.get(HOSTILE) else "")
        cache = b"no-cache" if scope["path"].startswith("/static/") else b"no-store"
        more = [(b"content-security-policy", policy.encode()), (b"cache-control", cache)]
        if self._secure:
            more.append((b"strict-transport-security", b"max-age=31536000"))
        return [*_HEADERS, *more]


async def _refuse(send: Send, status: int, text: bytes) -> None:
    head = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": text})


def foreign(headers: dict[str, str], origins: frozenset[str]) -> str | None:
    """Return why a post is not our own page's, or None.

    A browser says where a request comes from in `Sec-Fetch-Site` or in `Origin`; a program that
    says neither is none, and shows its login and its form token as well.
    """
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return "expected a request of our own page"
    if headers.get("origin", next(iter(origins), "")) not in origins:
        return "expected a request of our own origin"
    return None
