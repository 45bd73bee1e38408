"""Activations, a batch of examples a job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.cluster.cluster import Cluster
from odesteer.cluster.model_source import ModelSource
from odesteer.cluster.worker import Shared
from odesteer.models import Activations, Encoded, SteeredModel
from odesteer.models.capture.capturer import progress_bar
from odesteer.models.capture.spill import ActivationShards
from odesteer.models.tokens.batches import PaddingSide, batches_by_length
from odesteer.models.tokens.capture_positions import Tokens


@dataclass(frozen=True)
class Capturing:
    """What is captured, and how; the fields are arguments of `SteeredModel.capture`."""

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
        progress: bool,
    ) -> Activations:
        """The activations at the ``tokens`` of each example, by the same batches as alone.

        With a ``store`` they go there, and batches that it holds are left out.
        """
        done = set[int]() if store is None else store.done()
        batches = [
            # The same examples side by side, in the same order, as in a single process.
            sorted(batch)
            for batch in batches_by_length([len(example) for example in examples], batch_size)
            if not done.issuperset(batch)
        ]
        batches.reverse()  # the longest first: if memory runs out, it does so at once
        jobs = [
            Batch(self, [examples[i] for i in batch], [tokens[i] for i in batch])
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
class Batch:
    """Examples that pass through the model together.

    Attributes:
        what: is captured.
        examples: them.
        tokens: for each of them at which of its tokens.
    """

    what: Capturing
    examples: Sequence[Encoded]
    tokens: Tokens


def capture(lm: SteeredModel, batch: Batch, shared: Shared) -> Mapping[int, Tensor]:
    """For each layer the activations of a batch, `[n, d]`."""
    what = batch.what
    found = lm.capturer(what.side).capture(
        batch.examples, batch.tokens, what.layers, what.part, batch_size=len(batch.examples)
    )
    return found.states
