"""Tensors that are kept between passes: in memory, or spilled to files that are mapped into it."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import ModelError
from odesteer.models.capture.spill import free_memory


class TensorKeeper:
    """Keeps copies of tensors on the CPU, in files once half of the free memory is filled.

    Files are mapped into memory, so that reading them needs nothing special. They go with this
    object, or at the latest when the process ends.

    Raises `ModelError` where the disk has no room either; to write to a mapped file on a full disk
    would end the process.

    Args:
        folder: where files go; by default the folder for temporary files.
        budget: bytes to keep in memory; by default half of what is free.
    """

    def __init__(self, folder: str | Path | None = None, budget: int | None = None) -> None:
        self._left = free_memory() // 2 if budget is None else budget
        self._parent = folder
        self._folder: Path | None = None
        self.files: list[Path] = []
        self.kept = 0  # bytes

    def __call__(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor on the CPU, without its graph."""
        size = tensor.numel() * tensor.element_size()
        self._left -= size
        self.kept += size
        if self._left >= 0 or not size:
            return _copied(tensor)
        file = self._new_file()
        free = shutil.disk_usage(file.parent).free
        if size > free:
            raise ModelError(
                f"training keeps hidden states, {self.kept / 2**30:.1f} GB so far; half of the free"
                f" memory is full, and the disk of {file.parent} has {free / 2**30:.1f} GB left;"
                " give another folder=, fewer or shorter texts, or a higher layer."
            )
        copied = _copied(tensor)
        options: dict[str, Any] = {"shared": True, "size": copied.numel(), "dtype": copied.dtype}
        mapped = torch.from_file(str(file), **options).view(copied.shape)
        mapped.copy_(copied)
        return mapped

    def _new_file(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="odesteer-states-", dir=self._parent))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.files.append(self._folder / f"{len(self.files)}")
        return self.files[-1]


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
