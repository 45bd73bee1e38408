"""Steered models as a model type of lm-evaluation-harness (the package ``lm_eval``).

``lm_eval`` looks models up in a registry of its own and reads no entry points, so the model has to
be registered first: run ``python -m odesteer.evaluation.harness`` in place of the command
``lm_eval``, or call `register` in Python.
"""

from typing import Any

from odesteer.errors import MissingDependencyError

__all__ = ["NAME", "register"]

NAME = "odesteer"
"""The model's name in the registry of ``lm_eval``."""


def register() -> type[Any]:
    """Make ``lm_eval.simple_evaluate(model="odesteer", ...)`` work; returns the model's class.

    May be called more than once. Raises `MissingDependencyError` without ``lm_eval``.
    """
    try:
        # lm_eval registers its own models only while its registry is empty: import them first.
        import lm_eval.models  # noqa: F401
        from lm_eval.api.registry import register_model
    except ImportError as error:
        raise MissingDependencyError(
            f"lm-evaluation-harness cannot be imported ({error}); install it with"
            " pip install 'odesteer[bench]'."
        ) from error
    from odesteer.evaluation.harness.model import SteeredHFLM

    register_model(NAME)(SteeredHFLM)
    return SteeredHFLM
