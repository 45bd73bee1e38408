"""`ClusterModel`: a `SteeredModel` whose captures and generation run on workers."""

import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import Self

from odesteer.cluster.capture import CapturePlan
from odesteer.cluster.cluster import Cluster
from odesteer.cluster.model_source import ModelSource
from odesteer.cluster.worker import SharedObjects
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models import Activations, Encoded, Generation, SteeredModel
from odesteer.models.capture.spill import ActivationShards
from odesteer.models.divergence import NeutralTexts
from odesteer.models.generation.seeding import batch_seed
from odesteer.models.steering.context import Steering
from odesteer.models.steering.rows import Amounts, Quantity, Steerers, check_rows, select_rows
from odesteer.models.tokens.batches import PaddingSide
from odesteer.models.tokens.capture_positions import Tokens
from odesteer.models.tokens.encoding import Prompt, is_one_prompt
from odesteer.untrusted import is_integer

_BATCH_SIZE = 16


class ClusterModel(SteeredModel):
    """A `SteeredModel` whose `capture`, `fit` and `generate` are carried out by workers.

    Batches are those of a single process, and one worker computes each, so that results are equal
    to the byte on machines of the same kind with the same number of threads. The default
    ``batch_size`` is 16. A context `steering` of this process has no effect on workers, so inside
    one `capture` and `generate` raise `ModelError`; give steerers to `generate`.

    Parameters:
        model, tokenizer: as of `SteeredModel`; the model may be an outline on torch's meta device.
        cluster: the workers.
        source: where they load the model from.
    """

    def __init__(self, model: Any, tokenizer: Any, cluster: Cluster, source: ModelSource) -> None:
        arguments = json.loads(source.chat_template_kwargs)
        super().__init__(model, tokenizer, chat_template_kwargs=arguments)
        self.cluster = cluster
        self.source = source
        self._contexts = weakref.WeakSet[Steering]()

    @classmethod
    def open(
        cls,
        cluster: Cluster,
        id_or_folder: str | Path | None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """A model by its id on the hub or its folder, None for the bundled one.

        Only its configuration and tokenizer are read here. Raises `ModelError` where there is no
        such model.
        """
        source = ModelSource.of(
            id_or_folder,
            revision=revision,
            device=device,
            dtype=dtype,
            chat_template_kwargs=chat_template_kwargs,
        )
        return cls(*source.outline(), cluster, source)

    def steering(self, *steerers: Any, **options: Any) -> Steering:
        """As `SteeredModel.steering`, for the model that this process holds, if it holds one."""
        context = super().steering(*steerers, **options)
        self._contexts.add(context)
        return context

    def neutral_texts(self, *arguments: Any, **options: Any) -> NeutralTexts:
        """As `SteeredModel.neutral_texts`, in this process.

        Raises `ModelError` where only the workers have the weights.
        """
        if any(parameter.is_meta for parameter in self.model.parameters()):
            raise ModelError(
                "divergences are measured where the weights are, and this model's are with the"
                " workers; open it with SteeredModel.from_pretrained to measure one."
            )
        return super().neutral_texts(*arguments, **options)

    def _check_unsteered(self) -> None:
        if any(context.is_enabled for context in self._contexts):
            raise ModelError(
                "workers do not know of the context `steering` that is open here; leave it, and"
                " give steerers to generate."
            )

    def _captured(
        self,
        examples: Sequence[Encoded],
        tokens: Tokens,
        layers: Sequence[int],
        part: str,
        side: PaddingSide,
        batch_size: int | None,
        folder: str | Path | None,
        progress: bool | Callable[[int], None],
    ) -> Activations:
        self._check_unsteered()
        size = _BATCH_SIZE if batch_size is None else batch_size
        store = None
        if folder is not None:
            plan = {"layers": layers, "part": part, "side": side, "batch_size": size}
            content = self.content(examples, tokens)
            store = ActivationShards(
                folder, {**plan, "model": asdict(self.source), "content": content}
            )
        return CapturePlan(layers, part, side).run(
            self.cluster, self.source, examples, tokens, size, store=store, progress=progress
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
        self._check_unsteered()
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
        self._assignments([] if steerer is None else [steerer], amounts, stacklevel=2)
        size = len(batch) if batch_size is None else batch_size
        if not is_integer(size) or size < min(1, len(batch)):
            raise InvalidInputError(f"batch_size must be a positive integer, not {batch_size!r}.")
        settings = {"max_new_tokens": max_new_tokens, "receipt": receipt, **options}
        jobs = []
        for start in range(0, len(batch), max(size, 1)):
            part = slice(start, start + size)
            how_much = {name: _rows(value, part) for name, value in quantities.items()}
            own = {**settings, **how_much, "seed": batch_seed(seed, start)}
            jobs.append(GenerationJob(batch[part], part, own))
        texts = self.cluster.map(generate_batch, jobs, self.source, [steerer])
        return [text for part in texts for text in part]


def _rows(quantity: Quantity, part: slice) -> Quantity:
    """A quantity for some of the rows."""
    return quantity[part] if isinstance(quantity, (Sequence, Tensor)) else quantity


@dataclass(frozen=True)
class GenerationJob:
    """The job of one batch of prompts.

    Attributes:
        prompts: of the batch.
        rows: their positions among all prompts.
        options: further arguments of `SteeredModel.generate`.
    """

    prompts: Sequence[Prompt]
    rows: slice
    options: dict[str, Any]


def generate_batch(lm: SteeredModel, job: GenerationJob, shared: SharedObjects) -> list[Any]:
    """The texts of a batch; ``shared`` holds the steerers of all prompts."""
    steerers = shared[0]
    own = None if steerers is None else select_rows(steerers, job.rows)
    return lm.generate(job.prompts, own, **job.options)
