"""Each completion draws from a generator of its own."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from odesteer import SteeredModel
from odesteer.evaluation.runner.sampling import ItemSampler, generation_options, seed_of
from odesteer.evaluation.task import Decoding


def _draw(scores: torch.Tensor, seeds: list[int], **decoding: float) -> torch.Tensor:
    sampler = ItemSampler(seeds, 4, Decoding(**decoding))  # type: ignore[arg-type]
    return torch.stack([sampler(torch.zeros(1), scores).argmax(-1) for _ in range(4)], dim=1)


@given(seed=st.integers(0, 2**50), at=st.integers(0, 3))
def test_a_row_does_not_depend_on_the_others(seed: int, at: int) -> None:
    scores = torch.randn(4, 20, generator=torch.Generator().manual_seed(seed))
    seeds = [seed_of("row", i) for i in range(4)]
    together = _draw(scores, seeds, temperature=1.0, top_p=0.9)
    alone = _draw(scores[at : at + 1], seeds[at : at + 1], temperature=1.0, top_p=0.9)
    assert together[at].tolist() == alone[0].tolist()


def test_tokens_come_as_often_as_they_are_likely() -> None:
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    seeds = [seed_of(i) for i in range(4000)]
    drawn = _draw(shares.log().expand(len(seeds), 4), seeds, temperature=1.0, top_p=1.0)
    found = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
    torch.testing.assert_close(found, shares, atol=0.015, rtol=0)


def test_the_nucleus_leaves_out_the_rest() -> None:
    shares = torch.tensor([0.05, 0.6, 0.3, 0.05])
    seeds = [seed_of(i) for i in range(500)]
    drawn = _draw(shares.log().expand(len(seeds), 4), seeds, temperature=1.0, top_p=0.8)
    assert set(drawn.flatten().tolist()) == {1, 2}


def test_a_low_temperature_takes_the_likeliest() -> None:
    scores = torch.randn(50, 30)
    drawn = _draw(scores, list(range(50)), temperature=1e-3, top_p=0.9)
    assert (drawn == scores.argmax(-1)[:, None]).all()


def test_texts_do_not_depend_on_the_batch(lm: SteeredModel) -> None:
    prompts = [f"{word} is" for word in ("one", "two and the", "three", "four and four")]
    decoding = Decoding(temperature=1.0, top_p=0.95)
    seeds = [seed_of(prompt) for prompt in prompts]
    together = lm.generate(prompts, max_new_tokens=8, **generation_options(decoding, seeds, 8))
    alone = [
        lm.generate([prompt], max_new_tokens=8, **generation_options(decoding, [seed], 8))[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert together == alone
    assert len(set(together)) == len(together)


def test_greedy_decoding_draws_nothing() -> None:
    options = generation_options(Decoding(temperature=0.0), [1], 4)
    assert options["do_sample"] is False
    assert "logits_processor" not in options
