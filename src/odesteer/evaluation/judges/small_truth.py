"""A small judge of truth, trained here."""

from typing import ClassVar

from odesteer.evaluation.judges.small_answers import SmallAnswers


class SmallTruth(SmallAnswers):
    """``true``, 1 or 0, and ``true-probability``, from the words of question and answer."""

    name: ClassVar[str] = "small-truth"
    metrics = ("true", "true-probability")
    what: ClassVar[str] = "whether an answer to a question of TruthfulQA is true, by its words"
    files: ClassVar[tuple[str, ...]] = ("truthfulqa/finetune_truth.jsonl",)
    ending: ClassVar[str] = "True"
