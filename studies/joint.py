"""Joint rate: how often the steered bundled model says something valid with the attribute."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from odesteer import Amount, SteeredModel, Steerer
from odesteer.evaluation.metrics.bootstrap import Observation, PairedBootstrap
from odesteer.terrarium import Verdict
from studies.tasks import Task

SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}


@dataclass(frozen=True)
class Judged:
    """The verdict on the completion of a prompt, sampled under a seed."""

    prompt: str
    seed: int
    verdict: Verdict


@dataclass(frozen=True)
class Rates:
    """Shares of completions, the first with the half-width of its 95 % interval.

    Attributes:
        joint: valid and with the desired attribute; the headline.
        attribute: with the desired attribute.
        valid: that the world could have said.
        half_width: of the interval of ``joint``.
        n: completions judged.
    """

    joint: float
    attribute: float
    valid: float
    half_width: float
    n: int

    @classmethod
    def of(cls, judged: Sequence[Judged]) -> "Rates":
        """From completions of prompts under one or more seeds.

        The interval is that of `PairedBootstrap`, over prompts and seeds.
        """
        cells = [Observation(j.prompt, j.seed, float(j.verdict.achieves())) for j in judged]
        joint = PairedBootstrap().estimates({"joint": cells})["joint"]
        assert joint.value is not None
        assert joint.low is not None
        assert joint.high is not None
        return cls(
            joint=joint.value,
            attribute=sum(j.verdict.attribute is True for j in judged) / len(judged),
            valid=sum(j.verdict.valid for j in judged) / len(judged),
            half_width=(joint.high - joint.low) / 2,
            n=joint.n,
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
) -> list[Judged]:
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
    return [
        Judged(prompt, seed, task.judge(prompt, text))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
