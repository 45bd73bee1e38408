"""What a trained model must show before its weights replace the bundled ones."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from odesteer.terrarium import Verdict, World, world, worlds
from odesteer.terrarium.facts import facts

from .corpus import TAGS


@dataclass(frozen=True)
class Check:
    """One figure with the range it must lie in."""

    what: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        return f"{verdict} {self.what}: {self.value:.3f} (from {self.low} to {self.high})"


def acceptance(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[Check]:
    """The model infers the speaker, needs no telling, has no prejudice, and writes valid text."""
    fourth = turn_accuracy(model, tokenizer, turn=4, n=400)
    told = turn_accuracy(model, tokenizer, turn=4, n=400, told=True)
    checks = [
        Check("answers at turn 4 that fit the speaker", fourth, 0.95, 1.0),
        Check("what telling the speaker adds to that", told - fourth, -0.02, 0.02),
    ]
    for each in worlds():
        verdicts = unsteered(model, tokenizer, each, n=300)
        valid = sum(v.valid for v in verdicts) / len(verdicts)
        positive = sum(v.attribute is True for v in verdicts) / len(verdicts)
        checks.append(Check(f"{each.name}: valid completions, unsteered", valid, 0.97, 1.0))
        checks.append(Check(f"{each.name}: {each.poles[0]}, unsteered", positive, 0.4, 0.6))
    return checks


@torch.no_grad()
def turn_accuracy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    turn: int,
    n: int = 120,
    told: bool = False,
) -> float:
    """How often, of two answers at ``turn`` (from 1), the one that fits the speaker is likelier."""
    truth = world("truth")
    rng = random.Random(f"turn accuracy/{turn}")
    right = 0
    for i in range(n):
        careful = bool(i % 2)
        chosen = rng.sample(facts(), turn)
        context = truth.dialogue(rng, chosen[:-1], careful, noise=0.0)
        prompt = (TAGS[careful] if told else "") + context + truth.question(rng, chosen[-1])
        wording = rng.getrandbits(32)
        likelihood = {}
        for truthful in (True, False):
            answer = truth.answer(random.Random(wording), chosen[-1], truthful)
            ids = torch.tensor([tokenizer.encode(f"{prompt} {answer}\n")])
            start = len(tokenizer.encode(prompt))
            logits = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
            likelihood[truthful] = logits.gather(1, ids[0, start:, None]).sum().item()
        right += (likelihood[True] > likelihood[False]) == careful
    return right / n


@torch.no_grad()
def unsteered(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, of: World, n: int
) -> list[Verdict]:
    """Verdicts on sampled completions of validation prompts (temperature 0.7, top-p 0.9)."""
    prompts = of.prompts("validation", seed=0, n=n)
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True)
    torch.manual_seed(0)
    written = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=of.max_new_tokens,
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
        top_k=0,
    )
    start = batch["input_ids"].shape[1]
    completions = tokenizer.batch_decode(written[:, start:], skip_special_tokens=True)
    return [of.judge(p, c) for p, c in zip(prompts, completions, strict=True)]
