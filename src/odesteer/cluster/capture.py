"""Capture of activations on workers: one job a batch of examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.cluster.cluster import Cluster
from odesteer.cluster.model_source import ModelSource
from odesteer.cluster.worker import SharedObjects
from odesteer.models import Activations, Encoded, SteeredModel
from odesteer.models.capture.capturer import progress_bar
from odesteer.models.capture.spill import ActivationShards
from odesteer.models.tokens.batches import PaddingSide, batches_by_length
from odesteer.models.tokens.capture_positions import Tokens


@dataclass(frozen=True)
class CapturePlan:
    """What to capture at which sites; the fields are arguments of `SteeredModel.capture`."""

    layers: Sequence[int]
    part: str
    side: PaddingSide

    def run(
        self,
        cluster: Cluster,
        source: ModelSource,
        examples: Sequence[Encoded],
        tokens: Tokens,
        batch_size: int,
        *,
        store: ActivationShards | None,
        progress: bool | Callable[[int], None],
    ) -> Activations:
        """The activations at the ``tokens`` of each example, in the batches of a single process.

        With a ``store`` they are written there, and batches that it holds are skipped.
        """
        done = set[int]() if store is None else store.done()
        batches = [
            # The same batches, in the same order, as in a single process.
            sorted(batch)
            for batch in batches_by_length([len(example) for example in examples], batch_size)
            if not done.issuperset(batch)
        ]
        batches.reverse()  # the longest first, so that a lack of memory shows at once
        jobs = [
            CaptureJob(self, [examples[i] for i in batch], [tokens[i] for i in batch])
            for batch in batches
        ]
        rows: list[tuple[int, int]] = []
        parts: list[Mapping[int, Tensor]] = []
        with progress_bar(len(examples), progress) as advance:
            advance(len(examples) - sum(map(len, batches)))
            for batch, states in zip(batches, cluster.map(capture, jobs, source), strict=True):
                own = [(i, token) for i in batch for token in tokens[i]]
                if store is None:
                    rows += own
                    parts.append(states)
                else:
                    store.add(own, states)
                advance(len(batch))
        if store is not None:
            store.flush()
            return Activations(*store.read(self.layers))
        order = sorted(range(len(rows)), key=rows.__getitem__)
        joined = {layer: torch.cat([part[layer] for part in parts])[order] for layer in self.layers}
        return Activations(joined, torch.tensor([rows[i][0] for i in order]))


@dataclass(frozen=True)
class CaptureJob:
    """The job of one batch.

    Attributes:
        plan: what to capture.
        examples: of the batch.
        tokens: the tokens to capture at, for each example.
    """

    plan: CapturePlan
    examples: Sequence[Encoded]
    tokens: Tokens


def capture(lm: SteeredModel, job: CaptureJob, shared: SharedObjects) -> Mapping[int, Tensor]:
    """The activations of a batch for each layer, `[n, d]`."""
    plan = job.plan
    found = lm.capturer(plan.side).capture(
        job.examples, job.tokens, plan.layers, plan.part, batch_size=len(job.examples)
    )
    return found.states
