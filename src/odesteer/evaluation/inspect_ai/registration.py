"""Entry point of Inspect AI: registers the provider ``odesteer`` without importing torch."""

from typing import Any

from inspect_ai.model import modelapi


@modelapi(name="odesteer")  # type: ignore[untyped-decorator]
def odesteer() -> Any:
    """The class of the provider, imported when a model of it is asked for."""
    from odesteer.evaluation.inspect_ai.provider import SteeredModelAPI

    return SteeredModelAPI
