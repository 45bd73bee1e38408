"""Leaves out examples and items that do not fit into the model's context, and counts them."""

from collections import Counter
from dataclasses import replace

from odesteer.data import ContrastData
from odesteer.errors import DataError, InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.task import Fold, Task
from odesteer.models import SteeredModel


class ContextFilter:
    """Removes from folds what does not fit into a model's context. Nothing is truncated.

    Attributes:
        left_out: how many examples and items, by task, over all folds and seeds.
    """

    def __init__(self, lm: SteeredModel) -> None:
        self._lm = lm
        self.left_out: Counter[str] = Counter()

    def filtered(self, task: Task, fold: Fold) -> Fold:
        """The fold without texts that are too long. Raises `DataError` if nothing is left."""
        if self._lm.context is None:
            return fold
        fit = self._examples(task, fold.fit)
        if task.kind == "choice":
            return replace(fold, fit=fit)
        kept = {
            name: tuple(item for item in getattr(fold, name) if self._fits(task, item))
            for name in ("validation", "test")
        }
        for name, items in kept.items():
            n_lost = len(getattr(fold, name)) - len(items)
            self.left_out[task.name] += n_lost
            if not items:
                raise DataError(
                    f"task {task.name!r}, fold {fold.name!r}: all {n_lost} {name} prompts are"
                    f" longer than the model's context of {self._lm.context} tokens, with"
                    f" {task.max_new_tokens} to follow; raise --limit or choose another model."
                )
        return replace(fold, fit=fit, validation=kept["validation"], test=kept["test"])

    def _examples(self, task: Task, data: ContrastData) -> ContrastData:
        sides = []
        for examples, groups in (
            (data.positive, data.groups_positive),
            (data.negative, data.groups_negative),
        ):
            pairs = zip(examples, groups, strict=True)
            sides.append([(e, g) for e, g in pairs if self._length(e) is not None])
        positive, negative = sides
        self.left_out[task.name] += len(data) - len(positive) - len(negative)
        if not positive or not negative:
            raise DataError(
                f"task {task.name!r}: all examples of one side are longer than the model's context"
                f" of {self._lm.context} tokens; choose another model."
            )
        return ContrastData(
            tuple(example for example, _ in positive),
            tuple(example for example, _ in negative),
            tuple(group for _, group in positive),
            tuple(group for _, group in negative),
        )

    def _fits(self, task: Task, item: Item) -> bool:
        length = self._length(item.prompt)
        context = self._lm.context
        return length is not None and (context is None or length + task.max_new_tokens <= context)

    def _length(self, text: object) -> int | None:
        try:
            return len(self._lm.encode(text))  # type: ignore[arg-type]
        except InvalidInputError as error:
            if "context" in str(error):
                return None
            raise
