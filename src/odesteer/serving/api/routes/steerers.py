"""Routes: ``/v1/models`` and ``/v1/steerers``, uploads of steerers included."""

import asyncio
import math
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from fastapi import APIRouter, Request

from odesteer.artifact import Steerer, SteererSet, check_name, load
from odesteer.serving.api.errors import APIError, ASCIIJSONResponse
from odesteer.serving.api.response_schema import (
    BarrierLevels,
    ModelInfo,
    ModelList,
    SteererInfo,
    SteererList,
)
from odesteer.serving.engine import Engine
from odesteer.serving.settings import Settings
from odesteer.serving.steerers import RegisteredSteerer, parse_model_name


def router(engine: Engine, settings: Settings) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["catalogue"])
    created = int(time.time())

    def model_info(name: str) -> ModelInfo:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "odesteer",
            "has_chat_template": engine.lm.template.exists,
        }

    @routes.get("/v1/models", response_model=ModelList)
    async def models() -> ASCIIJSONResponse:
        """The model, and the model under each of the steerers at its usual amount."""
        names = [engine.model_id, *(f"{engine.model_id}+{name}" for name in engine.steerers)]
        return ASCIIJSONResponse({"object": "list", "data": [model_info(name) for name in names]})

    @routes.get("/v1/models/{name:path}", response_model=ModelInfo)
    async def model(name: str) -> ASCIIJSONResponse:
        """One model, with steering in its name if wanted."""
        for spec in parse_model_name(name, engine.model_id, engine.steerers):
            engine.steerers[spec.name].check(spec.amount)
        return ASCIIJSONResponse(model_info(name))

    @routes.get("/v1/steerers", response_model=SteererList)
    async def steerers() -> ASCIIJSONResponse:
        """All steerers."""
        entries = list(engine.steerers.values())
        return ASCIIJSONResponse(
            {"object": "list", "data": [_steerer_info(entry) for entry in entries]}
        )

    @routes.get("/v1/steerers/{name}", response_model=SteererInfo)
    async def steerer(name: str) -> ASCIIJSONResponse:
        """One steerer."""
        return ASCIIJSONResponse(_steerer_info(engine.steerers[name]))

    @routes.put(
        "/v1/steerers/{name}",
        response_model=SteererInfo,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
                },
            }
        },
    )
    async def upload(request: Request, name: str) -> ASCIIJSONResponse:
        """Upload a steerer: the file that `Steerer.save` wrote, as the body.

        It replaces an uploaded one of the same name.
        """
        if not settings.allow_upload:
            raise APIError(403, "this server takes no uploads; start it with --allow-upload.")
        check_name(name)
        if name not in engine.steerers and len(engine.steerers) >= settings.max_steerers:
            raise APIError(409, f"this server keeps {settings.max_steerers} steerers; delete one.")
        artifact = await asyncio.to_thread(_load, await request.body())
        return ASCIIJSONResponse(_steerer_info(engine.steerers.add(name, artifact, uploaded=True)))

    @routes.delete("/v1/steerers/{name}")
    async def remove(name: str) -> ASCIIJSONResponse:
        """Remove an uploaded steerer."""
        if not settings.allow_upload:
            raise APIError(403, "this server was started without --allow-upload.")
        if not engine.steerers[name].uploaded:
            raise APIError(403, f"{name!r} was not uploaded; leave it out at the start instead.")
        engine.steerers.remove(name)
        return ASCIIJSONResponse({"id": name, "object": "steerer", "deleted": True})

    return routes


def _load(body: bytes) -> Steerer | SteererSet:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload.safetensors"
        path.write_bytes(body)
        return load(path)


def _steerer_info(entry: RegisteredSteerer) -> SteererInfo:
    first = entry.steerer.members[0]
    sites = [asdict(member.site) for member in entry.members]
    amount = first.method.default_amount
    barrier = getattr(first.method, "barrier", None) if len(sites) == 1 else None
    levels: BarrierLevels | None = None
    if barrier is not None and math.isfinite(barrier.upper_ + barrier.lower_):
        levels = {"upper": barrier.upper_, "lower": barrier.lower_}
    provenance = asdict(first.provenance)
    return {
        "id": entry.name,
        "object": "steerer",
        "method": type(first.method).__name__,
        "layer": entry.members[0].site.layer,
        "position": entry.members[0].site.position,
        "sites": sites,
        "quantities": list(entry.steerer.quantities),
        "default_amount": {"quantity": amount.quantity, "value": float(amount.value)},
        "barrier": levels,
        "gate": None if first.gate is None else str(first.gate),
        "digest": entry.digest,
        "uploaded": entry.uploaded,
        "held_out": provenance.pop("held_out"),
        "provenance": provenance,
        "card": entry.card,
    }
