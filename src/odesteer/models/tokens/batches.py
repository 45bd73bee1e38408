"""Batches of token ids: padding, grouping by length, batch sizes."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from odesteer.errors import InvalidInputError
from odesteer.models.architecture.layers import text_config
from odesteer.untrusted import is_integer

PaddingSide = Literal["left", "right"]

_CPU_BATCH = 16
_MAX_BATCH = 1024
# Numbers that a token takes in a layer, in residual widths (queries, keys, values, residuals) and
# in widths of the inside of the MLP.
_WIDTHS, _INNER_WIDTHS = 12, 3


def pad_batch(
    rows: Sequence[Sequence[int]], pad: int, side: PaddingSide, device: torch.device
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


def left_padding_mask(lengths: Sequence[int], device: torch.device) -> Tensor:
    """1 for tokens and 0 for padding, `[n, longest]`, of rows padded on the left."""
    width = max(lengths)
    columns = torch.arange(width, device=device)
    starts = torch.tensor([width - length for length in lengths], device=device)
    return (columns >= starts[:, None]).long()


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of similar length, the longest last. Callers begin at the end, so that
    memory runs out at once or not at all.

    Raises `InvalidInputError` for a batch size that is no positive integer.
    """
    if not is_integer(batch_size, 1):
        raise InvalidInputError(f"batch_size must be a positive integer, not {batch_size!r}.")
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    starts = range(len(order) % batch_size - batch_size, len(order), batch_size)
    return [batch for start in starts if (batch := order[max(start, 0) : start + batch_size])]


def estimate_batch_size(longest: int, model: nn.Module, device: torch.device) -> int:
    """The batch size for examples of up to ``longest`` tokens.

    On a CPU larger batches than 16 win nothing. On an accelerator half of the free memory is
    filled, by a rough count of what a token takes inside a layer, in a power of two of examples.
    """
    if device.type != "cuda":
        return _CPU_BATCH
    config = text_config(model)
    width = getattr(config, "hidden_size", None) or 4096
    inner = getattr(config, "intermediate_size", None) or 4 * width
    bytes_each = next((p.element_size() for p in model.parameters()), 4)
    free, _ = torch.cuda.mem_get_info(device)
    fitting = free // 2 // (longest * bytes_each * (_WIDTHS * width + _INNER_WIDTHS * inner))
    return 1 << min(max(int(fitting), 1).bit_length() - 1, _MAX_BATCH.bit_length() - 1)
