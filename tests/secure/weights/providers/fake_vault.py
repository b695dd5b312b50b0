"""A fake of the part of HashiCorp Vault's transit HTTP API that sealed weights use.

It follows the API's documented paths, bodies and error forms (v1/transit: keys, encrypt, decrypt);
it is no Vault: no policies, no storage, no seal. Tests that use it prove the client's side only.
"""

import base64
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "s.fake-token"
_NONCE = 12


class FakeVault:
    """A transit engine at `transit` on a free loopback port; use as a context manager."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.deletable: set[str] = set()
        self.sealed = False
        # What some releases do: answer 500 to a bad tag, or not know associated data.
        self.bad_tag_status = 400
        self.ignores_associated_data = False
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._serve("GET")

            def do_POST(self) -> None:
                self._serve("POST")

            def do_PUT(self) -> None:
                self._serve("POST")

            def do_DELETE(self) -> None:
                self._serve("DELETE")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _serve(self, method: str) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                token = self.headers.get("X-Vault-Token")
                status, answer = fake.answer(method, self.path, body, token)
                data = json.dumps(answer).encode() if answer is not None else b""
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(
        self, method: str, path: str, body: dict[str, Any], token: str | None
    ) -> tuple[int, dict[str, Any] | None]:
        """Return status and body of one call."""
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if token != TOKEN:
            return 403, {"errors": ["permission denied"]}
        kind, _, name = path.removeprefix("/v1/transit/").partition("/")
        if kind == "keys":
            return self._keys(method, name, body)
        if method == "POST" and kind == "encrypt":
            return self._encrypt(name, body)
        if method == "POST" and kind == "decrypt":
            return self._decrypt(name, body)
        return 404, _no()

    def _keys(
        self, method: str, path: str, body: dict[str, Any]
    ) -> tuple[int, dict[str, Any] | None]:
        name, _, rest = path.partition("/")
        if method == "POST" and not rest:
            self.keys.setdefault(name, os.urandom(32))
        elif name not in self.keys:
            return 404, _no()
        elif method == "GET":
            return 200, {"data": {"name": name}}
        elif method == "POST" and body.get("deletion_allowed"):
            self.deletable.add(name)
        elif method == "DELETE":
            if name not in self.deletable:
                return 400, {"errors": ["deletion is not allowed for this key"]}
            del self.keys[name]
        return 204, None

    def _associated(self, body: dict[str, Any]) -> bytes:
        text = "" if self.ignores_associated_data else body.get("associated_data", "")
        return base64.b64decode(text)

    def _encrypt(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        key = self.keys.setdefault(name, os.urandom(32))  # as Vault does: encrypt may create
        nonce = os.urandom(_NONCE)
        aad = self._associated(body)
        sealed = AESGCM(key).encrypt(nonce, base64.b64decode(body["plaintext"]), aad)
        text = "vault:v1:" + base64.b64encode(nonce + sealed).decode()
        return 200, {"data": {"ciphertext": text, "key_version": 1}}

    def _decrypt(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if name not in self.keys:
            return 400, {"errors": ["encryption key not found"]}
        data = base64.b64decode(str(body["ciphertext"]).removeprefix("vault:v1:"))
        aad = self._associated(body)
        try:
            plain = AESGCM(self.keys[name]).decrypt(data[:_NONCE], data[_NONCE:], aad)
        except InvalidTag:
            return self.bad_tag_status, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}


def _no() -> dict[str, Any]:
    return {"errors": []}
