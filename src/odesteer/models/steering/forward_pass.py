"""The current forward pass: its padding mask, the columns before it, and where the prompt ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact.positions import Phase, SteerPosition
from odesteer.errors import ModelError
from odesteer.models.steering.positions import Ends, steered_columns
from odesteer.models.steering.texts import BatchTexts


@dataclass
class ForwardPass:
    """One forward pass.

    Attributes:
        past: number of columns seen before, held in a cache.
        length: number of columns of this pass.
        mask: the padding mask as the model was given it, of any shape.
        ends: where the prompts end, counted in columns from the first.
        device_past: ``past`` as a tensor, where only the device has it; while a graph is traced.
        number: which pass it is, counted from zero since the steering began.
        texts: the tokens up to its end; None where no position depends on them.
    """

    past: int = 0
    length: int = 1
    mask: Any = None
    ends: Ends = (1,)
    device_past: Tensor | None = None
    number: int = 0
    texts: BatchTexts | None = None
    _active: dict[tuple[int, torch.device], Tensor | None] = field(default_factory=dict)
    _phases: dict[tuple[Phase, torch.device], Tensor] = field(default_factory=dict)

    @property
    def is_generated(self) -> bool:
        """Whether all of its columns are behind the prompts."""
        return self.past >= max(self.ends)

    def columns(self, position: SteerPosition | str) -> range:
        """The columns at a position in at least one row; phases are not looked at."""
        return steered_columns(position, self.length, self.past, self.ends)

    def active(self, length: int, device: torch.device) -> Tensor | None:
        """True for tokens, False for padding: bool `[batch, length]`; None if all are tokens."""
        key = (length, device)
        if key not in self._active:
            self._active[key] = self._read_mask(length, device)
        return self._active[key]

    def in_prompt(self, batch: int, columns: range, device: torch.device) -> Tensor | None:
        """Whether ``columns`` belong to each row's prompt, bool `[batch, columns]`.

        None where one number says it for all rows.
        """
        if len(self.ends) == 1:
            return None
        return self._absolute(columns, device) < self._ends_of_rows(batch, device)

    def behind(self, position: SteerPosition, batch: int, columns: range, device: Any) -> Any:
        """The same for positions that are counted from the end of the prompt."""
        if len(self.ends) == 1:
            return None
        first = self._ends_of_rows(batch, device) - position.lead
        absolute = self._absolute(columns, device)
        behind = absolute >= first
        if position.start == 0 and position.stop is None:
            return behind
        # Tokens are counted, and there may be padding between a prompt and what follows it.
        number, tokens = absolute - first, self._tokens_so_far(device)
        if tokens is not None:
            counted = tokens & (torch.arange(tokens.shape[1], device=device) >= first)
            number = counted.cumsum(dim=1)[:, absolute] - 1
        within = behind & (number >= position.start)
        return within if position.stop is None else within & (number < position.stop)

    def in_phase(self, phase: Phase, device: torch.device) -> Tensor:
        """Of all columns, whether they lie in a phase of the text, bool `[batch, length]`.

        Raises `ModelError` if the tokens are not known.
        """
        if self.texts is None:
            raise ModelError(
                "positions such as 'thinking' and 'after:MARKER' depend on the text, and the model"
                " was given embeddings; give it token ids."
            )
        key = phase, device
        if key not in self._phases:
            found = self.texts.in_phase(phase, self.ends, self.past)
            self._phases[key] = torch.tensor(found, device=device)
        return self._phases[key]

    def last_of_prompt(self, active: Tensor, what: str) -> tuple[Tensor, Tensor]:
        """Of the prompts that end in this pass, the last token: its column and whether it is here.

        ``active`` is `[batch, length]`; both are `[batch]`. Raises `ModelError` for rows that are
        padded on the right and ended in an earlier pass, which nobody could know there.
        """
        stop = min(max(self.ends) - self.past, self.length)
        prompt = active[:, :stop]
        last = (prompt * torch.arange(stop, device=active.device)).argmax(dim=1)
        found = prompt.any(dim=1)
        if self.past and not bool(found.all()):
            raise ModelError(
                f"{what} needs the last token of each prompt, and some prompts, padded on the"
                " right, ended in an earlier pass; say where each ends with prompt_width=[...]."
            )
        return last, found

    def _ends_of_rows(self, batch: int, device: torch.device) -> Tensor:
        copies, rest = divmod(batch, len(self.ends))
        if rest or not copies:
            raise ModelError(
                f"prompt_width has {len(self.ends)} numbers, and the model was given {batch} rows;"
                " give one for each row."
            )
        return torch.tensor(self.ends, device=device).repeat_interleave(copies)[:, None]

    def _absolute(self, columns: range, device: torch.device) -> Tensor:
        return torch.arange(self.past + columns.start, self.past + columns.stop, device=device)

    def _tokens_so_far(self, device: torch.device) -> Tensor | None:
        """True for tokens up to the end of the pass, bool `[batch, past + length]`, if known."""
        mask, stop = self._mask_tensor(), self.past + self.length
        if mask is not None and mask.ndim == 2 and mask.shape[1] >= stop:
            return mask[:, :stop].to(device) != 0
        if mask is not None and mask.ndim == 4 and mask.shape[-1] >= stop:
            last = mask[:, 0, -1, :stop].to(device)
            return last if last.dtype == torch.bool else last == 0
        return None

    def _mask_tensor(self) -> Tensor | None:
        mask = self.mask
        if isinstance(mask, Mapping):  # one for each kind of attention
            mask = mask.get("full_attention", next(iter(mask.values()), None))
        return mask if isinstance(mask, Tensor) else None

    def _read_mask(self, length: int, device: torch.device) -> Tensor | None:
        mask = self._mask_tensor()
        # A single column behind the prompt is a generated token, never padding.
        if (length == 1 and self.is_generated) or mask is None:
            return None
        if mask.ndim == 2 and mask.shape[1] >= length:
            # With a static cache the mask is as long as the cache.
            stop = min(self.past + length, mask.shape[1])
            return mask[:, stop - length : stop].to(device) != 0
        if mask.ndim == 4 and mask.shape[-2] == length and mask.shape[-1] >= self.past + length:
            # A token attends to itself, padding to nothing. Boolean, or added to the logits.
            own = mask[:, 0].diagonal(self.past, dim1=-2, dim2=-1).to(device)
            return own if own.dtype == torch.bool else own == 0
        return None
