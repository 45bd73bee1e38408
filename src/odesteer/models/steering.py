"""Steering a model: the hooks on its decoder layers, and the context that places them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from odesteer.artifact import Site, Steerer
from odesteer.errors import ModelError
from odesteer.methods import Amount
from odesteer.models.hooks import Hook, Placed
from odesteer.models.layers import DecoderLayers, execution_device
from odesteer.models.passes import Pass, PassReader
from odesteer.models.positions import steered_columns
from odesteer.models.prompt_width import PromptWidth, SaidWidth
from odesteer.models.receipt import Ledger, Receipt
from odesteer.models.rows import Share


class Steering:
    """Steers a model between `enable` and `remove`, or in a ``with`` block.

    Only forward passes of the thread that enabled it are steered. Contexts may be nested: outer
    ones act first where they share a layer. What is to be moved moves in place where no gradient
    is recorded, so that no copy of the hidden states is made. `enable` raises `ModelError` while
    it is enabled; `remove` may be repeated.

    Attributes:
        shares: who moves which rows.
    """

    def __init__(
        self,
        layers: DecoderLayers,
        shares: Sequence[Share],
        width: PromptWidth | SaidWidth | None = None,
        *,
        receipt: bool = False,
    ) -> None:
        self.shares = tuple(shares)
        self._ledger = Ledger() if receipt else None
        self._run = _Run(PassReader(layers.owner), PromptWidth() if width is None else width)
        by_layer: dict[int, list[Share]] = {}
        for share in self.shares:
            by_layer.setdefault(site_of(share.steerer).layer, []).append(share)
        after: list[tuple[nn.Module, Hook]] = []
        for layer, at_layer in sorted(by_layer.items()):
            module = layers.at(layer)
            device = execution_device(module)
            moves = [_Move(share, device) for share in at_layer]
            after.append((module, _LayerHook(self._run, layer, moves, self._ledger)))
        before = [(layers.owner, self._run.begin)] if after else []
        self._placed = Placed(before, after)

    def enable(self) -> Self:
        """Begin to steer the calls of this thread."""
        if self._placed.is_placed:
            raise ModelError("this steering is enabled already; remove it first.")
        self._run.thread = threading.get_ident()
        self._placed.place()
        return self

    def remove(self) -> None:
        """Stop steering and leave the model as it was."""
        self._placed.remove()

    def __enter__(self) -> Self:
        return self.enable()

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def receipt(self) -> Receipt:
        """What happened at each moved position; raises `ModelError` if it was not asked for."""
        if self._ledger is None:
            raise ModelError("no receipt was kept; ask for one with receipt=True.")
        return self._ledger.receipt()


def site_of(steerer: Steerer) -> Site:
    """Where a steerer acts; raises `ModelError` if it does not say."""
    if steerer.site is None:
        raise ModelError(
            "this steerer is not bound to a layer; build it with a site, as in"
            " Steerer(method, Site(layer=13))."
        )
    return steerer.site


@dataclass
class _Run:
    """What the hooks of one steering share."""

    reader: PassReader
    width: PromptWidth | SaidWidth
    thread: int | None = None
    now: Pass = field(default_factory=Pass)
    n_passes: int = 0

    def begin(self, owner: nn.Module, args: tuple[Any, ...], *kwargs: dict[str, Any]) -> None:
        """Before a forward pass: note what the model is given."""
        if threading.get_ident() == self.thread:
            self.now = self.reader.read(args, kwargs[0])
            self.n_passes += 1


class _Move:
    """One share at its layer, ready to act: parameters on the device, rows of each batch size."""

    def __init__(self, share: Share, device: torch.device) -> None:
        self.position = site_of(share.steerer).position
        self._share = share
        self._on(device)

    def _on(self, device: torch.device) -> None:
        self.device = device
        self.method = self._share.steerer.method.to(device)
        self.barrier = getattr(self.method, "barrier", None)
        self._by_batch: dict[int, tuple[Tensor | None, Amount]] = {}

    def rows(self, states: Tensor) -> tuple[Tensor | None, Amount]:
        """The rows of a batch (None: all) and how far each of them goes, `[r, 1]`."""
        if states.device != self.device:
            self._on(states.device)
        n = len(states)
        if n not in self._by_batch:
            self._by_batch[n] = self._expanded(n)
        return self._by_batch[n]

    def _expanded(self, batch: int) -> tuple[Tensor | None, Amount]:
        share = self._share
        if share.n_rows is None or share.rows is None:
            return None, Amount(share.quantity, share.values[0])
        copies, rest = divmod(batch, share.n_rows)
        if rest or not copies:
            raise ModelError(
                f"the model was given a batch of {batch} rows, and {share.n_rows} steerers or"
                " amounts; give one for each row."
            )
        # Beams and several samples repeat each row in place.
        first = torch.tensor(share.rows, device=self.device) * copies
        rows = (first[:, None] + torch.arange(copies, device=self.device)).flatten()
        value: float | Tensor = share.values[0]
        if len(share.values) > 1:
            values = torch.tensor(share.values, device=self.device)
            value = values.repeat_interleave(copies)[:, None]
        return None if len(rows) == batch else rows, Amount(share.quantity, value)


class _LayerHook:
    """Moves the output of one decoder layer."""

    def __init__(
        self, run: _Run, layer: int, moves: Sequence[_Move], ledger: Ledger | None
    ) -> None:
        self._run = run
        self._layer = layer
        self._moves = tuple(moves)
        self._ledger = ledger

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if threading.get_ident() != self._run.thread:
            return None
        kwargs, output = rest
        states = hidden_states(output)
        moved = states
        in_place = not (torch.is_grad_enabled() and states.requires_grad) and not any(
            states is given for given in (*args, *kwargs.values())
        )
        for move in self._moves:
            moved = self._moved(moved, move, in_place)
        if moved is states:
            return None
        return moved if isinstance(output, Tensor) else (moved, *output[1:])

    def _moved(self, states: Tensor, move: _Move, in_place: bool) -> Tensor:
        now, width = self._run.now, self._run.width.columns
        batch, length, _ = states.shape
        if width is None and not now.cached and move.position in ("prompt", "generated"):
            raise ModelError(
                f"position {move.position!r} cannot tell prompt from generated tokens without a"
                " cache; use a cache, or say where the prompt ends with prompt_width=."
            )
        columns = steered_columns(move.position, length, now.past, width)
        if not columns:
            return states
        rows, amount = move.rows(states)
        active = now.active(length, states.device)
        if rows is not None and active is not None:
            active = active[rows]
        where: tuple[Any, ...]
        if move.position == "last" and width is None and active is not None:
            # The last token of each row, wherever the padding is. Found without waiting.
            numbers = torch.arange(length, device=states.device)
            last = (active * numbers).argmax(dim=1, keepdim=True)
            every = torch.arange(batch, device=states.device) if rows is None else rows
            where, mask = (every[:, None], last), None
            place: Tensor | range = last + now.past
        else:
            part = slice(columns.start, columns.stop)
            where = (slice(None) if rows is None else rows, part)
            place = range(now.past + columns.start, now.past + columns.stop)
            mask = None if active is None else active[:, part]
        x = states[where]
        solution = move.method.solve(x, amount)
        new = solution.state if mask is None else torch.where(mask[..., None], solution.state, x)
        if self._ledger is not None:
            before, after = (_barrier_value(move.barrier, a) for a in (x, new))
            who = len(x) if rows is None else rows
            at = (self._layer, self._run.n_passes - 1, who, place)
            self._ledger.enter(*at, mask, solution, before, after)
        target = states if in_place else states.clone()
        target[where] = new
        return target


def _barrier_value(barrier: Any, a: Tensor) -> Tensor | None:
    return None if barrier is None else barrier.value(a.detach())


def hidden_states(output: Any) -> Tensor:
    """The hidden states `[batch, columns, d]` in the output of a decoder layer.

    Raises `ModelError` where there are none.
    """
    states = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(states, Tensor) or states.ndim != 3:
        found = (
            f"a tensor of shape {tuple(states.shape)}"
            if isinstance(states, Tensor)
            else type(states).__name__
        )
        raise ModelError(
            f"a decoder layer returned {found} where hidden states [batch, columns, width] were"
            " expected; this architecture is not supported."
        )
    return states
