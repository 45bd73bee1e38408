"""Serving a steered model over OpenAI's API, each request with its own steering."""

from odesteer.serving.api.app import create_app
from odesteer.serving.bundled import BUNDLED, fitted_worlds
from odesteer.serving.engine import BusyError, Engine, GenerationRequest, SamplingParams
from odesteer.serving.server import listening_socket, run
from odesteer.serving.settings import Settings
from odesteer.serving.steerers import SteeringSpec

__all__ = [
    "BUNDLED",
    "BusyError",
    "Engine",
    "GenerationRequest",
    "SamplingParams",
    "Settings",
    "SteeringSpec",
    "create_app",
    "fitted_worlds",
    "listening_socket",
    "run",
]
