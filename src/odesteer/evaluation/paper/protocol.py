"""The protocol of arXiv 2602.17560: its tasks with data, prompts, decoding, splits and seeds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from odesteer.errors import InvalidInputError
from odesteer.evaluation.paper.experiments import Experiment, Question
from odesteer.evaluation.paper.models import PaperModel
from odesteer.evaluation.suites import Sizes, registry
from odesteer.evaluation.suites.base import Suite
from odesteer.evaluation.task import Decoding, Task

SEEDS = (42, 43, 44)
"""The paper says 42 and three runs."""

VALIDATION_SHARE = 0.2
"""Of each half of TruthfulQA: a tenth of all questions, as in the paper."""

_ALL = (
    "tokens are drawn from the whole nucleus; the published scripts leave top-k at the default of"
    " transformers, 50",
)
_FLUENCY = (
    "perplexity of the completion alone under GPT-2 XL or --perplexity-model, the exponential of"
    " the mean negative log-likelihood",
    "Dist-n of the words of each completion by itself; the paper counts under GPT-2 XL",
)
DEVIATIONS: dict[str, tuple[str, ...]] = {
    "truthfulqa": (*_ALL, "a blank answer is neither true nor informative"),
    "ultrafeedback": (
        *_ALL,
        "no bigram is repeated, as in the published script; the paper does not say so",
        "from a local file a quarter of the prompts is the test split",
    ),
    "realtoxicityprompts": (
        *_ALL,
        "a local classifier scores toxicity; the paper's Perspective takes no new users",
        "prompts are not filtered by their perplexity (the paper: below 200), which the data does"
        " not have",
        "a blank continuation counts as toxic",
        *_FLUENCY,
    ),
}
"""Where a task differs from the paper, a line each."""


def task_of(name: str, data: Path | None, fit_limit: int | None = None) -> Task:
    """A task under the protocol: one completion an item, base models, no chat template.

    Raises `DataError` where its data is missing.
    """
    suite: type[Suite] = registry.get(name)
    sizes = suite.full
    if fit_limit is not None:
        sizes = replace(sizes, fit=fit_limit)
    tasks = suite(Sizes(sizes.fit, sizes.validation, sizes.test), data).tasks()
    (task,) = (task for task in tasks if task.name == name)
    task.samples = 1
    task.decoding = Decoding(options={**task.decoding.options, "repetition_penalty": 1.1})
    if name == "truthfulqa":
        task.validation_share = VALIDATION_SHARE  # type: ignore[attr-defined]
    return task


def question(
    model: PaperModel,
    task: str,
    n_layers: int,
    layer: int | None,
    lengths: Sequence[float] | None,
    is_substitute: bool,
) -> Question:
    """What the rows depend on: the paper's layer and T unless others are given.

    A substitute is steered at the same relative depth. Raises `InvalidInputError` for a layer that
    the model does not have.
    """
    own = model.layer
    if is_substitute:
        own = round(model.layer * (n_layers - 1) / (model.architecture.layers - 1))
    chosen = own if layer is None else layer
    if not 0 <= chosen < n_layers:
        raise InvalidInputError(
            f"there is no layer {chosen}: the model has {n_layers}, counted from zero."
        )
    values = tuple(lengths) if lengths else model.lengths_for(task)
    return Question(model, task, chosen, n_layers, values)


def tasks_of(experiment: Experiment, wanted: Sequence[str]) -> tuple[str, ...]:
    """The tasks of an experiment that are asked for; by default all."""
    if not wanted:
        return experiment.tasks
    for name in wanted:
        if name not in experiment.tasks:
            raise InvalidInputError(
                f"{experiment.name} has no task {name!r}; it has {', '.join(experiment.tasks)}."
            )
    return tuple(dict.fromkeys(wanted))
