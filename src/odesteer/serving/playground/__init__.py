"""The page on which a person sees steering happen, and what it asks beside the API."""

from odesteer.serving.playground.router import router

__all__ = ["router"]
