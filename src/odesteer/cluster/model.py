"""A model that many workers hold: they look at its activations and write its texts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import Self

from odesteer.cluster.capturing import Capturing
from odesteer.cluster.cluster import Cluster
from odesteer.cluster.source import ModelSource
from odesteer.cluster.writing import Batch, write
from odesteer.data import Example
from odesteer.errors import InvalidInputError
from odesteer.models import Activations, Generation, SteeredModel
from odesteer.models.batches import Side
from odesteer.models.capture import CapturePosition, captured_tokens
from odesteer.models.encoding import Prompt, is_one_prompt
from odesteer.models.rows import Amounts, Quantity, Steerers, check_rows
from odesteer.models.seeding import batch_seed
from odesteer.models.shards import Shards

_BATCH_SIZE = 16


class ClusterModel(SteeredModel):
    """A `SteeredModel` whose `capture`, `fit` and `generate` are carried out by workers.

    Batches are those of a single process, and each is computed as a whole by one worker, so that
    results are equal to the byte where the machines and their numbers of threads are.

    Parameters:
        model, tokenizer: as of `SteeredModel`; the model may be an outline on torch's meta device.
        cluster: the workers.
        source: where they load the model from.
    """

    def __init__(self, model: Any, tokenizer: Any, cluster: Cluster, source: ModelSource) -> None:
        super().__init__(model, tokenizer)
        self.cluster = cluster
        self.source = source

    @classmethod
    def open(
        cls,
        cluster: Cluster,
        id_or_folder: str | Path | None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> Self:
        """A model by its id on the hub or its folder, None for the bundled one.

        Only its configuration and tokenizer are read here. Raises `ModelError` where there is no
        such model.
        """
        source = ModelSource.of(id_or_folder, revision=revision, device=device, dtype=dtype)
        return cls(*source.outline(), cluster, source)

    def capture(
        self,
        examples: Sequence[Example],
        layer: int | Sequence[int],
        position: CapturePosition = "last",
        *,
        part: str = "residual",
        k: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        side: Side = "right",
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> Activations:
        """As `SteeredModel.capture`, over the workers; without a ``batch_size`` it is 16."""
        layers = self._numbers(layer)
        if not layers or not examples:
            raise InvalidInputError("give at least one layer and one example to capture.")
        encoded = [
            self._encoder.example(example, f"example {i}") for i, example in enumerate(examples)
        ]
        tokens = captured_tokens(encoded, position, k=k, seed=seed)
        size = _BATCH_SIZE if batch_size is None else batch_size
        store = None
        if folder is not None:
            plan = {"layers": layers, "part": part, "side": side, "batch_size": size}
            content = self._content(encoded, tokens)
            store = Shards(folder, {**plan, "model": asdict(self.source), "content": content})
        return Capturing(layers, part, position, side).run(
            self.cluster,
            self.source,
            examples,
            encoded,
            tokens,
            size,
            store=store,
            progress=progress,
        )

    def generate(  # type: ignore[override]
        self,
        prompts: Prompt | Sequence[Prompt],
        steerer: Steerers | None = None,
        *,
        level: Quantity = None,
        T: Quantity = None,
        strength: Quantity = None,
        interpolation: Quantity = None,
        max_new_tokens: int = 128,
        seed: int | None = 0,
        batch_size: int | None = _BATCH_SIZE,
        receipt: bool = False,
        stream: None = None,
        **options: Any,
    ) -> list[str] | list[Generation]:
        """As `SteeredModel.generate` with the same ``batch_size``, over the workers.

        A batch is written by one worker. There is no ``stream``, and without a ``seed`` no two
        runs would be alike on workers: both raise `InvalidInputError`.
        """
        if stream is not None:
            raise InvalidInputError("workers do not stream; leave out stream.")
        if seed is None:
            raise InvalidInputError("workers cannot draw from your generators; give a seed.")
        batch: list[Any] = [prompts] if is_one_prompt(prompts) else list(prompts)
        for i, prompt in enumerate(batch):
            self._encoder.prompt(prompt, f"prompt {i}")
        quantities = {"level": level, "T": T, "strength": strength, "interpolation": interpolation}
        amounts = Amounts.of(**quantities)
        if steerer is None and amounts.is_given:
            raise InvalidInputError(f"an amount ({amounts.value}) needs a steerer to apply it.")
        check_rows(len(batch), steerer, amounts)
        self._shares([] if steerer is None else [steerer], amounts, stacklevel=2)
        size = len(batch) if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < min(1, len(batch)):
            raise InvalidInputError(f"batch_size must be a positive integer, not {batch_size!r}.")
        settings = {"max_new_tokens": max_new_tokens, "receipt": receipt, **options}
        jobs = []
        for start in range(0, len(batch), max(size, 1)):
            part = slice(start, start + size)
            how_much = {name: _rows(value, part) for name, value in quantities.items()}
            own = {**settings, **how_much, "seed": batch_seed(seed, start)}
            jobs.append(Batch(batch[part], part, own))
        texts = self.cluster.map(write, jobs, self.source, [steerer])
        return [text for part in texts for text in part]


def _rows(quantity: Quantity, part: slice) -> Quantity:
    """A quantity for some of the rows."""
    return quantity[part] if isinstance(quantity, (Sequence, Tensor)) else quantity
