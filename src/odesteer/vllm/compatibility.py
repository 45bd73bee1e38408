"""Checks that this version of vLLM has the internals that the plugin needs."""

import inspect
import sys
from collections.abc import Callable, Sequence
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


def require_signature(owner: Any, name: str, parameters: Sequence[str]) -> Any:
    """The function ``name`` of ``owner``, if its first parameters have these names, in this order.

    Raises `ModelError`, naming versions, otherwise: a function of the same name may do another
    thing. Parameters that follow may differ.
    """
    require_attributes(owner, name)
    function = getattr(owner, name)
    found = list(inspect.signature(function).parameters)
    if found[: len(parameters)] != list(parameters):
        where = getattr(owner, "__name__", type(owner).__name__)
        raise unsupported(
            f"{where}.{name} takes ({', '.join(found)}), and ({', '.join(parameters)}) is expected"
        )
    return function


def replace_everywhere(original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    """Replace a function of vLLM in every module that has it, also under another name.

    Modules that are imported later take it from the module that defines it.
    """
    for name, module in list(sys.modules.items()):
        if module is not None and (name == "vllm" or name.startswith("vllm.")):
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, replacement)


def unsupported(reason: str) -> ModelError:
    """The error for a vLLM with other internals."""
    from vllm import __version__ as found

    return ModelError(
        f"odesteer {__version__} cannot steer this vLLM ({found}, torch {torch.__version__}):"
        f" {reason}. It is tested with vLLM {TESTED}; install that, or a newer odesteer."
    )
