"""Activations, a batch of examples a job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odesteer.cluster.cluster import Cluster
from odesteer.cluster.source import ModelSource
from odesteer.cluster.worker import Shared
from odesteer.data import Example
from odesteer.models import Activations, Encoded, SteeredModel
from odesteer.models.batches import Side, by_length
from odesteer.models.capture import CapturePosition, progress_bar
from odesteer.models.shards import Shards


@dataclass(frozen=True)
class Capturing:
    """What is captured, and how; the fields are arguments of `SteeredModel.capture`."""

    layers: Sequence[int]
    part: str
    position: CapturePosition
    side: Side

    def run(
        self,
        cluster: Cluster,
        source: ModelSource,
        examples: Sequence[Example],
        encoded: Sequence[Encoded],
        tokens: Sequence[Sequence[int]],
        batch_size: int,
        *,
        store: Shards | None,
        progress: bool,
    ) -> Activations:
        """The activations at the ``tokens`` of each example, by the same batches as alone.

        With a ``store`` they go there, and batches that it holds are left out.
        """
        done = set[int]() if store is None else store.done()
        batches = [
            # The same examples side by side, in the same order, as in a single process.
            sorted(batch)
            for batch in by_length([len(example) for example in encoded], batch_size)
            if not done.issuperset(batch)
        ]
        batches.reverse()  # the longest first: if memory runs out, it does so at once
        # Tokens drawn at random depend on all examples; a worker sees only its own.
        drawn = self.position == "random_answer"
        what = replace(self, position="answer") if drawn else self
        jobs = []
        for batch in batches:
            kept = [
                [token - encoded[i].n_prompt for token in tokens[i]] if drawn else None
                for i in batch
            ]
            jobs.append(Batch(what, [examples[i] for i in batch], kept))
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
        kept: for each of them which of its tokens are kept of what is captured; None for all.
    """

    what: Capturing
    examples: Sequence[Example]
    kept: Sequence[Sequence[int] | None]


def capture(lm: SteeredModel, batch: Batch, shared: Shared) -> Mapping[int, Tensor]:
    """For each layer the activations of a batch, `[n, d]`."""
    what = batch.what
    found = lm.capture(
        batch.examples,
        what.layers,
        what.position,
        part=what.part,
        batch_size=len(batch.examples),
        side=what.side,
    )
    rows = [
        int(row)
        for i, kept in enumerate(batch.kept)
        for own in [(found.example == i).nonzero().flatten()]
        for row in (own if kept is None else own[list(kept)])
    ]
    return {layer: found.states[layer][rows] for layer in what.layers}
