"""What is looked at before a request is, and said with every answer."""

import hmac
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from odesteer.serving.api.errors import APIError, ASCIIJSONResponse
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.settings import Settings

# The page loads nothing but its own files, and no other page can show it in a frame.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Counts requests, refuses those that may not be made, and adds headers to all answers.

    Without a token only this machine can connect, but so can a page that a browser on it shows:
    requests must name this machine as their host, which a page from elsewhere cannot make them do.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            refused = self._refusal(scope)
            if refused is None:
                limited = _Limited(receive, self._limit(scope))
                await self._app(scope, limited, send_with_headers)
            else:
                answer = ASCIIJSONResponse(
                    refused.body, refused.status_code, headers=refused.headers
                )
                await answer(scope, receive, send_with_headers)
        finally:
            endpoint = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.seconds.labels(endpoint).observe(time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> APIError | None:
        headers = Headers(scope=scope)
        token = self._settings.token
        if token is None and _host(headers.get("host", "")) not in _LOCAL_NAMES:
            return APIError(403, "without a token this server answers to localhost only.")
        if token is not None and not _is_open(scope):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
            if scheme.lower() != "bearer" or not same:
                return APIError(
                    401,
                    "this server asks for its token, as the API key of a client or in the header"
                    " Authorization: Bearer TOKEN.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return APIError(400, "the header Content-Length is no number.")
        if int(length) > self._limit(scope):
            return too_large(self._limit(scope))
        return None

    def _limit(self, scope: Scope) -> int:
        uploads = scope["method"] == "PUT" and self._settings.allow_upload
        return self._settings.max_upload if uploads else self._settings.max_body


def too_large(limit: int) -> APIError:
    """The answer to a body of too many bytes."""
    return APIError(413, f"the body is larger than {limit} bytes.", code="body_too_large")


class _Limited:
    """Receives a body up to a size, whatever its headers promised."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise too_large(self._limit)
        return message


def _host(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _is_open(scope: Scope) -> bool:
    """The page and its files are shown to everybody, and so is whether the server is well."""
    path: str = scope["path"]
    shown = path in ("/", "/health") or path.startswith("/playground/")
    return shown and scope["method"] in ("GET", "HEAD")
