"""Activations of examples: what passes through decoder layers at chosen token positions."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.models.batches import Side, by_length, found_batch_size, padded
from odesteer.models.encoding import Encoded
from odesteer.models.hooks import Placed
from odesteer.models.layers import accepts, argument_names
from odesteer.models.moving import raise_bypassed
from odesteer.models.places import Place, Places
from odesteer.models.shards import Shards
from odesteer.models.states import given_states, hidden_states


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
        return Activations(_Rows(self.states, chosen), self.example[chosen])


class _Rows(Mapping[int, Tensor]):
    """Some rows of each layer; nothing is kept, since activations may be on disk."""

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
        places: where its activations can be looked at.
        device: where its inputs go.
        pad: token id for padding.
        side: where the padding goes. On the right it changes no position of any architecture.
    """

    model: nn.Module
    places: Places
    device: torch.device
    pad: int
    side: Side = "right"

    def capture(
        self,
        examples: Sequence[Encoded],
        tokens: Sequence[Sequence[int]],
        at: Sequence[int],
        part: str = "residual",
        *,
        batch_size: int | None = None,
        store: Shards | None = None,
        progress: bool = False,
    ) -> Activations:
        """What passes through a part of the layers ``at`` at the ``tokens`` of each example.

        Batches hold examples of similar length and shrink by half where memory runs out; without
        a ``batch_size`` they are as large as `found_batch_size` says. With a ``store`` the
        activations go there, and what it holds already is not computed again. Raises `ModelError`
        for activations that are not finite.
        """
        places = [self.places.at(layer, part) for layer in at]
        lengths = [len(example) for example in examples]
        if batch_size is None:
            batch_size = found_batch_size(max(lengths), self.model, self.device)
        kept: Shards | _Kept = _Kept() if store is None else store
        done = set[int]() if store is None else store.done()
        # The same batches as ever, but for those that are there: so are the numbers.
        queue = [batch for batch in by_length(lengths, batch_size) if not done.issuperset(batch)]
        with progress_bar(len(examples), progress) as advance:
            advance(len(examples) - sum(map(len, queue)))
            while queue:
                batch = queue.pop()
                states = self._run(batch, examples, tokens, places)
                if states is None:
                    half = len(batch) // 2
                    queue += [batch[half:], batch[:half]]
                    continue
                if store is not None:
                    for place in places:
                        check_finite(states[place.layer], place)
                missing = [i not in done for i in batch for _ in tokens[i]]
                if not all(missing):  # a batch that was halved when it was stored
                    states = {layer: own[torch.tensor(missing)] for layer, own in states.items()}
                rows = [(i, token) for i in batch if i not in done for token in tokens[i]]
                kept.add(rows, states)
                advance(len(batch))
        kept.flush()
        activations = Activations(*kept.read(at))
        if store is None:
            for place in places:
                check_finite(activations.states[place.layer], place)
        return activations

    def _run(
        self,
        batch: Sequence[int],
        examples: Sequence[Encoded],
        tokens: Sequence[Sequence[int]],
        places: Sequence[Place],
    ) -> dict[int, Tensor] | None:
        """One forward pass; None if memory ran out and a smaller batch may fit."""
        inputs = padded([examples[i].ids for i in batch], self.pad, self.side, self.device)
        width = inputs["input_ids"].shape[1]
        rows = [row for row, i in enumerate(batch) for _ in tokens[i]]
        shift = [width - len(examples[i]) if self.side == "left" else 0 for i in batch]
        columns = [shift[row] + token for row, i in enumerate(batch) for token in tokens[i]]
        # Right padding leaves every position what it is, so nobody needs to be told.
        told = "position_ids" in argument_names(self.places.layers.owner)
        if self.side == "right" or not told or not accepts(self.model, "position_ids"):
            del inputs["position_ids"]
        options = {"use_cache": False} if accepts(self.model, "use_cache") else {}
        chosen = torch.tensor(rows), torch.tensor(columns)
        taps = {place.layer: _Tap(place, *chosen) for place in places}
        deepest = max(places, key=lambda place: place.layer)
        taps[deepest.layer].is_last = True
        hooks = [(tap.place.module, tap) for tap in taps.values()]
        before, after = ([], hooks) if deepest.part == "residual" else (hooks, [])
        try:
            with Placed(before, after), torch.no_grad():
                self.model(**inputs, **options)
        except _Enough:
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
        for tap in taps.values():
            if tap.states is None:
                raise_bypassed(tap.place)
        return {layer: tap.states for layer, tap in taps.items() if tap.states is not None}


def check_finite(activations: Tensor, place: Place) -> None:
    """Raise `ModelError` if any of the activations `[n, d]` is NaN or infinite."""
    broken = int((~torch.isfinite(activations).all(dim=1)).sum())
    if broken:
        raise ModelError(
            f"{broken} of {len(activations)} activations {place.where} are NaN or infinite;"
            " load the model in bfloat16 or float32 (dtype=), or check its weights."
        )


class _Kept:
    """Activations in memory, as `Shards` has them on disk."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int]] = []
        self._parts: list[dict[int, Tensor]] = []

    def add(self, rows: Sequence[tuple[int, int]], states: Mapping[int, Tensor]) -> None:
        self._rows += rows
        self._parts.append({layer: _wide(part) for layer, part in states.items()})

    def flush(self) -> None: ...

    def read(self, layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        order = sorted(range(len(self._rows)), key=self._rows.__getitem__)
        joined = {
            layer: torch.cat([part[layer] for part in self._parts])[order] for layer in layers
        }
        return joined, torch.tensor([self._rows[i][0] for i in order])


def _wide(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()


class _Enough(BaseException):
    """Ends a forward pass; not an Exception, so that nobody in between catches it."""


class _Tap:
    """Takes activations at `[n]` rows and columns, in the thread that made it."""

    is_last = False
    states: Tensor | None = None

    def __init__(self, place: Place, rows: Tensor, columns: Tensor) -> None:
        self.place = place
        self._rows = rows
        self._columns = columns
        self._thread = threading.get_ident()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        states = hidden_states(rest[-1]) if len(rest) > 1 else given_states(args, *rest)
        chosen = states[self._rows.to(states.device), self._columns.to(states.device)]
        self.states = chosen.cpu()
        if self.is_last:
            raise _Enough


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where it is to be ``shown``; what advances it by a number of examples."""
    if not shown:
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("activations", total=total)
        yield lambda n: bar.advance(task, n)
