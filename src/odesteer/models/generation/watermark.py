"""Watermarks of transformers: reading their configuration, and detecting them in texts.

A watermark is put in by ``generate(watermarking_config=…)`` of transformers, as its last logits
processor; steering acts before, on activations, and leaves the processor and the key alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError
from odesteer.untrusted import brief, parse_json

GREENLIST = "greenlist"


@dataclass(frozen=True)
class WatermarkScore:
    """The evidence for a watermark in one text.

    Attributes:
        n_tokens: tokens that were scored; repeated n-grams count once.
        share: the share of green tokens, or SynthID's mean g-value.
        expected: what ``share`` is without a watermark.
        z: how many standard errors ``share`` is above that.
        p: the probability of a z this large without a watermark, one-sided.
    """

    n_tokens: int
    share: float
    expected: float
    z: float
    p: float


def watermarking_config(text: str) -> Any:
    """The configuration that a text names: ``greenlist`` for the defaults of transformers, JSON,
    or the path of a JSON file.

    JSON with ``keys`` and ``ngram_len`` is SynthID's, other JSON that of a green list. Raises
    `InvalidInputError` for anything else.
    """
    from transformers import SynthIDTextWatermarkingConfig, WatermarkingConfig

    if text == GREENLIST:
        return WatermarkingConfig()
    if text.lstrip().startswith("{"):
        content = parse_json(text, "the watermark")
    else:
        try:
            content = parse_json(Path(text).read_bytes(), f"the watermark in {text}")
        except OSError as error:
            raise InvalidInputError(
                f"{text!r} is no watermark: write {GREENLIST!r}, JSON such as"
                ' {"greenlist_ratio": 0.25, "bias": 2.0, "hashing_key": 123}, or the path of a JSON'
                f" file ({error.strerror})."
            ) from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"the watermark is {brief(content)}, no JSON object.")
    synthid = "keys" in content or "ngram_len" in content
    kind = SynthIDTextWatermarkingConfig if synthid else WatermarkingConfig
    try:
        config = kind(**content)
        config.validate()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the watermark {brief(content)} makes no sense: {error}") from None
    return config


class WatermarkDetection:
    """Scores texts by the tokens of a model's tokenizer, with the key that they were made with.

    Green lists are drawn on the device: a text that was generated on a GPU has to be detected on
    one. Prompts must not be in the texts.
    """

    def __init__(self, config: Any, model_config: Any, device: str | torch.device = "cpu") -> None:
        from transformers import SynthIDTextWatermarkingConfig

        text_config = model_config.get_text_config(decoder=True)
        self._is_synthid = isinstance(config, SynthIDTextWatermarkingConfig)
        self._vocab_size = int(text_config.vocab_size)
        if self._is_synthid:
            self._scorer: Any = config.construct_processor(self._vocab_size, device)
        else:
            from transformers import WatermarkDetector

            self._scorer = WatermarkDetector(
                text_config, str(device), config, ignore_repeated_ngrams=True
            )
        self._ratio = 0.5 if self._is_synthid else config.greenlist_ratio
        self._device = torch.device(device)

    def score(self, ids: Sequence[int]) -> WatermarkScore:
        """Score the tokens of one text. Raises `InvalidInputError` where they are too few."""
        tokens = torch.tensor([list(ids)], dtype=torch.long, device=self._device)
        if tokens.numel() and int(tokens.max()) >= self._vocab_size:
            raise InvalidInputError(
                f"token {int(tokens.max())} is beyond the model's vocabulary of"
                f" {self._vocab_size}; use the model that the text was generated with."
            )
        total, hits, per_token = self._count(tokens)
        if total < 1:
            raise InvalidInputError(
                f"the text has {tokens.shape[1]} tokens, too few to score; a few dozen are needed."
            )
        share = hits / (total * per_token)
        spread = math.sqrt(self._ratio * (1 - self._ratio) / (total * per_token))
        z = (share - self._ratio) / spread
        return WatermarkScore(total, share, self._ratio, z, 0.5 * math.erfc(z / math.sqrt(2)))

    def _count(self, tokens: Tensor) -> tuple[int, float, int]:
        """Scored tokens, green ones (or ones among g-values), and trials for each token."""
        if tokens.shape[1] < 2:
            return 0, 0.0, 1
        if not self._is_synthid:
            try:
                found = self._scorer(tokens, return_dict=True)
            except ValueError:
                return 0, 0.0, 1
            return int(found.num_tokens_scored[0]), float(found.num_green_tokens[0]), 1
        if tokens.shape[1] < self._scorer.ngram_len:
            return 0, 0.0, 1
        values = self._scorer.compute_g_values(tokens)[0]
        fresh = self._scorer.compute_context_repetition_mask(tokens)[0].bool()
        kept = values[fresh]
        return len(kept), float(kept.sum()), int(values.shape[-1])
