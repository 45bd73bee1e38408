"""Middleware: metrics, security headers, host and token check, body limit."""

import hmac
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from odesteer.serving.api.errors import APIError
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.settings import Settings

# The page loads its own files only, and other pages cannot show it in a frame.
_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class MetricsMiddleware:
    """Counts responses and their times."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            endpoint = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.seconds.labels(endpoint).observe(time.perf_counter() - began)


class SecurityHeadersMiddleware:
    """Adds security headers to responses that do not have them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class AccessMiddleware:
    """Refuses requests without the server's token or, if it has none, for another host.

    Without a token only this machine can connect, but so can pages in its browser. Requests must
    name this machine as their host, which pages of other origins cannot (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(scope) if scope["type"] == "http" else None
        await (self._app if error is None else error.response())(scope, receive, send)

    def _error(self, scope: Scope) -> APIError | None:
        headers = Headers(scope=scope)
        if self._token is None:
            if _hostname(headers.get("host", "")) in _LOCAL_HOSTS:
                return None
            return APIError(403, "without a token this server answers to localhost only.")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_same = hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode())
        if _is_public(scope) or (scheme.lower() == "bearer" and is_same):
            return None
        return APIError(
            401,
            "this server asks for its token, as the API key of a client or in the header"
            " Authorization: Bearer TOKEN.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


class BodyLimitMiddleware:
    """Refuses bodies that are too large, by their header or as they arrive."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal():
            error = APIError(400, "the header Content-Length is no number.")
            await error.response()(scope, receive, send)
        elif int(length) > limit:
            await _too_large(limit).response()(scope, receive, send)
        else:
            await self._app(scope, _limited(receive, limit), send)

    def _limit(self, scope: Scope) -> int:
        is_upload = scope["method"] == "PUT" and self._settings.allow_upload
        return self._settings.max_upload if is_upload else self._settings.max_body


def _limited(receive: Receive, limit: int) -> Receive:
    """``receive`` for bodies up to a size; raises `APIError` beyond."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        return message

    return receive_limited


def _too_large(limit: int) -> APIError:
    return APIError(413, f"the body is larger than {limit} bytes.", code="body_too_large")


def _hostname(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _is_public(scope: Scope) -> bool:
    """Whether a request needs no token: the page, its files, and the health check."""
    path: str = scope["path"]
    is_shown = path in ("/", "/health") or path.startswith("/playground/")
    return is_shown and scope["method"] in ("GET", "HEAD")
