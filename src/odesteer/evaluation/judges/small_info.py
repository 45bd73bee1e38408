"""A small judge of informativeness, trained here."""

from typing import ClassVar

from odesteer.evaluation.judges.small_answers import SmallAnswers


class SmallInfo(SmallAnswers):
    """``info``, 1 or 0, and ``info-probability``, from the words of question and answer."""

    name: ClassVar[str] = "small-info"
    metrics = ("info", "info-probability")
    what: ClassVar[str] = "whether an answer to a question is informative, by its words"
    files: ClassVar[tuple[str, ...]] = ("truthfulqa/finetune_info.jsonl",)
    ending: ClassVar[str] = "Helpful"
