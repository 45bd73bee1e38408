"""Barriers learned end to end in the bundled worlds: effect at equal cost, by exact judges.

    python -m studies.end_to_end_worlds [--worlds truth,civility,mood] [--layers 2,4]
        [--pairs 128] [--kl 0.1] [--n 64] [--neutral 48] [--out FILE]

Every method is fitted on the same pairs and used at the amount that costs ``--kl`` nats a token on
neutral texts: prompts of the other two worlds, of their validation split (training sees those of
the split to fit on). Reported on the test split, paired with the unsteered model, with standard
errors: the gain in log-odds of the desired text of unseen pairs, nats; and the share of sampled
completions that are valid and on the desired side. `level` is a row of its own: level 1 as it is.
Rows are appended to FILE, one JSON object a line; what is there already is not measured again.
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from odesteer import CAA, EndToEnd, ODESteer, SteeredModel, Steerer
from odesteer.barriers import (
    GatedPotential,
    LinearPotential,
    NeuralPotential,
    QuadraticPotential,
)
from odesteer.data import ContrastData, Example
from odesteer.terrarium import World, model_path, worlds
from studies.end_to_end import Results

FITS: dict[str, Callable[..., Any]] = {
    "end to end, linear": LinearPotential,
    "end to end, gated": GatedPotential,
    "end to end, quadratic": QuadraticPotential,
    "end to end, neural": NeuralPotential,
}
METHODS: dict[str, Callable[..., Any]] = {**FITS, "CAA": CAA, "ODESteer()": ODESteer}
BATCH = 32


def _context(
    lm: SteeredModel, steerer: Steerer, amount: dict[str, Any], ends: list[int]
) -> AbstractContextManager[Any]:
    return lm.steering(steerer, prompt_width=ends, **amount)


def _unsteered(ends: list[int]) -> AbstractContextManager[Any]:
    return nullcontext()


def log_likelihoods(lm: SteeredModel, examples: list[Example], steered: Any) -> torch.Tensor:
    """Of each response given its prompt, `[n]`, nats; ``steered`` makes the context of a batch."""
    found = []
    for start in range(0, len(examples), BATCH):
        texts = [lm.encode(example) for example in examples[start : start + BATCH]]
        width = max(map(len, texts))
        ids = torch.zeros(len(texts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, text in enumerate(texts):
            ids[i, : len(text)], mask[i, : len(text)] = torch.tensor(text.ids), 1
        with torch.no_grad(), steered([text.n_prompt for text in texts]):
            logs = lm.model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        for i, text in enumerate(texts):
            answer = logs[i, text.n_prompt - 1 : len(text) - 1]
            found.append(float(answer.gather(1, ids[i, text.n_prompt : len(text), None]).sum()))
    return torch.tensor(found)


def log_odds(lm: SteeredModel, data: ContrastData, steered: Any) -> torch.Tensor:
    """Of the desired text against the other one of each pair, `[n]`, nats."""
    sides = [log_likelihoods(lm, list(side), steered) for side in (data.positive, data.negative)]
    return sides[0] - sides[1]


def achieved(lm: SteeredModel, world: World, prompts: list[str], **steering: Any) -> list[float]:
    """1 for each sampled completion that is valid and on the desired side, else 0."""
    texts = lm.generate(
        prompts,
        **steering,
        max_new_tokens=world.max_new_tokens,
        do_sample=True,
        temperature=0.7,
        seed=1,
        batch_size=BATCH,
    )
    return [
        float(world.judge(prompt, text).achieves())
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def amount_at_cost(lm: SteeredModel, steerer: Steerer, neutral: list[str], kl: float) -> float:
    """The amount, in the method's natural quantity, that costs ``kl``."""
    quantity, value = steerer.method.quantities[0], 1.0
    for _ in range(7):
        cost = lm.divergence(steerer, prompts=neutral, **{quantity: value}).mean
        if abs(cost / kl - 1) < 0.03:
            break
        value *= min(max(math.sqrt(kl / max(cost, 1e-9)), 0.25), 4.0)
    return value


def measure(
    chosen: Annotated[str, typer.Option("--worlds")] = "truth,civility,mood",
    layers: Annotated[str, typer.Option(help="Zero-based, with commas between.")] = "2,4",
    pairs: Annotated[str, typer.Option(help="Numbers of pairs, with commas between.")] = "128",
    kl: Annotated[float, typer.Option(help="Cost, nats a token.")] = 0.1,
    n: Annotated[int, typer.Option(help="Test pairs, and test prompts.")] = 64,
    neutral_prompts: Annotated[int, typer.Option("--neutral", help="A multiple of 12.")] = 48,
    only: Annotated[str, typer.Option(help="Methods whose name holds this.")] = "",
    out: Annotated[Path, typer.Option()] = Path("end_to_end_worlds.jsonl"),
) -> None:
    """Measure every method in every world at every layer."""
    lm = SteeredModel.from_pretrained(str(model_path()), device="cpu", dtype=torch.float32)
    results = Results(out)
    for world in worlds():
        if world.name not in chosen.split(","):
            continue
        others = [other for other in worlds() if other is not world]
        seen, unseen = (
            [
                prompt.removeprefix("Q: ").removesuffix("\nA:")  # the template has these
                for other in others
                for prompt in other.prompts(split, 0, size)
            ]
            for split, size in (("fit", neutral_prompts // 3), ("validation", neutral_prompts // 6))
        )
        # Every third prompt is for validation.
        neutral = [
            p
            for i in range(neutral_prompts // 3)
            for p in (seen[2 * i], seen[2 * i + 1], unseen[i])
        ]
        test = world.contrast("test", 0, n)
        prompts = list(world.prompts("test", 0, n))
        plain = log_odds(lm, test, _unsteered)
        reached = achieved(lm, world, prompts)
        for size in map(int, pairs.split(",")):
            data = world.contrast("fit", 0, size)
            for layer in map(int, layers.split(",")):
                for name in METHODS:
                    key = {"world": world.name, "layer": layer, "pairs": size, "method": name}
                    key |= {"asked": kl, "n": n, "neutral": neutral_prompts}
                    if only not in name or results.has(**key):
                        continue
                    start = time.time()
                    if name in FITS:
                        method = EndToEnd(FITS[name](), kl=kl)
                        steerer = lm.fit(method, data, layer, neutral=neutral)
                    else:
                        method = METHODS[name]()
                        steerer = lm.fit(method, data, layer, position=world.position)
                    took = time.time() - start
                    learned = name.startswith("end to end")
                    at = 1.0 if learned else amount_at_cost(lm, steerer, neutral[2::3], kl)
                    amounts = [(steerer.method.quantities[0], at)]
                    amounts += [("level", 1.0)] if learned else []
                    for quantity, value in amounts:
                        amount: dict[str, Any] = {quantity: value}
                        steered = log_odds(
                            lm,
                            test,
                            lambda ends, s=steerer, a=amount: lm.steering(
                                s, prompt_width=ends, **a
                            ),
                        )
                        after = achieved(lm, world, prompts, steerer=steerer, **amount)
                        shares = [b - a for a, b in zip(reached, after, strict=True)]
                        cost = lm.divergence(steerer, prompts=neutral[2::3], **amount)
                        gains = (steered - plain).tolist()
                        results.add(
                            {
                                **key,
                                "amount": f"{quantity}={value:.3g}",
                                "gain": round(statistics.mean(gains), 3),
                                "gain_error": round(statistics.stdev(gains) / math.sqrt(n), 3),
                                "share": round(statistics.mean(after), 3),
                                "unsteered": round(statistics.mean(reached), 3),
                                "share_error": round(statistics.stdev(shares) / math.sqrt(n), 3),
                                "kl": round(cost.mean, 4),
                                "kl_error": round(cost.standard_error, 4),
                                "seconds": round(took, 1),
                            }
                        )
    print(json.dumps(len(results.rows)))


if __name__ == "__main__":
    typer.run(measure)
