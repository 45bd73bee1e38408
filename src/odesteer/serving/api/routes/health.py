"""``/health`` and ``/metrics``."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response
from typing_extensions import TypedDict

from odesteer.serving.api.errors import ASCIIJSONResponse
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.engine import Engine


class HealthResponse(TypedDict):
    """Whether the server is well."""

    status: str
    model: str
    waiting: int
    running: int


def router(engine: Engine, metrics: Metrics) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/health", response_model=HealthResponse, tags=["status"])
    async def health() -> ASCIIJSONResponse:
        """Whether the server can write; status 503 if not."""
        well = engine.is_alive
        health: HealthResponse = {
            "status": "ok" if well else "failed",
            "model": engine.model_id,
            "waiting": engine.n_waiting,
            "running": engine.n_running,
        }
        return ASCIIJSONResponse(health, 200 if well else 503)

    @routes.get("/metrics", response_class=Response, tags=["status"])
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
