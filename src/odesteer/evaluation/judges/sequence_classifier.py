"""Loads and runs sequence classification models of transformers."""

from collections.abc import Sequence
from typing import Any

import torch

from odesteer.errors import ModelError


class SequenceClassifier:
    """A sequence classification model with its tokenizer; ``model`` is a hub id or a folder.

    Raises `ModelError` if it cannot be loaded.
    """

    def __init__(self, model: str, device: str | None = None, dtype: str = "auto") -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
            loaded, report = AutoModelForSequenceClassification.from_pretrained(
                model, dtype=dtype, output_loading_info=True
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"cannot load the classifier {model!r}: it is neither a folder with a sequence"
                " classification model and its tokenizer nor a model of that kind on the Hugging"
                f" Face hub that can be had from here. ({' '.join(str(error).split())[:300]})"
            ) from error
        absent = sorted(report["missing_keys"])
        if absent:  # transformers fills them with random numbers
            raise ModelError(
                f"{model!r} is no sequence classification model: it has no weights for"
                f" {', '.join(absent[:3])}, and would answer at random."
            )
        self.model: Any = loaded.to(device).eval()

    @property
    def labels(self) -> list[str]:
        """Names of the outputs, in order."""
        names = self.model.config.id2label
        return [str(names[i]) for i in range(self.model.config.num_labels)]

    def ids(self, text: str, *, special: bool = True) -> list[int] | None:
        """Token ids of a text; None if it has none, or more than the model supports."""
        ids = list(self.tokenizer(text, add_special_tokens=special)["input_ids"])
        return ids if 0 < len(ids) <= self._limit() else None

    def logits(self, rows: Sequence[Sequence[int]], batch_size: int) -> torch.Tensor:
        """Outputs `[n, n_labels]` for rows of token ids, in order; float32 on the CPU."""
        out = torch.empty(len(rows), self.model.config.num_labels)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            out[batch] = self._run([rows[i] for i in batch])
        return out

    @torch.no_grad()
    def _run(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        config = self.model.config
        pad = config.pad_token_id
        if pad is None:
            # Decoders find the last token by the padding token: without one, rows of different
            # lengths would be classified at the wrong token.
            return torch.cat([self._forward(torch.tensor([list(row)])) for row in rows])
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        mask = torch.arange(width)[None] < torch.tensor([[len(row)] for row in rows])
        return self._forward(ids, mask.long())

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        device = self.model.device
        given = {} if mask is None else {"attention_mask": mask.to(device)}
        logits: torch.Tensor = self.model(input_ids=ids.to(device), **given).logits
        return logits.float().cpu()

    def _limit(self) -> int:
        limits = [int(self.tokenizer.model_max_length)]
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None:
            # RoBERTa numbers positions from after the padding token.
            reserved = (self.model.config.pad_token_id or 0) + 1
            shifted = self.model.config.model_type in ("roberta", "xlm-roberta", "camembert")
            limits.append(positions - reserved if shifted else positions)
        return min(limits)
