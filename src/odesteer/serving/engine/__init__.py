"""Generation engine: continuous batching of requests, each with its own steering."""

from odesteer.serving.engine.engine import BusyError, Engine
from odesteer.serving.engine.request import GenerationRequest, SamplingParams
from odesteer.serving.engine.scheduler import EndedError

__all__ = ["BusyError", "EndedError", "Engine", "GenerationRequest", "SamplingParams"]
