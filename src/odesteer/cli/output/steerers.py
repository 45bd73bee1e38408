"""Describe a steerer as plain data, for JSON output and for tables."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odesteer.artifact import Steerer, SteererSet


def describe(steerer: "Steerer | SteererSet") -> dict[str, Any]:
    """Method, site, provenance and figures of a steerer, or of each of a set, as plain data."""
    from odesteer.artifact import SteererSet

    if isinstance(steerer, SteererSet):
        return {
            "digest": steerer.digest(),
            "quantities": list(steerer.quantities),
            "steerers": [_describe_one(member) for member in steerer],
        }
    return _describe_one(steerer)


def _describe_one(steerer: "Steerer") -> dict[str, Any]:
    origin, method = steerer.provenance, steerer.method
    barrier = getattr(method, "barrier", None)
    return {
        "digest": steerer.digest(),
        "method": type(method).__name__,
        "parameters": {
            name: _plain(value) for name, value in method.get_params(deep=False).items()
        },
        "quantities": list(method.quantities),
        "default": str(method.default_amount),
        "width": steerer.width,
        "mean_norm": method.mean_norm_,
        "strength_unit": method.strength_unit,
        "site": None if steerer.site is None else asdict(steerer.site),
        "gate": None if steerer.gate is None else str(steerer.gate),
        "levels": None if barrier is None else {"1": barrier.upper_, "-1": barrier.lower_},
        "features": _features(barrier),
        "held_out": dict(origin.held_out),
        "provenance": {
            name: value
            for name, value in asdict(origin).items()
            if name != "held_out" and value is not None
        },
    }


def _features(barrier: Any) -> list[dict[str, Any]] | None:
    """The features of a sparse autoencoder that carry a barrier; None for other barriers."""
    from odesteer.barriers import SAEBarrier

    if not isinstance(barrier, SAEBarrier):
        return None
    return [share._asdict() for share in barrier.carriers()]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
