"""The published judge of informativeness for TruthfulQA."""

from typing import ClassVar

from odesteer.evaluation.judges.finetuned import FinetunedJudge


class TruthfulQAInfo(FinetunedJudge):
    """``info``: 1 for an answer that is informative, 0 otherwise, as a tuned 7B model says."""

    name: ClassVar[str] = "truthfulqa-info"
    metrics = ("info",)
    ending: ClassVar[str] = "Helpful"
    what: ClassVar[str] = "whether an answer to a question of TruthfulQA is informative"

    def __init__(
        self,
        *,
        model: str = "allenai/truthfulqa-info-judge-llama2-7B",
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int = 8,
    ) -> None:
        super().__init__(model=model, device=device, dtype=dtype, batch_size=batch_size)
