"""Serving a steered model over OpenAI's API, each request with its own steering."""

from odesteer.serving.app import create_app
from odesteer.serving.bundled import BUNDLED, fitted_worlds
from odesteer.serving.engine import BusyError, Engine
from odesteer.serving.job import Applied, Job, Sampling
from odesteer.serving.server import bound, run
from odesteer.serving.settings import Settings

__all__ = [
    "BUNDLED",
    "Applied",
    "BusyError",
    "Engine",
    "Job",
    "Sampling",
    "Settings",
    "bound",
    "create_app",
    "fitted_worlds",
    "run",
]
