"""Table 8: other capabilities of a model steered for truthfulness, by lm-evaluation-harness."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odesteer.artifact import Steerer
from odesteer.evaluation.harness import NAME, register
from odesteer.evaluation.paper.published import figure
from odesteer.evaluation.paper.results import Line
from odesteer.methods import Amount
from odesteer.models import SteeredModel

HARNESS_TASKS = ("commonsense_qa", "mmlu", "arc_challenge")
"""Zero-shot, as in the paper."""


def command(model: str, steerer: Path, amount: Amount, tasks: Sequence[str]) -> str:
    """The command line that measures the same."""
    return (
        f"python -m odesteer.evaluation.harness --model {NAME} --model_args"
        f" pretrained={model},steer={steerer},{amount.quantity}={float(amount.value):g}"
        f" --tasks {','.join(tasks)} --num_fewshot 0"
    )


def capabilities(
    lm: SteeredModel,
    steerer: Steerer,
    amount: Amount,
    model: str,
    tasks: Sequence[Any] = HARNESS_TASKS,
    *,
    limit: int | None = None,
    batch_size: int = 8,
) -> list[Line]:
    """Accuracy without and with steering; ± is the harness's standard error.

    ``tasks`` are names of tasks of the harness, or their configurations. Raises
    `MissingDependencyError` without ``lm_eval``.
    """
    register()
    import lm_eval

    found = []
    for name, published, steer in (
        ("no steering", "Original", None),
        ("odesteer-paper", "ODESteer", steerer),
    ):
        arguments = {"pretrained": lm.model, "tokenizer": lm.tokenizer}
        if steer is not None:
            arguments |= {"steer": steer, amount.quantity: float(amount.value)}
        outcome = lm_eval.simple_evaluate(
            model=NAME,
            model_args=arguments,
            tasks=[dict(task) if isinstance(task, dict) else task for task in tasks],
            num_fewshot=0,
            limit=limit,
            batch_size=batch_size,
            bootstrap_iters=0,
        )
        for task, scores in outcome["results"].items():
            if "acc,none" not in scores:
                continue
            error = scores.get("acc_stderr,none")
            n = outcome.get("n-samples", {}).get(task, {}).get("effective", 0)
            found.append(
                Line(
                    name,
                    "" if steer is None else str(amount),
                    None,
                    f"{task} acc",
                    float(scores["acc,none"]),
                    float(error) if isinstance(error, (int, float)) else None,
                    None,
                    figure(8, model, task, published, "acc"),
                    int(n),
                    0,
                )
            )
    return found
