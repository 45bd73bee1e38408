"""Build an objective from contrastive data or from a world of the terrarium."""

from collections.abc import Sequence
from typing import Literal, get_args

from odesteer.data import ContrastData
from odesteer.errors import DataError, InvalidInputError
from odesteer.models import SteeredModel
from odesteer.terrarium import Split, World
from odesteer.tuning.objectives.base import Objective
from odesteer.tuning.objectives.generated_texts import SAMPLING, WrittenTexts
from odesteer.tuning.objectives.likelihood_margin import LikelihoodMargin
from odesteer.tuning.objectives.prompts import (
    Prompt,
    evenly_spaced,
    generation_prompts,
    prompt_responses,
)
from odesteer.tuning.objectives.reading_judge import ReadingJudge

Proxy = Literal["judge", "likelihood"]
PROXIES: tuple[Proxy, ...] = get_args(Proxy)

N_ITEMS = 96


def from_data(
    lm: SteeredModel,
    data: ContrastData,
    proxy: Proxy = "judge",
    *,
    n_items: int = N_ITEMS,
    max_new_tokens: int = 48,
    seed: int = 0,
    batch_size: int = 16,
) -> tuple[ContrastData, Objective]:
    """The part of the data to fit on, and an objective on held-out groups.

    ``judge``: half of the groups to fit on, a quarter to train a `ReadingJudge`, and
    `WrittenTexts` on the prompts of the last quarter. ``likelihood``: two thirds of the groups to
    fit on, and `LikelihoodMargin` on the others. Both are proxies that keep growing with the
    amount where texts break down, so the budget matters as much as the value. Raises `DataError`
    for too few groups, or sides that differ in their prompts only.
    """
    if proxy not in PROXIES:
        raise InvalidInputError(f"proxy must be one of {', '.join(PROXIES)}, not {proxy!r}.")
    prompt_responses(data)  # raises `DataError` for data without a usable proxy
    n_groups = len({*data.groups_positive, *data.groups_negative})
    fewest = 16 if proxy == "judge" else 6
    if n_groups < fewest:
        raise DataError(
            f"{data!r} has {n_groups} groups; selecting by {proxy} needs at least {fewest}. Add"
            f" data{', or select by likelihood, which needs 6' if proxy == 'judge' else ''}, or"
            " fit at a layer of your choice with odesteer fit."
        )
    if proxy == "likelihood":
        fit, held_out = data.split(1 / 3, seed=seed)
        return fit, LikelihoodMargin(
            lm,
            held_out,
            max_items=n_items,
            max_new_tokens=max_new_tokens,
            seed=seed,
            batch_size=batch_size,
        )
    fit, rest = data.split(0.5, seed=seed)
    judge_data, held_out = rest.split(0.5, seed=seed)
    judge = ReadingJudge(lm, judge_data, batch_size=batch_size)
    prompts: list[Prompt] = list(
        generation_prompts(evenly_spaced(prompt_responses(held_out), n_items))
    )[:n_items]
    return fit, WrittenTexts(
        lm,
        prompts,
        judge,
        title="probability of the behaviour by the judge",
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
        description={**judge.about(), "data_digest": data.digest()},
    )


def from_world(
    lm: SteeredModel,
    world: World,
    split: Split = "validation",
    *,
    n_items: int = N_ITEMS,
    seed: int = 0,
    batch_size: int = 32,
) -> WrittenTexts:
    """The share of completions of the bundled model that are valid and on the positive side."""

    def judge(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        pairs = zip(prompts, texts, strict=True)
        return [float(world.judge(str(prompt), text).achieves()) for prompt, text in pairs]

    ends = [lm.tokenizer.eos_token_id]
    ends += lm.tokenizer(world.stop, add_special_tokens=False)["input_ids"]
    return WrittenTexts(
        lm,
        world.prompts(split, seed, n_items),
        judge,
        title=f"share of completions that are {world.poles[0]} and valid",
        max_new_tokens=world.max_new_tokens,
        seed=seed,
        batch_size=batch_size,
        description={"world": world.name, "split": split, "judge": "exact"},
        options={**SAMPLING, "eos_token_id": ends},
    )
