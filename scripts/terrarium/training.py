"""The training loop: Muon and AdamW, one pass over a stream, with checkpoints."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .acceptance import turn_accuracy
from .corpus import batches
from .model import build_model, build_tokenizer
from .recipe import Recipe

_CHECKPOINT_EVERY = 500


def train(recipe: Recipe, work: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, int]:
    """The trained model, its tokenizer, and how many tokens it has seen.

    A run that was killed goes on from its last checkpoint in ``work``.
    """
    tokenizer = build_tokenizer(recipe)
    model = build_model(recipe, tokenizer)
    muon, adam = _optimizers(recipe, model)
    checkpoint = work / "checkpoint.pt"
    step, tokens = _resume(checkpoint, recipe, model, muon, adam)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens in the vocabulary")
    began, before, mean = time.monotonic(), tokens, float("nan")
    model.train()
    for ids, weights in batches(recipe, tokenizer, step):
        if step >= recipe.steps:
            break
        _set_rates(recipe, step, muon, adam)
        loss = _loss(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        model.zero_grad()
        step += 1
        tokens += int((weights > 0).sum())
        mean = loss.item() if mean != mean else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 0:
            speed = (tokens - before) / (time.monotonic() - began)
            print(
                f"step {step} of {recipe.steps}, {tokens / 1e6:.2f} M tokens, "
                f"loss {mean:.3f}, {speed:,.0f} tokens/s",
                flush=True,
            )
        if step % _CHECKPOINT_EVERY == 0:
            told, fourth = (turn_accuracy(model, tokenizer, 4, told=t) for t in (True, False))
            print(f"  answers at turn 4 that fit the speaker: {fourth:.2f}, told {told:.2f}")
            _save(checkpoint, recipe, model, muon, adam, step, tokens)
    return model, tokenizer, tokens


def _optimizers(
    recipe: Recipe, model: LlamaForCausalLM
) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    # At equal tokens Muon was far ahead of AdamW alone here (loss 1.02 against 1.52 after 0.6 M).
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(
        matrices,
        weight_decay=recipe.weight_decay,
        momentum=0.95,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return muon, adam


def _set_rates(recipe: Recipe, step: int, muon: torch.optim.Muon, adam: torch.optim.AdamW) -> None:
    rate = recipe.rate_at(step)
    for group in muon.param_groups:
        group["lr"] = rate
    for group in adam.param_groups:
        group["lr"] = rate * recipe.adam_share


def _loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
    counted = weights[:, 1:] > 0
    logits = model.lm_head(hidden[counted])
    losses = cross_entropy(logits, ids[:, 1:][counted], reduction="none")
    kept = weights[:, 1:][counted]
    return (losses * kept).sum() / kept.sum()


def _save(
    path: Path,
    recipe: Recipe,
    model: LlamaForCausalLM,
    muon: torch.optim.Muon,
    adam: torch.optim.AdamW,
    step: int,
    tokens: int,
) -> None:
    state = {
        "recipe": asdict(recipe),
        "model": model.state_dict(),
        "muon": muon.state_dict(),
        "adam": adam.state_dict(),
        "step": step,
        "tokens": tokens,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(
    path: Path,
    recipe: Recipe,
    model: LlamaForCausalLM,
    muon: torch.optim.Muon,
    adam: torch.optim.AdamW,
) -> tuple[int, int]:
    """Step and tokens of the checkpoint, loaded; zeros if there is none of this recipe."""
    if not path.exists():
        return 0, 0
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(recipe):
        return 0, 0
    model.load_state_dict(state["model"])
    muon.load_state_dict(state["muon"])
    adam.load_state_dict(state["adam"])
    print(f"going on from step {state['step']}")
    return state["step"], state["tokens"]
