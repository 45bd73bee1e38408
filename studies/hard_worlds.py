"""Worlds that tell methods apart: linear or quadratic, one step or many, a length or a level.

    python -m studies.hard_worlds [--world NAME] [--exceptions 0.4] [--json FILE] [--quick]

In a hard world of the terrarium what is desired depends on the text so far, and no line separates
it (docs/terrarium.md). Every candidate takes the best of its amounts on validation prompts and is
reported on test prompts, and at the same amount on shifted test prompts. Differences are paired by
prompt. All are fitted to the same activations of the fit split.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from odesteer import Amount, Method, ODESteer, Site, SteeredModel, Steerer
from odesteer.barriers import Centred, LinearBarrier, MultiLabelBarrier, PolynomialBarrier
from odesteer.evaluation.metrics import Estimate, Observation, PairedBootstrap
from odesteer.methods import CAA, ITI, MiMiC, OneStep, Spherical
from odesteer.terrarium import SelectiveTruthWorld, TurningMoodWorld, World, model_path
from studies.joint import SAMPLING
from studies.tasks import Activations, capture

N_PAIRS, N_VALIDATION, N_TEST = 300, 40, 100
WORLDS = {each.name: each for each in (SelectiveTruthWorld, TurningMoodWorld)}


@dataclass(frozen=True)
class Candidate:
    """A method with the amounts to choose from; ``reference`` is the row it is compared with."""

    name: str
    method: Method
    amounts: tuple[Amount, ...]
    reference: str = "linear, level"


def _levels(*values: float) -> tuple[Amount, ...]:
    return tuple(Amount("level", value) for value in values)


def _lengths(*values: float) -> tuple[Amount, ...]:
    return tuple(Amount("strength", value) for value in values)


def sharp() -> PolynomialBarrier:
    """A quadratic barrier with little regularisation: the default's hardly curves here."""
    return PolynomialBarrier(gamma=1.0, C=100.0, inputs=Centred())


def candidates() -> list[Candidate]:
    """Linear ones first."""
    return [
        Candidate("mean difference", CAA(), _lengths(1, 2, 4)),
        Candidate("linear probe (ITI)", ITI(), _lengths(1, 2, 4)),
        Candidate("linear on the sphere, level", Spherical(), _levels(1.5, 3)),
        Candidate("linear, level", ODESteer(LinearBarrier()), _levels(1.5, 3)),
        Candidate("affine map (MiMiC)", MiMiC(), (Amount("interpolation", 1.0),)),
        Candidate("ODESteer(), level", ODESteer(), _levels(1.5, 3)),
        Candidate("ODESteer.paper(), length", ODESteer.paper(), _lengths(1, 2, 4)),
        Candidate("sharp quadratic, level", ODESteer(sharp()), _levels(1.5, 2.5)),
        Candidate("network of labels, level", ODESteer(MultiLabelBarrier()), _levels(1.5, 2.5)),
        Candidate(
            "sharp quadratic, one step to a level",
            OneStep(sharp()),
            _levels(1.5, 2.5),
            "sharp quadratic, level",
        ),
        Candidate(
            "sharp quadratic, length",
            ODESteer(sharp()),
            _lengths(1, 2, 4),
            "sharp quadratic, level",
        ),
    ]


class Trial:
    """One world: its activations, prompts and judge."""

    def __init__(self, name: str, exceptions: float, seed: int, n_test: int) -> None:
        self.lm = SteeredModel.from_pretrained(str(model_path()), device="cpu")
        self.world: World = WORLDS[name](exceptions)
        shifted = WORLDS[name](exceptions, shifted=True)
        self.seed = seed
        self.prompts = {
            "validation": self.world.prompts("validation", seed, min(N_VALIDATION, n_test)),
            "test": self.world.prompts("test", seed, n_test),
            "shifted": shifted.prompts("test", seed, n_test),
        }
        data = self.world.contrast("fit", seed, N_PAIRS)
        layer = self.world.layer
        self._fit: Activations = capture(self.lm, data, (layer,), self.world.position, seed)[layer]

    def steerer(self, candidate: Candidate) -> Steerer:
        """The candidate fitted to the activations of the fit split."""
        fit = self._fit
        method = candidate.method.clone().fit(fit.positive, fit.negative, fit.groups)
        return Steerer(method, Site(self.world.layer))

    def scores(self, part: str, steerer: Steerer | None, amount: Amount | None) -> list[float]:
        """1 for each completion of a part that is valid and as desired."""
        (newline,) = self.lm.tokenizer("\n", add_special_tokens=False)["input_ids"]
        how_much: dict[str, Any] = {} if amount is None else {amount.quantity: amount.value}
        texts = self.lm.generate(
            list(self.prompts[part]),
            steerer,
            max_new_tokens=self.world.max_new_tokens,
            seed=self.seed,
            eos_token_id=[self.lm.tokenizer.eos_token_id, newline],
            **SAMPLING,
            **how_much,
        )
        pairs = zip(self.prompts[part], texts, strict=True)
        return [float(self.world.judge(prompt, text).achieves()) for prompt, text in pairs]


def observations(scores: Sequence[float]) -> list[Observation]:
    """Scores of prompts, paired by their place."""
    return [Observation(str(i), 0, score, str(i)) for i, score in enumerate(scores)]


def text(estimate: Estimate, *, signed: bool = False) -> str:
    """An estimate with its interval."""
    value, low, high = estimate.value, estimate.low, estimate.high
    form = "+.3f" if signed else ".3f"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def main(
    world: Annotated[str, typer.Option(help=f"{' or '.join(WORLDS)}.")] = "selective-truth",
    exceptions: Annotated[float, typer.Option(help="The dial of difficulty, 0 to 0.5.")] = 0.4,
    seed: Annotated[int, typer.Option(help="Of data, prompts and sampling.")] = 0,
    only: Annotated[str, typer.Option(help="Only candidates whose names contain this.")] = "",
    file: Annotated[Path | None, typer.Option("--json", help="Where to save.")] = None,
    *,
    quick: Annotated[bool, typer.Option(help="Few prompts: whether it runs.")] = False,
) -> None:
    """Run the study of one world and print its table."""
    trial = Trial(world, exceptions, seed, 6 if quick else N_TEST)
    scored: dict[str, dict[str, list[float]]] = {
        "unsteered": {part: trial.scores(part, None, None) for part in ("test", "shifted")}
    }
    chosen: dict[str, str] = {"unsteered": "–"}
    references: dict[str, str] = {}
    for candidate in candidates():
        if only not in candidate.name:
            continue
        steerer = trial.steerer(candidate)
        means = [
            sum(trial.scores("validation", steerer, amount)) if len(candidate.amounts) > 1 else 0.0
            for amount in candidate.amounts
        ]
        amount = candidate.amounts[means.index(max(means))]
        chosen[candidate.name] = str(amount)
        references[candidate.name] = candidate.reference
        scored[candidate.name] = {
            part: trial.scores(part, steerer, amount) for part in ("test", "shifted")
        }
    bootstrap = PairedBootstrap()
    table = Table("candidate", "amount", "test", "shifted test", "test − reference", "reference")
    for name, parts in scored.items():
        found = {part: bootstrap.estimates({"": observations(s)})[""] for part, s in parts.items()}
        reference = references.get(name, "")
        difference = "–"
        if reference in scored and reference != name:
            pair = {name: observations(parts["test"])}
            pair[reference] = observations(scored[reference]["test"])
            difference = text(bootstrap.differences(pair)[name, reference], signed=True)
        table.add_row(
            name, chosen[name], text(found["test"]), text(found["shifted"]), difference, reference
        )
    Console(width=180).print(table)
    if file is not None:
        file.write_text(json.dumps({"world": world, "exceptions": exceptions, "scores": scored}))


if __name__ == "__main__":
    typer.run(main)
