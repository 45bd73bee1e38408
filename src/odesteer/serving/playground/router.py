"""Routes of the playground: ``GET /``, ``GET /playground/…``, ``POST /playground/trajectory``."""

from typing import Any

from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.responses import Response

from odesteer.serving.engine import Engine
from odesteer.serving.playground.assets import PAGE, assets
from odesteer.serving.playground.trajectory import TrajectoryRequest, trajectory_response


def router(engine: Engine) -> APIRouter:
    """The page, its files, and trajectories."""
    routes = APIRouter(tags=["playground"])
    files = assets()

    @routes.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        return files[PAGE].response(request)

    @routes.api_route("/playground/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(404, f"the playground has no file {name!r:.80}.")
        return files[name].response(request)

    @routes.post("/playground/trajectory")
    async def trajectory(body: TrajectoryRequest) -> dict[str, Any]:
        """The path of one activation of a text over the level sets of a barrier."""
        return await engine.call(lambda lm: trajectory_response(lm, engine.steerers, body))

    return routes
