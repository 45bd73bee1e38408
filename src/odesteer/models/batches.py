"""Token ids in rectangular batches."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Side = Literal["left", "right"]


def padded(
    rows: Sequence[Sequence[int]], pad: int, side: Side, device: torch.device
) -> dict[str, Tensor]:
    """``input_ids``, ``attention_mask`` and ``position_ids``, each `[n, longest]`."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        part = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[i, part] = torch.tensor(row)
        mask[i, part] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: tensor.to(device) for name, tensor in inputs.items()}
