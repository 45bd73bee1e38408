"""Judge by a reward model: a sequence classifier trained on preferences."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from odesteer.errors import ModelError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.evaluation.judges.model_files import model_identity, read_classifier_config

if TYPE_CHECKING:
    from odesteer.evaluation.judges.sequence_classifier import SequenceClassifier


class RewardModel(Judge):
    """``reward``: the single output of a sequence classification model, higher is better.

    ``model`` is a hub id or a folder; the paper's is Skywork-Reward-V2. Prompt and response go
    through its chat template (a text as the turn of a user); without a template it reads prompt,
    line break, response. What does not fit into the model's context is missing.
    """

    name: ClassVar[str] = "reward-model"
    metrics = ("reward",)

    def __init__(
        self,
        *,
        model: str = "Skywork/Skywork-Reward-V2-Llama-3.1-8B",
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int = 8,
    ) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self._classifier: SequenceClassifier | None = None

    def unavailable(self) -> str | None:
        config, reason = read_classifier_config(self.model)
        if reason is not None:
            return reason
        return None if config.num_labels == 1 else self._too_many(list(config.id2label.values()))

    def identity(self) -> dict[str, Any]:
        return model_identity(self.model)

    def _too_many(self, labels: Sequence[object]) -> str:
        return (
            f"{self.model!r} has {len(labels)} outputs ({', '.join(map(str, labels[:8]))}); a"
            " reward model has one. Name another with model=."
        )

    def about(self) -> dict[str, Any]:
        return {
            "kind": "model",
            "what": "a reward model's score of a response to its prompt",
            "model": self.model,
        }

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        classifier = self._load()
        scores = [self._missing() for _ in items]
        rows: dict[int, list[int]] = {}
        for i, (item, text) in enumerate(zip(items, texts, strict=True)):
            ids = _ids(classifier, item, text)
            if ids is not None:
                rows[i] = ids
        logits = classifier.logits(list(rows.values()), self.batch_size)
        for i, value in zip(rows, logits[:, 0].tolist(), strict=True):
            if math.isfinite(value):
                scores[i] = {"reward": value}
        return scores

    def _load(self) -> "SequenceClassifier":
        if self._classifier is None:
            from odesteer.evaluation.judges.sequence_classifier import SequenceClassifier

            classifier = SequenceClassifier(self.model, self.device, self.dtype)
            if len(classifier.labels) != 1:
                raise ModelError(self._too_many(classifier.labels))
            self._classifier = classifier
        return self._classifier


def _ids(classifier: "SequenceClassifier", item: Item, response: str) -> list[int] | None:
    tokenizer = classifier.tokenizer
    if getattr(tokenizer, "chat_template", None) is None:
        return classifier.ids(f"{item.text}\n{response}")
    messages = (
        [{"role": "user", "content": item.prompt}]
        if isinstance(item.prompt, str)
        else [{"role": m.role, "content": m.content} for m in item.prompt]
    )
    messages.append({"role": "assistant", "content": response})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    # The template writes the BOS where the model wants one; the tokenizer would add a second.
    return classifier.ids(text, special=False)
