"""Fits to tokens of right and wrong answers that are paired by their position in the answer."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import torch
from torch import Tensor

from odesteer.artifact import Site, SteererSet
from odesteer.data import ContrastData
from odesteer.errors import InvalidInputError
from odesteer.methods import EndToEnd, Method
from odesteer.models.fitting import fit_steerers, prepare_method
from odesteer.models.observed_model import ObservedModel
from odesteer.untrusted import is_integer, is_number


def fit_aligned(
    lm: ObservedModel,
    method: Method,
    data: ContrastData,
    layers: Sequence[int],
    *,
    best: int | None = None,
    most_alike: float = 0.75,
    steer_position: str = "last",
    batch_size: int | None = None,
) -> SteererSet:
    """A copy of ``method`` at each layer, fitted to pairs of tokens at the same place of answers.

    Every positive of a group stands against every negative of it, token by token up to the end of
    the shorter response; for methods that learn from pairs, as `HPR` (arXiv 2409.10053) in its
    published form, `RepE` and `TruthFlow`. The method sees one example of each side for each pair,
    so tokens of groups with many answers count often.

    Args:
        lm: the model.
        method: any that is fitted to activations.
        data: right and wrong answers; a group is one question.
        layers: that are fitted.
        best: how many layers are kept, those whose barrier has the largest held-out AUC; the paper
            keeps five of all. None keeps all.
        most_alike: pairs of responses of which at least this share of the tokens is the same, in
            the same order (Ratcliff and Obershelp), are left out. What the paper compares is not
            known.
        steer_position: where the steerers act, see `Site`.
        batch_size: examples in a pass.

    Raises `InvalidInputError` where no pair is left, for ``best`` with a method that has no
    held-out AUC, and as `SteeredModel.fit` does.
    """
    if isinstance(method, EndToEnd):
        raise InvalidInputError(
            "EndToEnd is trained on outputs; give its data to SteeredModel.fit."
        )
    numbers = list(layers)
    if not numbers or len(set(numbers)) < len(numbers):
        raise InvalidInputError(f"give one or more different layers, not {numbers}.")
    if best is not None and (not is_integer(best, 1) or best > len(numbers)):
        raise InvalidInputError(f"best must be from 1 to {len(numbers)} layers, not {best!r}.")
    if not is_number(most_alike) or not 0 < most_alike <= 1:
        raise InvalidInputError(f"most_alike must be in (0, 1], not {most_alike!r}.")
    prepared = prepare_method(method, "residual", None)
    examples = (*data.positive, *data.negative)
    found = lm.capture(examples, numbers, "answer", batch_size=batch_size)
    rows = _aligned(lm, data, found.example, most_alike)
    provenance = {
        "model_id": lm.model_id,
        "model_revision": lm.model_revision,
        "model_width": lm.width,
        "n_layers": lm.n_layers,
        "capture_position": "answer",
    }
    sites = [Site(layer, steer_position) for layer in numbers]
    fitted = fit_steerers(prepared, found.rows(rows), data, sites, provenance, lm.template)
    if best is not None:
        scores = [steerer.provenance.held_out.get("auc") for steerer in fitted]
        if any(score is None for score in scores):
            raise InvalidInputError(
                f"{method!r:.80} has no barrier with a held-out AUC to choose layers by; leave best"
                " out, or fit with folds."
            )
        order = sorted(range(len(fitted)), key=lambda i: -(scores[i] or 0.0))
        fitted = [fitted[i] for i in sorted(order[:best])]
    return SteererSet(fitted)


def _aligned(lm: ObservedModel, data: ContrastData, example: Tensor, most_alike: float) -> Tensor:
    """Rows `[2 m]` of captured answers: of the positive of each pair, then of the negative."""
    counts = torch.bincount(example, minlength=len(data.positive) + len(data.negative)).tolist()
    starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
    tokens = []
    for text in (*data.positive, *data.negative):
        encoded = lm.encode(text)
        tokens.append(encoded.ids[encoded.n_prompt :])
    wrong: dict[str, list[int]] = {}
    for i, group in enumerate(data.groups_negative, start=len(data.positive)):
        wrong.setdefault(group, []).append(i)
    sides: tuple[list[int], list[int]] = ([], [])
    for i, group in enumerate(data.groups_positive):
        for j in wrong.get(group, ()):
            if SequenceMatcher(None, tokens[i], tokens[j], autojunk=False).ratio() < most_alike:
                for side, own in zip(sides, (i, j), strict=True):
                    side += range(starts[own], starts[own] + min(counts[i], counts[j]))
    if not sides[0]:
        raise InvalidInputError(
            f"no group has a positive and a negative response that are less than {most_alike:.0%}"
            " alike; give groups with both, or raise most_alike."
        )
    return torch.tensor([*sides[0], *sides[1]])
