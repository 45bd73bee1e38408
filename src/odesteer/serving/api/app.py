"""The application: an engine behind OpenAI's API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from odesteer.serving import playground
from odesteer.serving.api.errors import ErrorResponse, answer_errors
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.middleware import Guard
from odesteer.serving.api.routes import chat, completions
from odesteer.serving.api.routes import health as status
from odesteer.serving.api.routes import steerers as catalogue
from odesteer.serving.engine import Engine
from odesteer.serving.settings import Settings
from odesteer.version import __version__

_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorResponse, "description": what}
    for code, what in {
        400: "It cannot be done as it was asked.",
        401: "The token is missing or wrong.",
        403: "It is not allowed here.",
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
        await engine.close()

    # The documentation pages of FastAPI load scripts from elsewhere.
    app = FastAPI(
        title="odesteer",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
    )
    metrics = Metrics(engine)
    for routes in (
        chat.router(engine, settings, metrics),
        completions.router(engine, settings, metrics),
        catalogue.router(engine, settings),
        status.router(engine, metrics),
        playground.router(engine),
    ):
        app.include_router(routes)
    answer_errors(app)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    return app
