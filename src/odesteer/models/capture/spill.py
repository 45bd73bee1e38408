"""Spilling activations to disk: written in shards, read a layer at a time."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError
from odesteer.files import write_file

SHARD_BYTES = 128 * 2**20

_PLAN = "capture.json"


class ActivationShards:
    """A folder of captured activations in shards.

    A shard is a safetensors file with ``example`` and ``token`` `[m]`, the numbers of the example
    and of the token of each row, and ``layer.N`` `[m, d]` in the type of the model. Shards appear
    whole or not at all, so that a capture that was killed goes on with what is missing; up to
    ``shard_bytes`` of work are lost. About three times as much memory is in use.

    ``plan`` describes the capture. Raises `InvalidInputError` for a folder that holds another.
    """

    def __init__(
        self, folder: str | Path, plan: Mapping[str, Any], shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder = Path(folder)
        self._shard_bytes = shard_bytes
        self._rows: list[tuple[int, int]] = []
        self._parts: list[dict[int, Tensor]] = []
        self._size = 0
        self._open_folder(dict(plan))
        self._files = sorted(self.folder.glob("shard-*.safetensors"))

    def _open_folder(self, plan: dict[str, Any]) -> None:
        known = self.folder / _PLAN
        if known.exists():
            try:
                found = json.loads(known.read_text())
            except (OSError, ValueError):
                found = None
            if found != plan:
                raise InvalidInputError(
                    f"{self.folder} holds the activations of another capture (other examples,"
                    " layers, positions, seed or model); give another folder, or remove it."
                )
        for partial in self.folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)  # of a process that was killed
        if known.exists():
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise InvalidInputError(
                f"{self.folder} is not empty and holds no capture; give a new folder."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(known, (json.dumps(plan, indent=1) + "\n").encode())

    def done(self) -> set[int]:
        """The examples whose activations are on disk."""
        return {example for file in self._files for example in _rows_of_shard(file)[0].tolist()}

    def add(self, rows: Sequence[tuple[int, int]], states: Mapping[int, Tensor]) -> None:
        """Add the activations of some (example, token), `[m, d]` for each layer."""
        self._rows += rows
        self._parts.append(dict(states))
        self._size += sum(part.numel() * part.element_size() for part in states.values())
        if self._size >= self._shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what has been added."""
        if not self._rows:
            return
        from safetensors.torch import save

        where = torch.tensor(self._rows)
        tensors = {
            f"layer.{layer}": torch.cat([part[layer] for part in self._parts])
            for layer in self._parts[0]
        }
        self._parts = []
        named = {"example": where[:, 0].contiguous(), "token": where[:, 1].contiguous(), **tensors}
        # One more than the last number, since shards in between may have been removed.
        number = int(self._files[-1].stem.removeprefix("shard-")) + 1 if self._files else 0
        file = self.folder / f"shard-{number:05}.safetensors"
        write_file(file, save(named))
        self._files.append(file)
        self._rows, self._size = [], 0

    def read(self, layers: Sequence[int]) -> tuple["ShardedStates", Tensor]:
        """The activations of each layer, on disk, and the example of each row, increasing."""
        places = [torch.stack(_rows_of_shard(file), dim=1) for file in self._files]
        every = torch.cat(places)
        # Rows by example, and by token within it.
        order = torch.from_numpy(_lexicographic(every))
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        ranks = torch.split(rank, [len(part) for part in places])
        return ShardedStates(layers, list(zip(self._files, ranks, strict=True))), every[order, 0]


class ShardedStates(Mapping[int, Tensor]):
    """Activations by layer, `[n, d]`, read from disk at each access."""

    def __init__(self, layers: Sequence[int], files: Sequence[tuple[Path, Tensor]]) -> None:
        self._layers = tuple(layers)
        self._files = tuple(files)

    def __getitem__(self, layer: int) -> Tensor:
        from safetensors import safe_open

        if layer not in self._layers:
            raise KeyError(layer)
        states: Tensor | None = None
        n = sum(len(rank) for _, rank in self._files)
        for file, rank in self._files:
            with safe_open(file, "pt") as shard:
                part = shard.get_tensor(f"layer.{layer}")
            if states is None:
                wide = torch.float64 if part.dtype == torch.float64 else torch.float32
                states = torch.empty(n, part.shape[1], dtype=wide)
            states[rank] = part.to(states.dtype)
        assert states is not None
        return states

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def _rows_of_shard(file: Path) -> tuple[Tensor, Tensor]:
    from safetensors import safe_open

    with safe_open(file, "pt") as shard:
        return shard.get_tensor("example"), shard.get_tensor("token")


def _lexicographic(pairs: Tensor) -> Any:
    import numpy as np

    return np.lexsort((pairs[:, 1].numpy(), pairs[:, 0].numpy()))


@contextmanager
def spill_folder(n_numbers: int, folder: str | Path | None) -> Iterator[str | Path | None]:
    """The folder to spill ``n_numbers`` of float32 to, or None to keep them in memory.

    It is the given one, or a temporary one where they would fill more than half of the free
    memory.
    """
    if folder is not None or 4 * n_numbers <= free_memory() // 2:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="odesteer-activations-") as scratch:
        yield scratch


def free_memory() -> int:
    """Bytes of available memory; where that is unknown, more than any machine has."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        figures = dict(line.split(":", 1) for line in lines if ":" in line)
        return 1024 * int(figures["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return 2**62
