"""Who may ask: only a client that knows it talks to this machine, and with the token where something is spent.

A web page can make a browser send requests to loopback. Under a name of its own (DNS rebinding) the `Host` header
betrays it; across origins the `Origin` header does, or, where a page merely embeds an address, `Sec-Fetch-Site` (W3C,
Fetch Metadata); and it knows no token.
"""

from __future__ import annotations

import hmac
import ipaddress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from milon.api.shapes import shape_refusal
from milon.base.errors import Reason, Rejected, require


class Guard:
    """An ASGI application in front of another: refuses what may not ask."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Guard `app`; whatever is not GET or HEAD must carry `Authorization: Bearer TOKEN`."""
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or answer 403 or 401."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            try:
                verify_host(headers.get("host", ""))
                is_of_a_page = "origin" in headers or headers.get("sec-fetch-site", "none") not in (
                    "none",
                    "same-origin",
                )
                require(not is_of_a_page, Reason.NOT_ALLOWED, "requests of web pages are refused")
            except Rejected as refusal:
                await JSONResponse(shape_refusal(refusal), 403)(scope, receive, send)
                return
            if scope["method"] not in ("GET", "HEAD") and not self._is_authorized(headers):
                needed = Rejected(Reason.NOT_ALLOWED, "this request needs the token in the node's api.token")
                await JSONResponse(shape_refusal(needed), 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_authorized(self, headers: Headers) -> bool:
        kind, _, shown = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), self._token)


def verify_host(host: str) -> None:
    """Raise `Rejected(NOT_ALLOWED)` unless the `Host` header names this machine: `localhost` or a loopback address."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.removeprefix("[").removesuffix("]").lower()
    try:
        is_local = name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        is_local = False
    require(is_local, Reason.NOT_ALLOWED, f"the Host header names {host[:80]!r}, not this machine")
