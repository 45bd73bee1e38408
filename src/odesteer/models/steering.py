"""The context in which a model is steered."""

import threading
from collections.abc import Sequence

from torch import nn
from typing_extensions import Self

from odesteer.artifact import Gate
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.gating import GateReader
from odesteer.models.hooks import Hook, Placed
from odesteer.models.layers import execution_device
from odesteer.models.move import Move
from odesteer.models.moving import Mover, Witness
from odesteer.models.passes import Here, PassReader, Run
from odesteer.models.places import Places
from odesteer.models.prompt_width import PromptWidth, SaidWidth
from odesteer.models.receipt import Ledger, Receipt
from odesteer.models.rows import Share


class Steering:
    """Steers a model between `enable` and `remove`, or in a ``with`` block.

    Only forward passes of the thread that enabled it are steered. Contexts may be nested: outer
    ones act first where they share a layer. What is to be moved moves in place where no gradient
    is recorded, so that no copy of the hidden states is made. `enable` raises `ModelError` while
    it is enabled; `remove` may be repeated.

    Models that `torch.compile` has compiled run their Python code meanwhile, which is slower and
    never wrong. With ``compiled`` they stay compiled, static caches and CUDA graphs included: the
    first passes compile graphs with the steering in them, which this object uses again whenever
    it is enabled, so keep it. Receipts and gates exclude that.

    Attributes:
        shares: who moves which rows.
    """

    def __init__(
        self,
        places: Places,
        shares: Sequence[Share],
        width: PromptWidth | SaidWidth | None = None,
        *,
        receipt: bool = False,
        compiled: bool = False,
    ) -> None:
        self.shares = tuple(shares)
        if compiled and (receipt or any(share.gate is not None for share in self.shares)):
            raise InvalidInputError(
                "compiled=True goes with neither a receipt nor a gate: both look at each pass in"
                " Python; leave it out, and compiled models run uncompiled meanwhile."
            )
        self._ledger = Ledger() if receipt else None
        owner = places.layers.owner
        asking = receipt or any(
            share.gate is not None or share.site.position in ("generated", "prompt")
            for share in self.shares
        )
        self._run = Run(PassReader(owner), PromptWidth() if width is None else width, asking)
        self._run.compiled = compiled
        before: list[tuple[nn.Module, Hook]] = []
        after: list[tuple[nn.Module, Hook]] = []
        # Gates first: they read what they share with a move before it is moved.
        self._gates = self._readers(places)
        movers = self._movers(places, self._gates)
        for more_before, more_after in [
            *(gate.hooks() for gate in self._gates.values()),
            *(mover.hooks() for mover in movers),
        ]:
            before += more_before
            after += more_after
        for mover in movers:
            if mover.place.part == "heads":
                after.append((places.layers.at(mover.place.layer), Witness(mover)))
        begin = [(owner, self._run.begin)] if self.shares else []
        self._placed = Placed([*begin, *before], after, compiled=compiled)

    def _readers(self, places: Places) -> dict[Gate, GateReader]:
        gates = dict.fromkeys(share.gate for share in self.shares if share.gate is not None)
        return {
            gate: GateReader(gate, i, places.of(gate.site), self._run, self._ledger)
            for i, gate in enumerate(gates)
        }

    def gates_of(self, row: int) -> list[int]:
        """Numbers of the gates, as receipts have them, that this row of the batch depends on."""
        own = [
            share.gate
            for share in self.shares
            if share.gate is not None and (share.rows is None or row in share.rows)
        ]
        return [i for i, gate in enumerate(self._gates) if gate in own]

    def _movers(self, places: Places, gates: dict[Gate, GateReader]) -> list[Mover]:
        """One for each place, in the order in which a pass comes through them."""
        by_place: dict[tuple[int, str], list[Share]] = {}
        for share in sorted(self.shares, key=lambda share: share.site.depth):
            by_place.setdefault((share.site.layer, share.site.part), []).append(share)
        movers = []
        for at, shares in by_place.items():
            place = places.at(*at)
            device = execution_device(place.module)
            moves = []
            for share in shares:
                gate = None if share.gate is None else gates[share.gate]
                late = share.gate is not None and share.gate.site.depth > share.site.depth
                moves.append(Move(share, device, gate, late))
            movers.append(Mover(self._run, place, moves, self._ledger))
        return movers

    @property
    def is_enabled(self) -> bool:
        """Whether it steers, between `enable` and `remove`."""
        return self._placed.is_placed

    def enable(self) -> Self:
        """Begin to steer the calls of this thread."""
        if self.is_enabled:
            raise ModelError("this steering is enabled already; remove it first.")
        self._run.thread = threading.get_ident()
        self._run.here.active = True
        self._placed.place()
        return self

    def remove(self) -> None:
        """Stop steering and leave the model as it was."""
        self._placed.remove()
        self._run.here = Here()  # whoever removes it, no thread is steered

    def __enter__(self) -> Self:
        return self.enable()

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def receipt(self) -> Receipt:
        """What happened at each moved position; raises `ModelError` if it was not asked for."""
        if self._ledger is None:
            raise ModelError("no receipt was kept; ask for one with receipt=True.")
        return self._ledger.receipt()

    def take_receipt(self) -> Receipt:
        """The receipt of what happened since it was last taken."""
        receipt = self.receipt()
        if self._ledger is not None:
            self._ledger.clear()
        return receipt
