"""Telling lm-evaluation-harness about the model."""

from typing import Any

from odesteer.errors import MissingDependencyError

NAME = "odesteer"
"""What the model is called there."""


def register() -> type[Any]:
    """Make ``lm_eval.simple_evaluate(model="odesteer", ...)`` work; the class of the model.

    It may be repeated. Raises `MissingDependencyError` without ``lm_eval``.
    """
    try:
        # Its own models come first: it registers them only as long as there are none.
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
