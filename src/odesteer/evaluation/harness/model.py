"""The model type ``odesteer`` of lm-evaluation-harness: its own ``hf``, steered."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from tqdm import tqdm

from odesteer.errors import InvalidInputError, ModelError
from odesteer.evaluation.harness.arguments import SteerArgument, applied_json, read_steering
from odesteer.methods import Amount
from odesteer.models import SteeredModel
from odesteer.tuning.objectives.log_likelihood import (
    ScoredSequence,
    SequenceBatch,
    forward_logits,
    needs_prompt_pass,
    score_tokens,
)

LoglikelihoodRequest = tuple[Any, Sequence[int], Sequence[int]]
"""A request of the harness: a key for its cache (None for a window of a longer text), the tokens
of the context, and those of the continuation."""


class SteeredHFLM(HFLM):  # type: ignore[misc]
    """A Hugging Face model in lm-evaluation-harness, steered by any artifact.

    Scored and generated tokens are steered as in generation token by token: at position `last`,
    the last token of the context and every token of the continuation but the last.

    Args:
        pretrained: hub id, folder or model; the bundled model by default.
        steer: a steerer or a file that holds one, ``truthful.safetensors``, or with its amount
            ``truthful.safetensors@1.5``; a list of several act one after another. Without it
            nothing is steered.
        level, T, strength, interpolation: how far, one of them; without one each method takes its
            own default.
        options: those of the harness's ``hf`` (``dtype``, ``device``, ``batch_size``,
            ``parallelize``, ``peft``…).

    Raises `InvalidInputError`, `ArtifactError` or `ModelError` for steering that is not possible.
    """

    def __init__(
        self,
        pretrained: Any = None,
        steer: SteerArgument | Sequence[SteerArgument] | None = None,
        *,
        level: float | None = None,
        T: float | None = None,
        strength: float | None = None,
        interpolation: float | None = None,
        **options: Any,
    ) -> None:
        amount = Amount.of(level=level, T=T, strength=strength, interpolation=interpolation)
        applied = read_steering(steer, amount)
        if pretrained is None:
            from odesteer.terrarium import model_path

            pretrained = str(model_path())
        if not isinstance(pretrained, str):
            _check_options(options)
        super().__init__(pretrained, **options)
        if self.backend != "causal":
            raise ModelError(
                f"{type(self.model).__name__} is no decoder-only model; only those can be steered."
            )
        self._lm = SteeredModel(
            self.model, self.tokenizer, chat_template_kwargs=self.chat_template_args
        )
        self._applied = applied
        for each in applied:
            self._lm.steering(each.steerer, **each.arguments)  # checks that it fits
        self._needs_prompt_pass = any(needs_prompt_pass(each.steerer) for each in applied)

    def get_model_info(self) -> dict[str, Any]:
        """The harness's facts about the model, with the steerers and amounts added."""
        info: dict[str, Any] = super().get_model_info()
        return {**info, "steering": [applied_json(each) for each in self._applied]}

    @contextmanager
    def _steered(self, prompt_width: int) -> Iterator[None]:
        with ExitStack() as stack:
            for each in self._applied:
                stack.enter_context(
                    self._lm.steering(each.steerer, prompt_width=prompt_width, **each.arguments)
                )
            yield

    def _model_generate(self, context: Tensor, *args: Any, **options: Any) -> Any:
        with self._steered(context.shape[1]):
            return super()._model_generate(context, *args, **options)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[LoglikelihoodRequest],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        rows = rows_of(requests, self.max_length)
        size = override_bs or self.batch_size
        if size == "auto":
            # The widest batch possible: the longest prompt with the longest continuation.
            n_prompt = max(row.n_prompt for row, _ in rows)
            n_following = max(row.n_following for row, _ in rows)
            size = self._detect_batch_size([(None, [0] * n_prompt, [0] * (n_following + 1))])
        answers: dict[int, tuple[float, bool]] = {}
        with tqdm(
            total=len(requests),
            disable=disable_tqdm or self.rank != 0,
            desc="Running loglikelihood requests",
        ) as bar:
            for start in range(0, len(rows), size):
                batch_rows = rows[start : start + size]
                batch = SequenceBatch.of([row for row, _ in batch_rows], self.device)
                logits = self._logits(batch)
                for i, (_, indices) in enumerate(batch_rows):
                    scored = batch.scored(i, logits)
                    for index in indices:
                        key, _, continuation = requests[index]
                        found = score_tokens(scored, continuation, self.softmax_dtype)
                        answers[index] = found
                        if key is not None:
                            self.cache_hook.add_partial("loglikelihood", key, found)
                        bar.update(1)
        return [answers[i] for i in range(len(requests))]

    def _logits(self, batch: SequenceBatch) -> Tensor:
        """`[n, columns, vocabulary]` from the last token of the prompts on."""
        dtype = self.mixed_precision_dtype
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            steering = self._steered(batch.prompt_width)
            return forward_logits(self._lm, batch, steering, prompt_first=self._needs_prompt_pass)


def _check_options(options: dict[str, Any]) -> None:
    """Raise `InvalidInputError` for options that the harness ignores if it is given a model."""
    known = inspect.signature(HFLM.__init__).parameters
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InvalidInputError(
            f"{', '.join(unknown)} would go to from_pretrained, and pretrained is a model already."
        )


def row_of(request: LoglikelihoodRequest, max_length: int) -> ScoredSequence:
    """The row that a request is scored in; contexts that are too long lose their beginning.

    A text that is scored as a whole (without a key) counts as generated from its first token on,
    in each of its windows.
    """
    key, context, continuation = request
    tokens = (*context, *continuation)[-(max_length + 1) :][:-1]
    n_context = len(tokens) - len(continuation) + 1
    return ScoredSequence(tokens, 1 if key is None else n_context, n_context - 1)


def rows_of(
    requests: Sequence[LoglikelihoodRequest], max_length: int
) -> list[tuple[ScoredSequence, list[int]]]:
    """Each distinct row with the indices of its requests, the longest row first.

    Requests that differ in the last token of the continuation share a row. Those whose contexts
    end at different tokens do not, even where all their tokens are the same: they are steered
    from different tokens on.
    """
    rows: dict[ScoredSequence, list[int]] = {}
    for i, request in enumerate(requests):
        rows.setdefault(row_of(request, max_length), []).append(i)
    return sorted(rows.items(), key=lambda item: (-item[0].n_prompt, -len(item[0].tokens)))
