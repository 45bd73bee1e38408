"""What one forward pass of a model is given: its padding mask and how much it has seen before."""

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.models.layers import argument_names
from odesteer.models.positions import steered_columns
from odesteer.models.prompt_width import PromptWidth, SaidWidth

_CACHES = ("past_key_values", "cache_params", "state")


@dataclass
class Pass:
    """One forward pass.

    Attributes:
        past: number of columns seen before, held in a cache.
        mask: the padding mask as the model was given it, of any shape.
        cached: False where there is no cache that would tell generated tokens from a prompt.
        counted: the number of columns where only the device knows it; while a graph is made.
    """

    past: int = 0
    mask: Any = None
    cached: bool = True
    counted: Tensor | None = None
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
        # One column alone is a generated token, never padding: no mask, and no work, for these.
        if length == 1 or not isinstance(mask, Tensor):
            return None
        if mask.ndim == 2 and mask.shape[1] >= length:
            # It may be longer than what has been seen: as long as a static cache.
            stop = min(self.past + length, mask.shape[1])
            return mask[:, stop - length : stop].to(device) != 0
        if mask.ndim == 4 and mask.shape[-2] == length and mask.shape[-1] >= self.past + length:
            # A token attends to itself, padding to nothing. Boolean, or added to the logits.
            own = mask[:, 0].diagonal(self.past, dim1=-2, dim2=-1).to(device)
            return own if own.dtype == torch.bool else own == 0
        return None


class PassReader:
    """Reads a `Pass` from the arguments of the module that runs the decoder layers."""

    def __init__(self, owner: nn.Module) -> None:
        self._names = argument_names(owner)
        self._shows_cache = any(name in self._names for name in _CACHES)
        self._cache: Any = None
        self._columns = 0

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Pass:
        """The pass that is about to run; reads no tensor while single tokens are fed."""
        given = {**dict(zip(self._names, args, strict=False)), **kwargs} if args else kwargs
        cache = None
        for name in _CACHES:
            if cache is None:
                cache = given.get(name)
        inputs = given.get("input_ids")
        inputs = given.get("inputs_embeds") if inputs is None else inputs
        length = inputs.shape[1] if isinstance(inputs, Tensor) and inputs.ndim > 1 else 1
        past = self._past(cache, length)
        self._columns = past + length
        return Pass(
            past=past,
            mask=given.get("attention_mask"),
            cached=cache is not None or (self._shows_cache and given.get("use_cache") is not False),
        )

    def trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Pass:
        """The same while a graph is made: nothing is kept from pass to pass."""
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        cache = given.get("past_key_values")
        self._cache = None
        past = 0 if cache is None else cache.get_seq_length()
        if isinstance(past, Tensor):
            return Pass(counted=past.clone())  # before the layers count on
        return Pass(past, given.get("attention_mask"))

    def counts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Count a pass over a single token that goes on as the last pass did; whether it is one."""
        inputs, cache = kwargs.get("input_ids"), kwargs.get("past_key_values")
        if args or inputs is None or cache is None or inputs.shape[-1] != 1:
            return False
        if self._cache is None or self._cache() is not cache:
            return False
        self._columns += 1
        return True

    def _past(self, cache: Any, length: int) -> int:
        if cache is None:
            # A model that hides its state from us is fed one token where it continues.
            return 0 if self._shows_cache or length > 1 else self._columns
        known = self._cache is not None and self._cache() is cache
        self._cache = _reference(cache)
        columns = _columns(cache)
        # Static caches keep the number on the device, and recurrent ones keep none: count along
        # while single tokens are fed to one cache, instead of waiting for the device at each.
        if isinstance(columns, Tensor):
            return self._columns if known and length == 1 else int(columns)
        if columns is None:
            return max(self._columns, 1) if known or length == 1 else 0
        return columns


class Here(threading.local):
    """What each thread has of its own, in a form that compiled code can guard on."""

    def __init__(self) -> None:  # not on the class, where compiled code would not look again
        self.active = False


_STEP = Pass(past=1)  # a single token somewhere behind the first


@dataclass
class Run:
    """What the hooks of one steering share.

    Attributes:
        reader: reads what each pass is given.
        width: how many columns are the prompt, if somebody knows.
        is_read: whether somebody asks where in the sequence single tokens are.
        compiled: whether graphs of the compiler may hold the hooks.
        here: whether the calling thread is steered, for these.
        thread: whose passes count.
        said: how many columns are the prompt, if somebody knows, in the pass that is running.
        now: the pass that is running.
        n_passes: number of passes begun.
    """

    reader: PassReader
    width: PromptWidth | SaidWidth
    is_read: bool = True
    compiled: bool = False
    here: Here = field(default_factory=Here)
    thread: int | None = None
    said: int | None = None
    now: Pass = field(default_factory=Pass)
    n_passes: int = 0

    def begin(self, owner: nn.Module, args: tuple[Any, ...], *kwargs: dict[str, Any]) -> None:
        """Before a forward pass: note what the model is given."""
        if self.compiled and torch.compiler.is_compiling():
            self.now = self.reader.trace(args, kwargs[0])
            self.said = self.width.columns
        elif threading.get_ident() == self.thread:
            self.n_passes += 1
            self.said = self.width.columns
            if self.is_read or self.said is not None or not self.reader.counts(args, kwargs[0]):
                self.now = self.reader.read(args, kwargs[0])
            else:
                self.now = _STEP

    def columns(self, position: str, length: int, what: str | None = None) -> range:
        """The columns of this pass, of ``length`` columns, at a position.

        Raises `ModelError` where prompt and generated tokens cannot be told apart, naming ``what``
        needs to know.
        """
        width = self.said
        if width is None and not self.now.cached and position in ("prompt", "generated"):
            raise ModelError(
                f"{what or f'position {position!r}'} cannot tell prompt from generated tokens"
                " without a cache; use a cache, or say where the prompt ends with prompt_width=."
            )
        return steered_columns(position, length, self.now.past, width)


def _columns(cache: Any) -> int | Tensor | None:
    """Number of columns in a cache, 0 for one that is empty, None if it cannot tell."""
    try:
        columns = cache.get_seq_length()
        return columns if isinstance(columns, Tensor) else int(columns)
    except (AttributeError, ValueError):  # not a cache of keys and values, or without any
        try:
            return None if cache.has_previous_state() else 0
        except (AttributeError, ValueError, TypeError):
            return None


def _reference(cache: Any) -> Any:
    try:
        return weakref.ref(cache)
    except TypeError:  # a list of states
        return lambda: cache
