"""Capturing the activations of examples at chosen layers and tokens."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.models.architecture.hooks import HookSet
from odesteer.models.architecture.layers import accepts_argument, argument_names
from odesteer.models.architecture.sites import (
    ModelSites,
    SiteModule,
    hidden_states,
    input_states,
    raise_bypassed,
)
from odesteer.models.capture.spill import ActivationShards
from odesteer.models.tokens.batches import (
    PaddingSide,
    batches_by_length,
    estimate_batch_size,
    pad_batch,
)
from odesteer.models.tokens.encoding import Encoded


@dataclass(frozen=True)
class Activations:
    """Captured activations.

    Attributes:
        states: for each layer `[n, d]`, on the CPU, in at least float32. From a folder they are
            read, and of one among several positions picked out, whenever a layer is asked for.
        example: `[n]`, the example that each row came from, increasing.
    """

    states: Mapping[int, Tensor]
    example: Tensor

    def rows(self, chosen: Tensor) -> "Activations":
        """Those in the ``chosen`` rows `[m]`."""
        return Activations(_SelectedRows(self.states, chosen), self.example[chosen])


class _SelectedRows(Mapping[int, Tensor]):
    """Some rows of each layer, selected at each access, since activations may be on disk."""

    def __init__(self, states: Mapping[int, Tensor], chosen: Tensor) -> None:
        self._states, self._chosen = states, chosen

    def __getitem__(self, layer: int) -> Tensor:
        return self._states[layer][self._chosen]

    def __iter__(self) -> Iterator[int]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)


@dataclass
class Capturer:
    """Runs a model on examples up to the highest layer that is wanted.

    Attributes:
        model: called with the batches.
        sites: the sites of the model.
        device: where its inputs go.
        pad: token id for padding.
        side: where the padding goes. On the right it changes no position of any architecture.
    """

    model: nn.Module
    sites: ModelSites
    device: torch.device
    pad: int
    side: PaddingSide = "right"

    def capture(
        self,
        examples: Sequence[Encoded],
        tokens: Sequence[Sequence[int]],
        at: Sequence[int],
        part: str = "residual",
        *,
        batch_size: int | None = None,
        store: ActivationShards | None = None,
        progress: bool | Callable[[int], None] = False,
    ) -> Activations:
        """The activations of a part of the layers ``at``, at the ``tokens`` of each example.

        Batches hold examples of similar length and shrink by half where memory runs out; without
        a ``batch_size`` they are as large as `estimate_batch_size` says. With a ``store`` the
        activations go there, and what it holds already is not computed again. Raises `ModelError`
        for activations that are not finite.
        """
        modules = [self.sites.at(layer, part) for layer in at]
        lengths = [len(example) for example in examples]
        if batch_size is None:
            batch_size = estimate_batch_size(max(lengths), self.model, self.device)
        collected: ActivationShards | _MemoryStore = _MemoryStore() if store is None else store
        done = set[int]() if store is None else store.done()
        # Cut into batches as if nothing were done, so that the numbers are the same.
        queue = [
            batch for batch in batches_by_length(lengths, batch_size) if not done.issuperset(batch)
        ]
        with progress_bar(len(examples), progress) as advance:
            advance(len(examples) - sum(map(len, queue)))
            while queue:
                batch = queue.pop()
                states = self._run(batch, examples, tokens, modules)
                if states is None:
                    half = len(batch) // 2
                    queue += [batch[half:], batch[:half]]
                    continue
                if store is not None:
                    for site in modules:
                        check_finite(states[site.layer], site)
                missing = [i not in done for i in batch for _ in tokens[i]]
                if not all(missing):  # a batch that was halved when it was stored
                    states = {layer: own[torch.tensor(missing)] for layer, own in states.items()}
                rows = [(i, token) for i in batch if i not in done for token in tokens[i]]
                collected.add(rows, states)
                advance(len(batch))
        collected.flush()
        activations = Activations(*collected.read(at))
        if store is None:
            for site in modules:
                check_finite(activations.states[site.layer], site)
        return activations

    def _run(
        self,
        batch: Sequence[int],
        examples: Sequence[Encoded],
        tokens: Sequence[Sequence[int]],
        modules: Sequence[SiteModule],
    ) -> dict[int, Tensor] | None:
        """One forward pass; None if memory ran out and a smaller batch may fit."""
        inputs = pad_batch([examples[i].ids for i in batch], self.pad, self.side, self.device)
        width = inputs["input_ids"].shape[1]
        rows = [row for row, i in enumerate(batch) for _ in tokens[i]]
        shift = [width - len(examples[i]) if self.side == "left" else 0 for i in batch]
        columns = [shift[row] + token for row, i in enumerate(batch) for token in tokens[i]]
        # With padding on the right the default positions are right.
        takes_positions = "position_ids" in argument_names(self.sites.layers.owner)
        if (
            self.side == "right"
            or not takes_positions
            or not accepts_argument(self.model, "position_ids")
        ):
            del inputs["position_ids"]
        options = {"use_cache": False} if accepts_argument(self.model, "use_cache") else {}
        chosen = torch.tensor(rows), torch.tensor(columns)
        hooks_by_layer = {site.layer: _CaptureHook(site, *chosen) for site in modules}
        deepest = max(modules, key=lambda site: site.layer)
        hooks_by_layer[deepest.layer].is_last = True
        hooks = [(hook.site.module, hook) for hook in hooks_by_layer.values()]
        before, after = ([], hooks) if deepest.is_output else (hooks, [])
        try:
            with HookSet(before, after), torch.no_grad():
                self.model(**inputs, **options)
        except _StopForward:
            pass
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise ModelError(
                    f"example {batch[0]}, of {len(examples[batch[0]])} tokens, does not fit in"
                    " memory even alone; leave it out, shorten it, or load the model in"
                    f" bfloat16 or on more devices ({error})."
                ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return None
        for hook in hooks_by_layer.values():
            if hook.states is None:
                raise_bypassed(hook.site)
        return {
            layer: hook.states for layer, hook in hooks_by_layer.items() if hook.states is not None
        }


def check_finite(activations: Tensor, site: SiteModule) -> None:
    """Raise `ModelError` if any of the activations `[n, d]` is NaN or infinite."""
    broken = int((~torch.isfinite(activations).all(dim=1)).sum())
    if broken:
        raise ModelError(
            f"{broken} of {len(activations)} activations {site.where} are NaN or infinite;"
            " load the model in bfloat16 or float32 (dtype=), or check its weights."
        )


class _MemoryStore:
    """Collects activations in memory, as `ActivationShards` does on disk."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int]] = []
        self._parts: list[dict[int, Tensor]] = []

    def add(self, rows: Sequence[tuple[int, int]], states: Mapping[int, Tensor]) -> None:
        self._rows += rows
        self._parts.append({layer: _at_least_float32(part) for layer, part in states.items()})

    def flush(self) -> None: ...

    def read(self, layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        order = sorted(range(len(self._rows)), key=self._rows.__getitem__)
        joined = {
            layer: torch.cat([part[layer] for part in self._parts])[order] for layer in layers
        }
        return joined, torch.tensor([self._rows[i][0] for i in order])


def _at_least_float32(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()


class _StopForward(BaseException):
    """Ends a forward pass early; not an Exception, so that no code in between catches it."""


class _CaptureHook:
    """A hook that keeps the activations at `[n]` rows and columns, in the thread that made it."""

    is_last = False
    states: Tensor | None = None

    def __init__(self, site: SiteModule, rows: Tensor, columns: Tensor) -> None:
        self.site = site
        self._rows = rows
        self._columns = columns
        self._thread = threading.get_ident()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        states = hidden_states(rest[-1]) if len(rest) > 1 else input_states(args, *rest)
        chosen = states[self._rows.to(states.device), self._columns.to(states.device)]
        self.states = chosen.cpu()
        if self.is_last:
            raise _StopForward


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )


@contextmanager
def progress_bar(
    total: int, shown: bool | Callable[[int], None]
) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr where ``shown``; yields what advances it by a number of examples.

    A function in place of ``shown`` is called with the numbers instead.
    """
    if not isinstance(shown, bool):
        yield shown
        return
    if not shown:
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("activations", total=total)
        yield lambda n: bar.advance(task, n)
