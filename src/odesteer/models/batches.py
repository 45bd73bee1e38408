"""Token ids in rectangular batches, and how large these are."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from odesteer.errors import InvalidInputError
from odesteer.models.layers import text_config
from odesteer.untrusted import is_integer

Side = Literal["left", "right"]

_ON_CPU = 16
_MOST = 1024
# What a token takes inside a layer: queries, keys, values and residuals; the perceptron's inside.
_WIDTHS, _INNER_WIDTHS = 12, 3


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


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of similar length, the longest last: it is taken first, so that memory
    runs out at once or not at all.

    Raises `InvalidInputError` for a batch size that is no positive integer.
    """
    if not is_integer(batch_size, 1):
        raise InvalidInputError(f"batch_size must be a positive integer, not {batch_size!r}.")
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    starts = range(len(order) % batch_size - batch_size, len(order), batch_size)
    return [batch for start in starts if (batch := order[max(start, 0) : start + batch_size])]


def found_batch_size(longest: int, model: nn.Module, device: torch.device) -> int:
    """How many examples of up to ``longest`` tokens to run at a time.

    On a CPU larger batches than 16 win nothing. On an accelerator half of the free memory is
    filled, by a rough count of what a token takes inside a layer, in a power of two of examples.
    """
    if device.type != "cuda":
        return _ON_CPU
    config = text_config(model)
    width = getattr(config, "hidden_size", None) or 4096
    inner = getattr(config, "intermediate_size", None) or 4 * width
    bytes_each = next((p.element_size() for p in model.parameters()), 4)
    free, _ = torch.cuda.mem_get_info(device)
    fitting = free // 2 // (longest * bytes_each * (_WIDTHS * width + _INNER_WIDTHS * inner))
    return 1 << min(max(int(fitting), 1).bit_length() - 1, _MOST.bit_length() - 1)
