"""Routes: ``GET /health`` and ``GET /metrics``."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from odesteer.serving.api.errors import ASCIIJSONResponse
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.response_schema import Health
from odesteer.serving.engine import Engine


def router(engine: Engine, metrics: Metrics) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["status"])

    @routes.get("/health", response_model=Health)
    async def health() -> ASCIIJSONResponse:
        """Whether the server can write; status 503 if not."""
        is_alive = engine.is_alive
        health: Health = {
            "status": "ok" if is_alive else "failed",
            "model": engine.model_id,
            "waiting": engine.n_waiting,
            "running": engine.n_running,
        }
        return ASCIIJSONResponse(health, 200 if is_alive else 503)

    @routes.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
