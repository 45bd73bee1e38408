"""Directions that users bring: a tensor, an array, or a tensor in a safetensors file."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError
from odesteer.untrusted import brief, is_integer

PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def read_direction(source: Any, tensor: str | None = None, row: int | None = None) -> Tensor:
    """The direction `[d]` of a tensor, an array or a safetensors file, a copy in float32.

    float64 stays float64. ``tensor`` names the tensor in a file with several; ``row`` takes one row
    of a matrix, such as a feature of the decoder of a sparse autoencoder. Raises
    `InvalidInputError` for anything that is no finite, nonzero vector of numbers.
    """
    if isinstance(source, (str, os.PathLike)):
        found = _tensor_of(Path(source), tensor)
    elif tensor is not None:
        raise InvalidInputError(f"tensor={tensor!r} names a tensor in a file; there is no file.")
    else:
        try:
            found = torch.as_tensor(source)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInputError(
                f"a direction is a tensor or an array of numbers, not {brief(source)}: {error}"
            ) from None
    return checked_direction(_row_of(found.detach(), row))


def checked_direction(direction: Tensor) -> Tensor:
    """A copy `[d]` in float32 or float64; raises `InvalidInputError` for what is no direction."""
    shape = tuple(direction.shape)
    if direction.ndim == 2 and 1 in shape:
        direction = direction.reshape(-1)
    if direction.ndim != 1 or not direction.numel():
        raise InvalidInputError(
            f"a direction is one vector [d], not a tensor of shape {shape}; take one row of a"
            " matrix with row=."
        )
    if direction.is_complex() or direction.dtype == torch.bool:
        raise InvalidInputError(f"a direction holds real numbers, not {direction.dtype}.")
    dtype = torch.float64 if direction.dtype == torch.float64 else torch.float32
    direction = direction.to("cpu", dtype, copy=True)
    if not bool(torch.isfinite(direction).all()):
        raise InvalidInputError("the direction holds NaN or infinities.")
    if not bool(direction.any()):
        raise InvalidInputError("the direction is zero; there is nothing to steer along.")
    return direction


def _row_of(matrix: Tensor, row: int | None) -> Tensor:
    if row is None:
        return matrix
    if matrix.ndim != 2:
        raise InvalidInputError(
            f"row={row} takes a row of a matrix, and this tensor has shape {tuple(matrix.shape)}."
        )
    if not is_integer(row) or not 0 <= row < len(matrix):
        raise InvalidInputError(f"there is no row {row!r}; the matrix has {len(matrix)} rows.")
    return matrix[row]


def _tensor_of(path: Path, name: str | None) -> Tensor:
    if path.suffix.lower() in PICKLED:
        raise InvalidInputError(
            f"{path} is a pickle by its name, and opening one runs what is in it; save the tensor"
            " as safetensors (safetensors.torch.save_file({'direction': v}, path)), or load it"
            " yourself and give the tensor."
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if name is None and len(names) != 1:
                raise InvalidInputError(
                    f"{path} holds {len(names)} tensors; say which one is the direction with"
                    f" tensor=, one of {brief(names)}."
                )
            if name is not None and name not in names:
                raise InvalidInputError(f"{path} has no tensor {name!r}; it has {brief(names)}.")
            found: Tensor = file.get_tensor(names[0] if name is None else name)
            return found
    except (SafetensorError, OSError) as error:
        raise InvalidInputError(f"cannot read {path}: {error}") from None
