"""`Steering`: the context manager that steers a model."""

import sys
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

from torch import nn
from typing_extensions import Self

from odesteer.artifact import Gate
from odesteer.artifact.phases import MarkerReader
from odesteer.artifact.positions import parse_position
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.architecture.hooks import Hook, HookSet
from odesteer.models.architecture.layers import execution_device
from odesteer.models.architecture.sites import ModelSites
from odesteer.models.steering.gates import GateReader
from odesteer.models.steering.generate_calls import unwatch_generate, watch_generate
from odesteer.models.steering.intervention import Intervention
from odesteer.models.steering.pass_tracker import PassTracker
from odesteer.models.steering.positions import PromptWidth, ThreadPromptWidth
from odesteer.models.steering.receipts import Receipt, ReceiptRecorder
from odesteer.models.steering.rows import RowAssignment
from odesteer.models.steering.site_hooks import BypassCheck, SiteInterventions
from odesteer.models.steering.threads import SteeringWarning


class Steering:
    """Steers a model between `enable` and `remove`, or in a ``with`` block.

    Forward passes are steered in the context that enabled it, in copies of that context
    (`asyncio.to_thread`) and in threads started inside it; a pass in any other thread is not
    steered, which a `SteeringWarning` says once, as it does at the end if no pass was steered.
    Contexts may be nested: outer ones act
    first where they share a layer. Activations are moved in place where no gradient
    is recorded, so that no copy of the hidden states is made. `enable` raises `ModelError` while
    it is enabled; `remove` may be repeated.

    Models that `torch.compile` has compiled run their Python code meanwhile, which is slower and
    never wrong. With ``compiled`` they stay compiled, static caches and CUDA graphs included: the
    first passes compile graphs with the steering in them, which this object uses again whenever
    it is enabled, so keep it. Receipts and gates exclude that.

    ``tokenizer`` decodes tokens for positions that depend on the text.

    Attributes:
        assignments: the steerers and the rows that they act on.
    """

    def __init__(
        self,
        sites: ModelSites,
        assignments: Sequence[RowAssignment],
        width: ThreadPromptWidth | PromptWidth | None = None,
        *,
        receipt: bool = False,
        compiled: bool = False,
        tokenizer: Any = None,
    ) -> None:
        self.assignments = tuple(assignments)
        positions = [parse_position(each.site.position) for each in self.assignments]
        reads_texts = any(position.phase is not None for position in positions)
        if compiled and reads_texts:
            raise InvalidInputError(
                "compiled=True does not go with positions that depend on the text, such as"
                " 'thinking': graphs do not look at tokens; leave it out."
            )
        if compiled and (
            receipt or any(assignment.gate is not None for assignment in self.assignments)
        ):
            raise InvalidInputError(
                "compiled=True goes with neither a receipt nor a gate: both look at each pass in"
                " Python; leave it out, and compiled models run uncompiled meanwhile."
            )
        self._recorder = ReceiptRecorder() if receipt else None
        self._tracker = PassTracker(
            sites.layers.owner,
            ThreadPromptWidth() if width is None else width,
            needs_columns=receipt or not all(position.is_plain for position in positions),
            compiled=compiled,
            markers=MarkerReader(tokenizer) if reads_texts else None,
        )
        before: list[tuple[nn.Module, Hook]] = []
        after: list[tuple[nn.Module, Hook]] = []
        # Gates first: they read their site before it is steered.
        self._gates = self._readers(sites)
        steered_sites = self._steered_sites(sites, self._gates)
        for more_before, more_after in [
            *(gate.hooks() for gate in self._gates.values()),
            *(steered.hooks() for steered in steered_sites),
        ]:
            before += more_before
            after += more_after
        for steered in steered_sites:
            if steered.site.part == "heads":
                after.append((sites.layers.at(steered.site.layer), BypassCheck(steered)))
        begin: list[tuple[nn.Module, Hook]] = []
        if self.assignments:
            begin.append((sites.layers.owner, self._tracker.begin))
        if reads_texts:
            begin += [(module, self._tracker.see_embedded) for module in sites.embeddings]
        self._hooks = HookSet([*begin, *before], after, compiled=compiled, first=True)
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._reads_texts = reads_texts
        self._generating = sites.generating if self.assignments else []

    def _readers(self, sites: ModelSites) -> dict[Gate, GateReader]:
        gates = dict.fromkeys(
            assignment.gate for assignment in self.assignments if assignment.gate is not None
        )
        return {
            gate: GateReader(gate, i, sites.of(gate.site), self._tracker, self._recorder)
            for i, gate in enumerate(gates)
        }

    def gates_of(self, row: int) -> list[int]:
        """Numbers of the gates, as receipts have them, that this row of the batch depends on."""
        own = [
            assignment.gate
            for assignment in self.assignments
            if assignment.gate is not None and (assignment.rows is None or row in assignment.rows)
        ]
        return [i for i, gate in enumerate(self._gates) if gate in own]

    def _steered_sites(
        self, sites: ModelSites, gates: dict[Gate, GateReader]
    ) -> list[SiteInterventions]:
        """One for each site, in the order of the forward pass."""
        by_site: dict[tuple[int, str], list[RowAssignment]] = {}
        for assignment in sorted(self.assignments, key=lambda assignment: assignment.site.depth):
            by_site.setdefault((assignment.site.layer, assignment.site.part), []).append(assignment)
        steered_sites = []
        for at, assignments in by_site.items():
            site = sites.at(*at)
            device = execution_device(site.module)
            interventions = []
            for assignment in assignments:
                gate = None if assignment.gate is None else gates[assignment.gate]
                late = (
                    assignment.gate is not None
                    and assignment.gate.site.depth > assignment.site.depth
                )
                interventions.append(Intervention(assignment, device, self._tracker, gate, late))
            steered_sites.append(
                SiteInterventions(self._tracker, site, interventions, self._recorder)
            )
        return steered_sites

    def give_texts(self, rows: Sequence[Sequence[int]]) -> None:
        """The tokens that the cache of the first pass holds, by row and column (-1 for padding).

        Positions such as `thinking` need them where the prompt was read before it is enabled.
        """
        self._tracker.give_texts(rows)

    @property
    def is_enabled(self) -> bool:
        """Whether it steers, between `enable` and `remove`."""
        return self._hooks.is_placed

    def enable(self) -> Self:
        """Begin to steer the forward passes of this context and of threads started in it."""
        if self.is_enabled:
            raise ModelError("this steering is enabled already; remove it first.")
        self._tracker.start()
        watched = self._generating, self._tracker.number
        try:
            if isinstance(self._tracker.prompt_width, ThreadPromptWidth):
                self._finalizer = weakref.finalize(self, unwatch_generate, *watched)
                self._finalizer.atexit = False
                watch_generate(
                    self._generating,
                    self._tracker.number,
                    self._tracker.prompt_width,
                    refuses_beams=self._reads_texts,
                )
            self._hooks.place()
        except BaseException:
            self._end()
            raise
        return self

    def remove(self) -> None:
        """Stop steering and leave the model as it was."""
        was_enabled = self.is_enabled
        self._end()
        is_watched = was_enabled and self.assignments and not self._tracker.compiled
        is_watched = is_watched and sys.exc_info()[0] is None  # of a block that failed
        if is_watched and not self._tracker.n_passes:
            warnings.warn(
                "steering ended and no forward pass was steered: none ran, or all ran in threads"
                " that it does not cover.",
                SteeringWarning,
                stacklevel=2,
            )

    def _end(self) -> None:
        unwatch_generate(self._generating, self._tracker.number)
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        self._hooks.remove()
        self._tracker.stop()

    def __enter__(self) -> Self:
        return self.enable()

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self.remove()
        else:
            self._end()

    def receipt(self) -> Receipt:
        """What happened at each moved position; raises `ModelError` if it was not asked for."""
        if self._recorder is None:
            raise ModelError("no receipt was kept; ask for one with receipt=True.")
        return self._recorder.receipt()

    def take_receipt(self) -> Receipt:
        """The receipt of what happened since it was last taken."""
        receipt = self.receipt()
        if self._recorder is not None:
            self._recorder.clear()
        return receipt
