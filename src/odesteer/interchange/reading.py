"""`read_steerer`: steering vectors and edits in the files of other projects."""

import os
from dataclasses import replace
from pathlib import Path

from odesteer.artifact import Provenance, Site, Steerer, SteererSet
from odesteer.errors import ArtifactError, InvalidInputError
from odesteer.interchange.gguf_file import read_gguf
from odesteer.interchange.tensor_file import read_tensors, steerer_of
from odesteer.interchange.vllm_lens import read_vllm_lens
from odesteer.methods import CAA
from odesteer.methods.given_direction import PICKLED


def read_steerer(
    path: str | os.PathLike[str],
    *,
    layer: int | None = None,
    tensor: str | None = None,
    row: int | None = None,
    position: str | None = None,
    provenance: Provenance | None = None,
) -> Steerer | SteererSet:
    """The steerer in a file that another project wrote; several layers give a set.

    Args:
        path: a control vector in GGUF (llama.cpp, repeng, EasySteer); a safetensors file with a
            vector for each layer, named by its layer, or with LoReFT edits (``rotate_layer``,
            ``weight``, ``bias``); or the JSON of a steering vector of vllm-lens.
        layer: of a safetensors file with one vector that does not name its layer.
        tensor: the tensor that is meant, of a safetensors file with other ones.
        row: the row of that tensor, such as a feature of ``W_dec`` of a sparse autoencoder.
        position: which tokens are steered; by default as in the file, and all where it says
            nothing.
        provenance: the model that the vectors are for, as far as it is known.

    Raises `ArtifactError` for any other file, and `InvalidInputError` where the model in the
    provenance has another width or too few layers.
    """
    path = Path(path)
    try:
        found = _read(path, layer, tensor, row, position)
    except OSError as error:
        raise ArtifactError(f"cannot import {path}: {error.strerror or error}.") from None
    except (ArtifactError, InvalidInputError) as error:
        if str(error).startswith("cannot read"):
            raise
        raise ArtifactError(f"cannot import {path}: {error}") from None
    return found if provenance is None else _of_model(found, provenance)


def _read(
    path: Path, layer: int | None, tensor: str | None, row: int | None, position: str | None
) -> Steerer | SteererSet:
    suffix = path.suffix.lower()
    if suffix in PICKLED:
        raise ArtifactError(
            "it is a pickle by its name, and opening one runs what is in it. Load it where you"
            " trust it, and save its vectors with safetensors.torch.save_file({'layer.13': v,"
            " ...}, 'vectors.safetensors')."
        )
    if suffix != ".safetensors" and (tensor is not None or row is not None):
        raise InvalidInputError("a tensor or a row is chosen in a safetensors file only.")
    if suffix in (".gguf", ".json") and layer is not None:
        raise InvalidInputError(f"the file names its layers itself; leave out layer {layer}.")
    if suffix == ".gguf":
        return read_gguf(path).to_steerer(position)
    if suffix == ".json":
        return read_vllm_lens(path, position)
    tensors = read_tensors(path)
    if tensor is None and row is None:
        return steerer_of(tensors, layer, position)
    if layer is None:
        raise InvalidInputError("a tensor that is chosen by name needs its layer (--layer).")
    return Steerer(CAA.from_direction(path, tensor=tensor, row=row), Site(layer, position or "all"))


def _of_model(found: Steerer | SteererSet, provenance: Provenance) -> Steerer | SteererSet:
    width, n_layers = provenance.model_width, provenance.n_layers
    model = provenance.model_id or "the model"
    for member in found.members:
        if width is not None and member.width != width:
            raise InvalidInputError(
                f"the vectors have the width {member.width}, and {model} has {width}; they were"
                " made for another model."
            )
        if n_layers is not None and member.site is not None and member.site.layer >= n_layers:
            raise InvalidInputError(
                f"there is a vector for layer {member.site.layer}, and {model} has {n_layers}"
                f" layers, counted from zero: 0 to {n_layers - 1}."
            )
    members = [replace(member, provenance=provenance) for member in found.members]
    return SteererSet(members) if isinstance(found, SteererSet) else members[0]
