"""Playground: the web page that shows steering, and its routes."""

from odesteer.serving.playground.router import router

__all__ = ["router"]
