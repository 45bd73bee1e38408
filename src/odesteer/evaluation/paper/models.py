"""The four models of arXiv 2602.17560: where to get them, the steered layer, T, and their size."""

from dataclasses import dataclass

from odesteer.errors import InvalidInputError


@dataclass(frozen=True)
class Architecture:
    """What time and memory depend on.

    Attributes:
        parameters: of the whole model.
        layers: decoder layers.
        cache_width: width of the keys of one layer and token: key-value heads × width of a head.
    """

    parameters: float
    layers: int
    cache_width: int


@dataclass(frozen=True)
class PaperModel:
    """A model of the paper; a base model, without a chat template.

    Attributes:
        key: how the command line calls it.
        hub: its id on the Hugging Face hub.
        layer: the steered decoder layer, counted from zero (the paper counts from one).
        lengths: the T of table 5, in activation units.
        detox_lengths: those of detoxification.
        architecture: its size.
    """

    key: str
    hub: str
    layer: int
    lengths: tuple[float, ...]
    detox_lengths: tuple[float, ...]
    architecture: Architecture

    def lengths_for(self, task: str) -> tuple[float, ...]:
        """The T to choose from in a task."""
        return self.detox_lengths if task == "realtoxicityprompts" else self.lengths


MODELS = (
    PaperModel(
        "falcon-7b",
        "tiiuae/falcon-7b",
        14,
        (20.0, 21.0, 22.0, 23.0),
        (20.0, 21.0, 22.0, 23.0),
        Architecture(7.22e9, 32, 64),
    ),
    PaperModel(
        "mistral-7b-v0.3",
        "mistralai/Mistral-7B-v0.3",
        15,
        (3.0, 3.5, 4.0),
        (3.0, 3.5, 4.0),
        Architecture(7.25e9, 32, 1024),
    ),
    PaperModel(
        "llama-3.1-8b",
        "meta-llama/Llama-3.1-8B",
        13,
        (4.0, 5.0, 6.0),
        (4.0, 5.0, 6.0),
        Architecture(8.03e9, 32, 1024),
    ),
    PaperModel(
        "qwen2.5-7b",
        "Qwen/Qwen2.5-7B",
        13,
        (13.0, 14.0, 15.0, 16.0),
        (48.0,),
        Architecture(7.62e9, 28, 512),
    ),
)


def paper_model(key: str) -> PaperModel:
    """The model of that key. Raises `InvalidInputError` with the keys there are."""
    found = {model.key: model for model in MODELS}
    if key.lower() not in found:
        raise InvalidInputError(f"the paper has no model {key!r}; it has {', '.join(found)}.")
    return found[key.lower()]
