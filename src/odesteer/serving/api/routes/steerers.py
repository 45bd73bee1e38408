"""What there is: ``/v1/models`` and ``/v1/steerers``."""

import asyncio
import math
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from typing_extensions import TypedDict

from odesteer.artifact import Steerer, SteererSet, check_name, load
from odesteer.serving.api.errors import APIError, ASCIIJSONResponse
from odesteer.serving.engine import Engine
from odesteer.serving.settings import Settings
from odesteer.serving.steerers import RegisteredSteerer, steering_in


class ModelInfo(TypedDict):
    """A model, or a model under a steerer."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelList(TypedDict):
    """All models."""

    object: str
    data: list[ModelInfo]


class BarrierLevels(TypedDict):
    """The values of h, nats, that levels 1 and -1 stand for."""

    upper: float
    lower: float


class SteererInfo(TypedDict):
    """A steerer, or a set of them, of which the first one's site is told."""

    id: str
    object: str
    method: str
    layer: int
    position: str
    sites: list[dict[str, Any]]
    quantities: list[str]
    default_amount: dict[str, Any]
    barrier: BarrierLevels | None
    gate: str | None
    digest: str
    uploaded: bool
    provenance: dict[str, Any]
    held_out: dict[str, float]
    card: str


class SteererList(TypedDict):
    """All steerers."""

    object: str
    data: list[SteererInfo]


def router(engine: Engine, settings: Settings) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    began = int(time.time())

    def model_answer(name: str) -> ModelInfo:
        return {"id": name, "object": "model", "created": began, "owned_by": "odesteer"}

    @routes.get("/v1/models", response_model=ModelList, tags=["catalogue"])
    async def models() -> ASCIIJSONResponse:
        """The model, and the model under each of the steerers at its usual amount."""
        names = [engine.model_id, *(f"{engine.model_id}+{name}" for name in engine.steerers)]
        return ASCIIJSONResponse({"object": "list", "data": [model_answer(name) for name in names]})

    @routes.get("/v1/models/{name:path}", response_model=ModelInfo, tags=["catalogue"])
    async def model(name: str) -> ASCIIJSONResponse:
        """One model, with steering in its name if wanted."""
        for applied in steering_in(name, engine.model_id, engine.steerers):
            engine.steerers[applied.name].check(applied.amount)
        return ASCIIJSONResponse(model_answer(name))

    @routes.get("/v1/steerers", response_model=SteererList, tags=["catalogue"])
    async def steerers() -> ASCIIJSONResponse:
        """All steerers."""
        entries = list(engine.steerers.values())
        return ASCIIJSONResponse(
            {"object": "list", "data": [described(entry) for entry in entries]}
        )

    @routes.get("/v1/steerers/{name}", response_model=SteererInfo, tags=["catalogue"])
    async def steerer(name: str) -> ASCIIJSONResponse:
        """One steerer."""
        return ASCIIJSONResponse(described(engine.steerers[name]))

    @routes.put(
        "/v1/steerers/{name}",
        response_model=SteererInfo,
        tags=["catalogue"],
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
        """Put a steerer on the shelf, the file that `Steerer.save` wrote as the body.

        It takes the place of an uploaded one of the same name.
        """
        if not settings.allow_upload:
            raise APIError(403, "this server takes no uploads; start it with --allow-upload.")
        check_name(name)
        if name not in engine.steerers and len(engine.steerers) >= settings.max_steerers:
            raise APIError(409, f"this server keeps {settings.max_steerers} steerers; delete one.")
        artifact = await asyncio.to_thread(_loaded, await request.body())
        return ASCIIJSONResponse(described(engine.steerers.add(name, artifact, uploaded=True)))

    @routes.delete("/v1/steerers/{name}", tags=["catalogue"])
    async def remove(name: str) -> ASCIIJSONResponse:
        """Take an uploaded steerer off the shelf."""
        if not settings.allow_upload:
            raise APIError(403, "this server was started without --allow-upload.")
        if not engine.steerers[name].uploaded:
            raise APIError(403, f"{name!r} was not uploaded; leave it out at the start instead.")
        engine.steerers.remove(name)
        return ASCIIJSONResponse({"id": name, "object": "steerer", "deleted": True})

    return routes


def _loaded(body: bytes) -> Steerer | SteererSet:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload.safetensors"
        path.write_bytes(body)
        return load(path)


def described(entry: RegisteredSteerer) -> SteererInfo:
    """A steerer as plain data."""
    first = entry.steerer.members[0]
    sites = [asdict(part.site) for part in entry.parts]
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
        "layer": entry.parts[0].site.layer,
        "position": entry.parts[0].site.position,
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
