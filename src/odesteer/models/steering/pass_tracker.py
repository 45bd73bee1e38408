"""Which forward passes a steering covers, thread by thread, and the current one of each."""

import itertools
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.artifact.phases import PADDING, MarkerReader
from odesteer.models.steering.forward_pass import ForwardPass
from odesteer.models.steering.known_prompts import KnownPrompts
from odesteer.models.steering.pass_reader import ForwardPassReader
from odesteer.models.steering.positions import Ends, PromptWidth, ThreadPromptWidth
from odesteer.models.steering.texts import BatchTexts, KnownTexts
from odesteer.models.steering.threads import cover, covering, uncover, warn_uncovered

_DECODING_STEP = ForwardPass(past=1)  # a single token somewhere behind the prompt


class ThreadState(threading.local):
    """Whether the calling thread is steered, in a form that compiled code can guard on."""

    def __init__(self) -> None:  # on the instance, since compiled code does not guard on the class
        self.active = False


class _ThreadPasses(threading.local):
    """The passes of each thread: threads of one steering may run at once."""

    def __init__(self, owner: nn.Module, prompts: KnownPrompts) -> None:
        self.reader = ForwardPassReader(owner, prompts)
        self.texts: KnownTexts | None = None
        self.embedded: Any = None
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
        markers: finds markers in the texts, where positions depend on these.

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
        markers: MarkerReader | None = None,
    ) -> None:
        self.owner = owner
        self.prompt_width = prompt_width
        self.compiled = compiled
        self.thread_state = ThreadState()
        self.traced = ForwardPass()
        self.n_passes = 0
        self.number = next(_numbers)
        self._needs_columns = needs_columns or markers is not None
        self._markers = markers
        self._given_texts: BatchTexts | None = None
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

    def looks_covered(self) -> bool:
        """`covers`; warns once where it is False."""
        if self.covers:
            return True
        self._warn_once()
        return False

    def begin(self, owner: nn.Module, args: tuple[Any, ...], *kwargs: dict[str, Any]) -> None:
        """Hook before a forward pass: read its arguments."""
        if self.compiled and torch.compiler.is_compiling():
            self.traced = self._reader.read_traced(args, kwargs[0], self.prompt_width.ends)
            return
        if not self.looks_covered():
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
        self._read_texts(current, passes)
        passes.current, passes.ends = current, ends
        self.traced = current  # for layers that are compiled one by one
        passes.is_decoding = current.past + current.length >= max(current.ends)

    def give_texts(self, rows: Sequence[Sequence[int]]) -> None:
        """The tokens that the cache of the first pass holds, by row and column.

        Later passes are added to them, also where steering is enabled again in between.
        """
        if self._markers is not None:
            self._given_texts = BatchTexts(rows, self._markers)

    def see_embedded(self, module: nn.Module, args: tuple[Any, ...], *kwargs: Any) -> None:
        """Hook before the input embedding: keep its token ids."""
        if self.covers:
            given = args[0] if args else next(iter((kwargs[0] if kwargs else {}).values()), None)
            self._passes.embedded = given

    def _read_texts(self, current: ForwardPass, passes: _ThreadPasses) -> None:
        """Add the tokens of the pass to the texts, where positions depend on them."""
        if self._markers is None:
            return
        if passes.texts is None:
            passes.texts = KnownTexts(self._markers)
            if self._given_texts is not None:
                passes.texts.give(self._given_texts)
        ids, embedded = passes.reader.inputs, passes.embedded
        passes.embedded = None
        if isinstance(ids, Tensor) and ids.ndim == 3:  # embeddings
            same = isinstance(embedded, Tensor) and embedded.shape == ids.shape[:2]
            ids = embedded if same else None
        if not isinstance(ids, Tensor) or ids.ndim != 2:
            return  # an error where a position is looked for
        active = current.active(current.length, ids.device)
        if active is not None:
            ids = torch.where(active, ids, PADDING)
        current.texts = passes.texts.read(passes.reader.cache, current.past, ids.tolist())

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
