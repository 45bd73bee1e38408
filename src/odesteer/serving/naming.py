"""Steering in the name of a model: ``bundled+truth@1.5+polite@T=5``."""

from odesteer.artifact import read_asked
from odesteer.errors import UnknownNameError
from odesteer.serving.job import Applied
from odesteer.serving.shelf import Shelf


def steering_in(name: str, model_id: str, steerers: Shelf) -> list[Applied]:
    """The steerers that follow the model's own name, each with its amount if it has one.

    Raises `UnknownNameError` for another model or steerer, and `InvalidInputError` for what is no
    steering.
    """
    if name == model_id:
        return []
    if not name.startswith(f"{model_id}+"):
        raise UnknownNameError(
            f"there is no model {name!r:.200}; this server has {model_id!r}, and steered"
            f" {model_id}+NAME@AMOUNT with {', '.join(steerers) or 'no steerers'}."
        )
    asked = read_asked(name[len(model_id) + 1 :])
    return [Applied(one.name, one.amount_of(steerers[one.name].steerer)) for one in asked]
