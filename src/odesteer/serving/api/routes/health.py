"""Routes: ``GET /health`` and ``GET /metrics``."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from odesteer.serving.api.errors import ASCIIJSONResponse
from odesteer.serving.api.metrics import Metrics
from odesteer.serving.api.response_schema import Health
from odesteer.serving.engine import Engine
from odesteer.serving.settings import Settings


def router(engine: Engine, settings: Settings, metrics: Metrics) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["status"])

    @routes.get("/health", response_model=Health)
    async def health() -> ASCIIJSONResponse:
        """Whether the server can write; status 503 if not."""
        age = engine.heartbeat_age
        status = "ok" if age <= settings.stalled_after else "stalled"
        if not engine.is_alive:
            status = "failed"
        health: Health = {
            "status": status,
            "model": engine.model_id,
            "waiting": engine.n_waiting,
            "running": engine.n_running,
            "heartbeat_age": round(age, 3),
        }
        return ASCIIJSONResponse(health, 200 if status == "ok" else 503)

    @routes.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
