"""The FastAPI application: an engine behind OpenAI's API."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from odesteer.serving import playground
from odesteer.serving.api.errors import add_error_handlers
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.middleware import (
    AccessMiddleware,
    BodyLimitMiddleware,
    MetricsMiddleware,
    OriginMiddleware,
    SecurityHeadersMiddleware,
)
from odesteer.serving.api.response_schema import ErrorResponse
from odesteer.serving.api.routes import completions, health, steerers
from odesteer.serving.engine import Engine
from odesteer.serving.settings import Settings
from odesteer.version import __version__

_log = logging.getLogger("odesteer.serving")

_ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "It cannot be done as it was asked.",
        401: "The token is missing or wrong.",
        403: "It is not allowed here.",
        408: "The body did not arrive in time.",
        404: "There is no such model or steerer.",
        413: "The body is too large.",
        429: "The queue is full; the header Retry-After says when to try again.",
    }.items()
}


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """The application; the engine starts and ends with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        # Running requests have had their time; what is left is the step that runs.
        if not await engine.close(settings.close_timeout):
            _log.error("the model did not end its step in %d s", settings.close_timeout)

    # FastAPI's documentation pages load scripts of other origins, so they are off.
    app = FastAPI(
        title="odesteer",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=_ERROR_RESPONSES,
    )
    metrics = Metrics(engine)
    for router in (
        completions.router(engine, settings, metrics),
        steerers.router(engine, settings),
        health.router(engine, settings, metrics),
        playground.router(engine),
    ):
        app.include_router(router)
    add_error_handlers(app)
    add_middleware(app, settings)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    return app


def add_middleware(app: FastAPI, settings: Settings) -> None:
    """Let an app check where requests come from, and limit their bodies."""
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, settings=settings)
    app.add_middleware(AccessMiddleware, token=settings.token)
    app.add_middleware(OriginMiddleware, allowed=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*settings.hosts], www_redirect=False)
    app.add_middleware(SecurityHeadersMiddleware)
