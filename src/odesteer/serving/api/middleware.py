"""Middleware: metrics, security headers, origins, the token, limits of bodies in size and time."""

import asyncio
import hmac
import time
from collections.abc import Sequence
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
_DEFAULT_PORTS = {"http": 80, "https": 443}


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


class OriginMiddleware:
    """Refuses what pages of other origins send: a foreign `Origin`, or `Sec-Fetch-Site`.

    Browsers send such requests without asking (a form, a Blob as the body), and only hide the
    answer. A link to the page is followed from anywhere.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_refused = scope["type"] == "http" and self._is_foreign(scope)
        if is_refused:
            error = APIError(
                403,
                "a page of another origin may not use this server; allow it with --cors-origin.",
                code="origin_not_allowed",
            )
            await error.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if "*" in self._allowed or origin in self._allowed:
            return False
        if origin is not None:
            return not _is_same_host(origin, headers.get("host", ""))
        is_link = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        return headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_link


class AccessMiddleware:
    """Refuses requests without the server's token, if it has one."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(scope) if scope["type"] == "http" else None
        await (self._app if error is None else error.response())(scope, receive, send)

    def _error(self, scope: Scope) -> APIError | None:
        if self._token is None or _is_public(scope):
            return None
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        is_same = hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode())
        if scheme.lower() == "bearer" and is_same:
            return None
        return APIError(
            401,
            "this server asks for its token, as the API key of a client or in the header"
            " Authorization: Bearer TOKEN.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


class BodyLimitMiddleware:
    """Refuses bodies that are too large, by their header or as they arrive, or too slow."""

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
            await self._app(scope, _limited(receive, limit, self._settings.request_timeout), send)

    def _limit(self, scope: Scope) -> int:
        is_upload = scope["method"] == "PUT" and self._settings.allow_upload
        return self._settings.max_upload if is_upload else self._settings.max_body


def _limited(receive: Receive, limit: int, timeout: float) -> Receive:
    """``receive`` for bodies up to a size, within ``timeout`` seconds; raises `APIError` beyond."""
    size = 0
    deadline: float | None = time.monotonic() + timeout

    async def receive_limited() -> Message:
        nonlocal size, deadline
        if deadline is None:  # the body has come; what is left is the end of the connection
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0.001))
        except asyncio.TimeoutError:  # another class before Python 3.11
            raise APIError(
                408,
                f"the body did not arrive within {timeout:g} s.",
                code="request_timeout",
                headers={"Connection": "close"},
            ) from None
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            deadline = None
        return message

    return receive_limited


def _too_large(limit: int) -> APIError:
    return APIError(413, f"the body is larger than {limit} bytes.", code="body_too_large")


def _is_same_host(origin: str, host: str) -> bool:
    """Whether an origin is that of this server, as the request names it."""
    try:
        page = urlsplit(origin)
        port = _DEFAULT_PORTS.get(page.scheme)
        here = urlsplit(f"//{host}")
        return bool(page.hostname) and (page.hostname, page.port or port) == (
            here.hostname,
            here.port or port,
        )
    except ValueError:
        return False


def _is_public(scope: Scope) -> bool:
    """Whether a request needs no token: the page, its files, and the health check."""
    path: str = scope["path"]
    is_shown = path in ("/", "/health") or path.startswith("/playground/")
    return is_shown and scope["method"] in ("GET", "HEAD")
