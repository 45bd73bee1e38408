"""Checks that this version of vLLM has the internals that the plugin needs."""

from typing import Any

import torch

from odesteer.errors import ModelError
from odesteer.version import __version__

TESTED = "0.32.0"
"""The version of vLLM that the plugin is tested with."""


def require_attributes(owner: Any, *names: str) -> None:
    """Raise `ModelError`, naming versions, unless ``owner`` has these attributes."""
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        kind = owner if isinstance(owner, type) else type(owner)
        what = getattr(owner, "__name__", f"{kind.__module__}.{kind.__qualname__}")
        raise unsupported(f"{what} has no {', '.join(missing)}")


def unsupported(reason: str) -> ModelError:
    """The error for a vLLM with other internals."""
    from vllm import __version__ as found

    return ModelError(
        f"odesteer {__version__} cannot steer this vLLM ({found}, torch {torch.__version__}):"
        f" {reason}. It is tested with vLLM {TESTED}; install that, or a newer odesteer."
    )
