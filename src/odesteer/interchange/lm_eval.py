"""Export for the model type ``steered`` of lm-evaluation-harness."""

import io
import os
from pathlib import Path

import torch

from odesteer.files import write_file
from odesteer.interchange.control_vector import ControlVector

DEFAULT_LAYERS = "layers"


def write_lm_eval(
    vector: ControlVector, path: str | os.PathLike[str], layers: str = DEFAULT_LAYERS
) -> None:
    """Write a control vector for ``lm_eval --model steered --model_args …,steer_path=PATH``.

    lm-eval reads a ``.pt`` file: a pickled dictionary of vectors by the names that the modules have
    in the base model. ``layers`` is the name of its list of decoder layers ("layers" for Llama,
    Qwen, Mistral and Gemma, "h" for GPT-2). All tokens are steered there.

    Raises `ArtifactError` if the file cannot be written.
    """
    content = {
        f"{layers}.{layer}": {
            "steering_vector": direction.clone(),
            "steering_coefficient": 1.0,
            "action": "add",
            "bias": None,
            "head_index": None,
        }
        for layer, direction in vector.directions.items()
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(Path(path), buffer.getvalue())
