"""The current forward pass: its padding mask, the columns before it, and where the prompt ends."""

import itertools
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.models.architecture.kv_cache import CACHE_ARGUMENTS, cache_reference, cached_columns
from odesteer.models.architecture.layers import argument_names
from odesteer.models.steering.positions import (
    Ends,
    PromptWidth,
    ThreadPromptWidth,
    steered_columns,
)
from odesteer.models.steering.threads import cover, covering, uncover, warn_uncovered


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
    """

    past: int = 0
    length: int = 1
    mask: Any = None
    ends: Ends = (1,)
    device_past: Tensor | None = None
    number: int = 0
    _active: dict[tuple[int, torch.device], Tensor | None] = field(default_factory=dict)

    @property
    def is_generated(self) -> bool:
        """Whether all of its columns are behind the prompts."""
        return self.past >= max(self.ends)

    def columns(self, position: str) -> range:
        """The columns at a position in at least one row."""
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

    def behind(self, position: str, batch: int, columns: range, device: torch.device) -> Any:
        """The same for `last` or `generated`: from each row's first column at the position on."""
        if len(self.ends) == 1:
            return None
        first = self._ends_of_rows(batch, device) - int(position == "last")
        return self._absolute(columns, device) >= first

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

    def _read_mask(self, length: int, device: torch.device) -> Tensor | None:
        mask = self.mask
        if isinstance(mask, Mapping):  # one for each kind of attention
            mask = mask.get("full_attention", next(iter(mask.values()), None))
        # A single column behind the prompt is a generated token, never padding.
        if (length == 1 and self.is_generated) or not isinstance(mask, Tensor):
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


_DECODING_STEP = ForwardPass(past=1)  # a single token somewhere behind the prompt


class KnownPrompts:
    """Where prompts end, if nobody says so.

    The first pass over a sequence is its prompt, and what follows is generated. A pass follows if
    it has a cache that is in use, or if it begins with the prompt before it (without a cache).
    """

    def __init__(self) -> None:
        self._end: int | None = None
        self._ends: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._prompt: Tensor | None = None

    def end_of(self, cache: Any, past: int, length: int, inputs: Any) -> int:
        """The number of columns that are the prompt, of a sequence whose next pass is given."""
        if past:
            end = self._of_cache(cache)
            if end is None and self._end is not None and past >= self._end:
                end = self._end
            if end is None:  # in use before anybody looked
                end = past + length if length > 1 else past
        else:
            end = self._of_same_prompt(inputs) if cache is None else None
            if end is None:
                end = length
                self._prompt = inputs if isinstance(inputs, Tensor) else None
        self._end = end
        try:
            if cache is not None:
                self._ends[cache] = end
        except TypeError:  # a list of states, which cannot be referred to weakly
            pass
        return end

    def _of_same_prompt(self, inputs: Any) -> int | None:
        """The length of the last prompt if ``inputs`` begin with it."""
        prompt = self._prompt
        if prompt is None or not isinstance(inputs, Tensor) or inputs.ndim != prompt.ndim:
            return None
        n = prompt.shape[1]
        longer = inputs.shape[0] == prompt.shape[0] and inputs.shape[1] > n
        if not longer or inputs.dtype != prompt.dtype:
            return None
        return n if torch.equal(inputs[:, :n], prompt) else None

    def _of_cache(self, cache: Any) -> int | None:
        try:
            return self._ends.get(cache)
        except TypeError:
            return None


class ForwardPassReader:
    """Reads a `ForwardPass` from the arguments of the module that runs the decoder layers."""

    def __init__(self, owner: nn.Module, prompts: KnownPrompts | None = None) -> None:
        self._names = argument_names(owner)
        self._shows_cache = any(name in self._names for name in CACHE_ARGUMENTS)
        self._prompts = KnownPrompts() if prompts is None else prompts
        self._cache: Any = None
        self._columns = 0

    def read(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], ends: Ends | None = None
    ) -> ForwardPass:
        """The pass that is about to run; ``ends`` are where the prompts end, if it is known."""
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
        if ends is None:
            ends = (self._prompts.end_of(cache, past, length, inputs),)
        return ForwardPass(past, length, arguments.get("attention_mask"), ends)

    def read_traced(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], ends: Ends | None = None
    ) -> ForwardPass:
        """The same while a graph is traced: nothing is kept from pass to pass."""
        arguments = {**dict(zip(self._names, args, strict=False)), **kwargs}
        cache = arguments.get("past_key_values")
        inputs = arguments.get("input_ids")
        inputs = arguments.get("inputs_embeds") if inputs is None else inputs
        length = 1 if inputs is None else inputs.shape[1]
        self._cache = None
        past = 0 if cache is None else cache.get_seq_length()
        if isinstance(past, Tensor):
            known = (0,) if ends is None else ends  # in use, so behind the prompt
            return ForwardPass(0, length, None, known, past.clone())  # before the layers count on
        if ends is None:
            if past and length > 1:
                raise ModelError(
                    "a compiled graph cannot tell whether several tokens behind a cache are"
                    " prompt or generated; say where the prompt ends with prompt_width=."
                )
            ends = (past or length,)
        return ForwardPass(past, length, arguments.get("attention_mask"), ends)

    def continues_decoding(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a pass decodes one more token with the cache of the last pass; counts it."""
        inputs, cache = kwargs.get("input_ids"), kwargs.get("past_key_values")
        if args or inputs is None or cache is None or inputs.shape[-1] != 1:
            return False
        if self._cache is None or self._cache() is not cache:
            return False
        columns = cached_columns(cache)
        if not isinstance(columns, Tensor) and columns is not None and columns < self._columns:
            return False  # it was cropped
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


class _ThreadPasses(threading.local):
    """The passes of each thread: threads of one steering may run at once."""

    def __init__(self, owner: nn.Module, prompts: KnownPrompts) -> None:
        self.reader = ForwardPassReader(owner, prompts)
        self.current = ForwardPass()
        self.ends: Ends | None = None
        self.is_decoding = False


_numbers = itertools.count(1)
_enabled: "weakref.WeakValueDictionary[int, PassTracker]" = weakref.WeakValueDictionary()


class PassTracker:
    """The current forward pass, for the hooks of one `Steering`.

    Args:
        owner: the module that runs the decoder layers.
        prompt_width: where the number of prompt columns is set.
        needs_columns: whether positions in the sequence are needed for single tokens too.
        compiled: whether the hooks may be traced into graphs of the compiler.

    Attributes:
        thread_state: whether the calling thread is steered, for these graphs.
        traced: the current pass while a graph is traced.
        n_passes: number of passes begun.
        number: by which contexts and threads are covered.
    """

    def __init__(
        self,
        owner: nn.Module,
        prompt_width: ThreadPromptWidth | PromptWidth,
        *,
        needs_columns: bool = False,
        compiled: bool = False,
    ) -> None:
        self.owner = owner
        self.prompt_width = prompt_width
        self.compiled = compiled
        self.thread_state = ThreadState()
        self.traced = ForwardPass()
        self.n_passes = 0
        self.number = next(_numbers)
        self._needs_columns = needs_columns
        self._reader = ForwardPassReader(owner, KnownPrompts())
        self._passes = _ThreadPasses(owner, KnownPrompts())
        self._has_warned = False

    @property
    def current(self) -> ForwardPass:
        """The pass that the calling thread runs."""
        return self._passes.current

    def start(self) -> None:
        """Cover the current context; the next pass is the first."""
        self._passes = _ThreadPasses(self.owner, KnownPrompts())
        self.n_passes = 0
        self.thread_state.active = True
        _enabled[self.number] = self
        cover(self.number)

    def stop(self) -> None:
        """Cover no context any more."""
        uncover(self.number)
        _enabled.pop(self.number, None)
        self.thread_state = ThreadState()  # also if another thread stops it

    @property
    def covers(self) -> bool:
        """Whether the current context, or thread, is steered."""
        return self.number in covering()

    def begin(self, owner: nn.Module, args: tuple[Any, ...], *kwargs: dict[str, Any]) -> None:
        """Hook before a forward pass: read its arguments."""
        if self.compiled and torch.compiler.is_compiling():
            self.traced = self._reader.read_traced(args, kwargs[0], self.prompt_width.ends)
            return
        if not self.covers:
            self._warn_once()
            return
        if not kwargs:  # the hook is being removed by another thread
            return
        self.n_passes += 1
        passes, ends = self._passes, self.prompt_width.ends
        if (
            passes.is_decoding
            and not self._needs_columns
            and ends == passes.ends
            and passes.reader.continues_decoding(args, kwargs[0])
        ):
            passes.current = self.traced = _DECODING_STEP
            return
        current = passes.reader.read(args, kwargs[0], ends)
        current.number = self.n_passes - 1
        passes.current, passes.ends = current, ends
        self.traced = current  # for layers that are compiled one by one
        passes.is_decoding = current.past + current.length >= max(current.ends)

    def _warn_once(self) -> None:
        """Warn of a pass that no steering of this model covers."""
        if self._has_warned:
            return
        for number in covering():
            other = _enabled.get(number)
            if other is not None and other.owner is self.owner:
                return
        self._has_warned = True
        warn_uncovered()


def is_steered(owner: nn.Module) -> bool:
    """Whether a steering of the model whose layers ``owner`` runs covers the current context."""
    enabled = (_enabled.get(number) for number in covering())
    return any(tracker is not None and tracker.owner is owner for tracker in enabled)
