"""Texts of requests, for positions that depend on them: the tokenizer, and what was read so far."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from odesteer.artifact.phases import MarkerReader, PhasedText
from odesteer.vllm.compatibility import require_signature, unsupported
from odesteer.vllm.step import StepBatch

_model_config: Any = None


def use_tokenizer_of(model_config: Any) -> None:
    """Read the texts of this process with the tokenizer of a model's configuration."""
    global _model_config
    _model_config = model_config


def marker_reader() -> MarkerReader | None:
    """Finds markers in the tokens of this process's engine; None for one without a tokenizer."""
    if _model_config is None or _model_config.skip_tokenizer_init:
        return None
    from vllm.tokenizers import registry

    load = require_signature(registry, "cached_tokenizer_from_config", ("model_config",))
    return _reader(load(_model_config))


@lru_cache(maxsize=8)
def _reader(tokenizer: Any) -> MarkerReader:
    return MarkerReader(tokenizer)


def _required_reader() -> MarkerReader:
    reader = marker_reader()
    assert reader is not None  # requests for such positions are refused in the front end
    return reader


class WorkerTexts:
    """The texts of a worker's requests, as far as positions depend on them."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[object, PhasedText]] = {}

    def begin(self, request_id: str, prompt: object, tokens: Sequence[int]) -> None:
        """Note the tokens of a request, unless those of the same ``prompt`` are known."""
        known = self._texts.get(request_id)
        if known is None or known[0] is not prompt:
            self._texts[request_id] = prompt, PhasedText(tokens, _required_reader())

    def give_to(self, batch: StepBatch, request_ids: Sequence[str], input_ids: Tensor) -> StepBatch:
        """A step with the texts of its requests, to which the tokens of its rows are added."""
        rows = batch.row_offsets.tolist()
        tokens, texts = input_ids[: rows[-1]].tolist(), list[PhasedText | None]()
        for i, (request, steering) in enumerate(zip(request_ids, batch.steerings, strict=True)):
            text = None
            if steering is not None and steering.reads_text:
                _, text = self._texts[request]
                first = int(batch.first_tokens[i])
                if first > len(text.tokens):
                    raise unsupported(f"the tokens before number {first} of a request are unknown")
                text.continue_from(first, tokens[rows[i] : rows[i + 1]])
            texts.append(text)
        return replace(batch, texts=texts)

    def keep(self, request_ids: Any) -> None:
        """Forget all other requests."""
        for request_id in [each for each in self._texts if each not in request_ids]:
            del self._texts[request_id]


_scheduled: "weakref.WeakKeyDictionary[Any, tuple[int, PhasedText]]" = weakref.WeakKeyDictionary()


def scheduled_text(request: Any, stop: int) -> PhasedText:
    """The tokens up to ``stop``, or more, of a request of vLLM's scheduler."""
    n_prompt, text = _scheduled.get(request, (-1, None))
    if text is None or n_prompt != request.num_prompt_tokens:  # another turn of a session
        text = PhasedText((), _required_reader())
        _scheduled[request] = request.num_prompt_tokens, text
    known = len(text.tokens)
    if known < stop:
        text.continue_from(known, list(request.all_token_ids[known:stop]))
    return text
