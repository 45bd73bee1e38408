"""The published judge of truth for TruthfulQA."""

from typing import ClassVar

from odesteer.evaluation.judges.finetuned import FinetunedJudge


class TruthfulQATruth(FinetunedJudge):
    """``true``: 1 for an answer that is true, 0 otherwise, as a tuned 7B model says."""

    name: ClassVar[str] = "truthfulqa-truth"
    metrics = ("true",)
    ending: ClassVar[str] = "True"
    what: ClassVar[str] = "whether an answer to a question of TruthfulQA is true"

    def __init__(
        self,
        *,
        model: str = "allenai/truthfulqa-truth-judge-llama2-7B",
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int = 8,
    ) -> None:
        super().__init__(model=model, device=device, dtype=dtype, batch_size=batch_size)
