"""The current forward pass: its padding mask and the number of columns before it."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.models.architecture.kv_cache import CACHE_ARGUMENTS, cache_reference, cached_columns
from odesteer.models.architecture.layers import argument_names
from odesteer.models.steering.positions import PromptWidth, ThreadPromptWidth, steered_columns


@dataclass
class ForwardPass:
    """One forward pass.

    Attributes:
        past: number of columns seen before, held in a cache.
        mask: the padding mask as the model was given it, of any shape.
        cached: False where there is no cache that would tell generated tokens from a prompt.
        device_past: that number as a tensor, where only the device has it; while a graph is traced.
    """

    past: int = 0
    mask: Any = None
    cached: bool = True
    device_past: Tensor | None = None
    _active: dict[tuple[int, torch.device], Tensor | None] = field(default_factory=dict)

    def active(self, length: int, device: torch.device) -> Tensor | None:
        """True for tokens, False for padding: bool `[batch, length]`; None if all are tokens."""
        key = (length, device)
        if key not in self._active:
            self._active[key] = self._read_mask(length, device)
        return self._active[key]

    def _read_mask(self, length: int, device: torch.device) -> Tensor | None:
        mask = self.mask
        if isinstance(mask, Mapping):  # one for each kind of attention
            mask = mask.get("full_attention", next(iter(mask.values()), None))
        # A single column is a generated token, never padding.
        if length == 1 or not isinstance(mask, Tensor):
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


class ForwardPassReader:
    """Reads a `ForwardPass` from the arguments of the module that runs the decoder layers."""

    def __init__(self, owner: nn.Module) -> None:
        self._names = argument_names(owner)
        self._shows_cache = any(name in self._names for name in CACHE_ARGUMENTS)
        self._cache: Any = None
        self._columns = 0

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ForwardPass:
        """The pass that is about to run; reads no tensor while single tokens are decoded."""
        arguments = {**dict(zip(self._names, args, strict=False)), **kwargs} if args else kwargs
        cache = None
        for name in CACHE_ARGUMENTS:
            if cache is None:
                cache = arguments.get(name)
        inputs = arguments.get("input_ids")
        inputs = arguments.get("inputs_embeds") if inputs is None else inputs
        length = inputs.shape[1] if isinstance(inputs, Tensor) and inputs.ndim > 1 else 1
        past = self._past(cache, length)
        self._columns = past + length
        return ForwardPass(
            past=past,
            mask=arguments.get("attention_mask"),
            cached=cache is not None
            or (self._shows_cache and arguments.get("use_cache") is not False),
        )

    def read_traced(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ForwardPass:
        """The same while a graph is traced: nothing is kept from pass to pass."""
        arguments = {**dict(zip(self._names, args, strict=False)), **kwargs}
        cache = arguments.get("past_key_values")
        self._cache = None
        past = 0 if cache is None else cache.get_seq_length()
        if isinstance(past, Tensor):
            return ForwardPass(device_past=past.clone())  # before the layers count on
        return ForwardPass(past, arguments.get("attention_mask"))

    def continues_decoding(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a pass decodes one more token with the cache of the last pass; counts it."""
        inputs, cache = kwargs.get("input_ids"), kwargs.get("past_key_values")
        if args or inputs is None or cache is None or inputs.shape[-1] != 1:
            return False
        if self._cache is None or self._cache() is not cache:
            return False
        self._columns += 1
        return True

    def _past(self, cache: Any, length: int) -> int:
        if cache is None:
            # A model that does not show its state continues where it is given one token.
            return 0 if self._shows_cache or length > 1 else self._columns
        known = self._cache is not None and self._cache() is cache
        self._cache = cache_reference(cache)
        columns = cached_columns(cache)
        # Static caches keep the number on the device, and recurrent ones keep none: count while
        # single tokens are decoded with one cache, instead of waiting for the device.
        if isinstance(columns, Tensor):
            return self._columns if known and length == 1 else int(columns)
        if columns is None:
            return max(self._columns, 1) if known or length == 1 else 0
        return columns


class ThreadState(threading.local):
    """Whether the calling thread is steered, in a form that compiled code can guard on."""

    def __init__(self) -> None:  # on the instance, since compiled code does not guard on the class
        self.active = False


_DECODING_STEP = ForwardPass(past=1)  # a single token somewhere behind the first


@dataclass
class PassTracker:
    """The state of the current forward pass, shared by the hooks of one `Steering`.

    Attributes:
        reader: reads what the arguments of each pass.
        prompt_width: where the number of prompt columns is set.
        needs_columns: whether positions in the sequence are needed for single tokens too.
        compiled: whether the hooks may be traced into graphs of the compiler.
        thread_state: whether the calling thread is steered, for these graphs.
        thread: identifier of the thread whose passes are steered.
        prompt_columns: number of prompt columns in the current pass; None where unknown.
        current: the current pass.
        n_passes: number of passes begun.
    """

    reader: ForwardPassReader
    prompt_width: ThreadPromptWidth | PromptWidth
    needs_columns: bool = True
    compiled: bool = False
    thread_state: ThreadState = field(default_factory=ThreadState)
    thread: int | None = None
    prompt_columns: int | None = None
    current: ForwardPass = field(default_factory=ForwardPass)
    n_passes: int = 0

    def begin(self, owner: nn.Module, args: tuple[Any, ...], *kwargs: dict[str, Any]) -> None:
        """Hook before a forward pass: read its arguments."""
        if self.compiled and torch.compiler.is_compiling():
            self.current = self.reader.read_traced(args, kwargs[0])
            self.prompt_columns = self.prompt_width.columns
        elif threading.get_ident() == self.thread:
            self.n_passes += 1
            self.prompt_columns = self.prompt_width.columns
            if (
                self.needs_columns
                or self.prompt_columns is not None
                or not self.reader.continues_decoding(args, kwargs[0])
            ):
                self.current = self.reader.read(args, kwargs[0])
            else:
                self.current = _DECODING_STEP

    def columns(self, position: str, length: int, what: str | None = None) -> range:
        """The columns of the current pass, of ``length`` columns, at a position.

        Raises `ModelError` where prompt and generated tokens cannot be told apart, naming ``what``
        needs to know.
        """
        width = self.prompt_columns
        if width is None and not self.current.cached and position in ("prompt", "generated"):
            raise ModelError(
                f"{what or f'position {position!r}'} cannot tell prompt from generated tokens"
                " without a cache; use a cache, or say where the prompt ends with prompt_width=."
            )
        return steered_columns(position, length, self.current.past, width)
