"""How often a steered bundled model says something valid with the desired attribute."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from odesteer import Amount, SteeredModel, Steerer
from odesteer.terrarium import Verdict
from studies.tasks import Task

SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}


@dataclass(frozen=True)
class Rates:
    """Shares of completions, each with the half-width of its 95 % interval.

    Attributes:
        joint: valid and with the desired attribute; the headline.
        attribute: with the desired attribute.
        valid: that the world could have said.
        n: completions judged.
    """

    joint: float
    attribute: float
    valid: float
    half_width: float
    n: int

    @classmethod
    def of(cls, verdicts: list[list[Verdict]]) -> "Rates":
        """From verdicts on the same prompts under several seeds, `[seeds][prompts]`.

        The interval is a bootstrap over prompts within seeds and over seeds.
        """
        joint = np.array([[v.achieves() for v in row] for row in verdicts], dtype=float)
        attribute = np.mean([[v.attribute is True for v in row] for row in verdicts])
        valid = np.mean([[v.valid for v in row] for row in verdicts])
        rng = np.random.default_rng(0)
        seeds, prompts = joint.shape
        means = []
        for _ in range(2000):
            rows = rng.integers(seeds, size=seeds)[:, None]
            means.append(joint[rows, rng.integers(prompts, size=(seeds, prompts))].mean())
        low, high = np.quantile(means, [0.025, 0.975])
        return cls(
            joint=float(joint.mean()),
            attribute=float(attribute),
            valid=float(valid),
            half_width=float(high - low) / 2,
            n=joint.size,
        )

    def __str__(self) -> str:
        return f"{self.joint:.3f} ±{self.half_width:.3f} (valid {self.valid:.2f})"


def complete(
    lm: SteeredModel,
    task: Task,
    prompts: Sequence[str],
    steerer: Steerer | None,
    amount: Amount | None,
    seed: int,
) -> list[Verdict]:
    """Sample one completion of each prompt and judge it."""
    (newline,) = lm.tokenizer("\n", add_special_tokens=False)["input_ids"]
    how_much: dict[str, Any] = {} if amount is None else {amount.quantity: amount.value}
    texts = lm.generate(
        list(prompts),
        steerer,
        max_new_tokens=task.max_new_tokens,
        seed=seed,
        eos_token_id=[lm.tokenizer.eos_token_id, newline],
        **SAMPLING,
        **how_much,
    )
    return [task.judge(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
