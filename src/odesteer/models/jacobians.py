"""Mean Jacobians between layers at the last token, for control over layers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.architecture.hooks import HookSet
from odesteer.models.architecture.layers import accepts_argument
from odesteer.models.architecture.sites import hidden_states
from odesteer.models.observed_model import ObservedModel
from odesteer.models.tokens.encoding import Prompt
from odesteer.models.training.prompt_states import can_keep, computed

_ROWS = 64  # of a Jacobian in one backward pass


def mean_jacobians(
    lm: ObservedModel, layers: Sequence[int], prompts: Sequence[Prompt], *, max_tokens: int = 24
) -> list[Tensor]:
    """∂(output of a layer)/∂(output of the one before it in ``layers``) at the last token.

    Means over ``prompts``, each cut to its last ``max_tokens`` tokens; `[d, d]` float64, one less
    than there are layers, in increasing order. Keys and values of earlier tokens are constants. A
    prompt takes d backward passes of one token through the layers between, 64 at a time.

    Raises `InvalidInputError` for fewer than two layers and for prompts of fewer than two tokens,
    and `ModelError` for models without a plain cache of keys and values.
    """
    ordered = sorted(set(layers))
    if len(ordered) < 2 or len(ordered) < len(list(layers)):
        raise InvalidInputError(f"give two or more different layers, not {list(layers)}.")
    if not prompts:
        raise InvalidInputError("give prompts to take the mean over.")
    for layer in ordered:
        lm.layers.at(layer)
    if not can_keep(lm):
        raise ModelError(
            f"{lm.model_id} has no plain cache of keys and values, from which Jacobians of one"
            " token could be taken."
        )
    totals = [torch.zeros(lm.width, lm.width, dtype=torch.float64) for _ in ordered[1:]]
    with torch.inference_mode(False):
        for prompt in prompts:
            ids = tuple(lm.encode(prompt).ids[-max_tokens:])
            if len(ids) < 2:
                raise InvalidInputError(f"the prompt {prompt!r:.60} has fewer than two tokens.")
            for total, one in zip(totals, _jacobians(lm, ordered, ids), strict=True):
                total += one
    return [total / len(prompts) for total in totals]


def _jacobians(lm: ObservedModel, layers: Sequence[int], ids: tuple[int, ...]) -> list[Tensor]:
    """Those of one text, from a batch of equal copies of its last token."""
    rows = min(_ROWS, lm.width)
    before = computed(lm, [ids[:-1]] * rows)
    if before is None:
        raise ModelError(f"{lm.model_id} does not keep keys and values of all tokens.")
    starts: list[Tensor] = []
    ends: list[Tensor] = []

    def cut(module: nn.Module, args: Any, *rest: Any) -> Any:
        """Keeps the output, and goes on with a leaf of the same values."""
        states = hidden_states(rest[-1])
        ends.append(states)
        leaf = states.detach().requires_grad_()
        starts.append(leaf)
        return leaf if isinstance(rest[-1], Tensor) else (leaf, *rest[-1][1:])

    mask = torch.cat([before.mask, before.mask.new_ones(rows, 1)], dim=1)
    inputs: dict[str, Any] = {
        "input_ids": torch.full((rows, 1), ids[-1], device=lm.device),
        "attention_mask": mask,
        "past_key_values": before.fresh(lm.device, -1),
        "use_cache": True,
    }
    if accepts_argument(lm.model, "position_ids"):
        inputs["position_ids"] = torch.full((rows, 1), len(ids) - 1, device=lm.device)
    hooks: list[tuple[nn.Module, Callable[..., Any]]] = [(lm.layers.at(i), cut) for i in layers]
    with HookSet([], hooks), torch.enable_grad():
        lm.model(**inputs)
    if len(ends) < len(layers):
        raise ModelError("not every layer ran; this model skips layers.")
    return [_jacobian(start, end) for start, end in zip(starts[:-1], ends[1:], strict=True)]


def _jacobian(start: Tensor, end: Tensor) -> Tensor:
    """∂end/∂start `[d, d]` of copies `[rows, 1, d]`, each of which gives one row at a time."""
    rows, _, d = end.shape
    found = []
    for first in range(0, d, rows):
        weights = torch.zeros_like(end)
        taken = min(rows, d - first)
        weights[range(taken), 0, range(first, first + taken)] = 1
        (gradient,) = torch.autograd.grad(end, start, weights, retain_graph=True)
        found.append(gradient[:taken, 0].double().cpu())
    return torch.cat(found)
