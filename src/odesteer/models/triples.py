"""Triples of a query, right and wrong answers; corrections made for one request."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from odesteer.artifact import Provenance, Site, Steerer
from odesteer.data import ContrastData, Example
from odesteer.errors import InvalidInputError
from odesteer.methods import QueryTruthFlow
from odesteer.models.observed_model import ObservedModel
from odesteer.models.tokens.encoding import Prompt
from odesteer.version import __version__


def fit_triples(
    lm: ObservedModel,
    method: QueryTruthFlow,
    data: ContrastData,
    layer: int,
    *,
    steer_position: str = "last::1",
    batch_size: int | None = None,
) -> Steerer:
    """A copy of ``method`` fitted to the queries and answers of ``data`` at one layer.

    Each group is a query with its right and wrong answers. Its state is that of the last token of
    the prompt; answers count by the mean over their tokens, several of one side by their mean.
    Raises `InvalidInputError` for groups whose examples have different prompts or lack a side, and
    as `QueryTruthFlow.fit_triples` does.
    """
    examples = (*data.positive, *data.negative)
    labels = (*data.groups_positive, *data.groups_negative)
    members: dict[str, tuple[list[int], list[int]]] = {}
    for i, label in enumerate(labels):
        members.setdefault(label, ([], []))[i >= len(data.positive)].append(i)
    for label, (right, wrong) in members.items():
        if not right or not wrong:
            raise InvalidInputError(
                f"the group {label!r:.40} has {len(right)} right and {len(wrong)} wrong answers; a"
                " triple needs one of each."
            )
        if len({str(examples[i].prompt) for i in (*right, *wrong)}) > 1:
            raise InvalidInputError(
                f"the examples of the group {label!r:.40} have different prompts; a triple is one"
                " query with its answers."
            )
    firsts = [examples[right[0]] for right, _ in members.values()]
    queries = lm.capture(firsts, layer, "prompt", batch_size=batch_size).states[layer]
    means = _answer_means(lm, examples, layer, batch_size)
    sides = [
        torch.stack([means[pair[side]].mean(dim=0) for pair in members.values()]) for side in (0, 1)
    ]
    fitted = method.clone().fit_triples(queries, sides[0], sides[1], list(members))
    origin = Provenance(
        model_id=lm.model_id,
        model_revision=lm.model_revision,
        model_width=lm.width,
        n_layers=lm.n_layers,
        capture_position="prompt",
        data_digest=data.digest(),
        n_positive=len(data.positive),
        n_negative=len(data.negative),
        held_out={"correction_error": fitted.error_},
        odesteer_version=__version__,
    )
    return Steerer(fitted, Site(layer, steer_position), origin)


def for_request(
    lm: ObservedModel, steerer: Steerer, prompt: Prompt, *, steer_position: str = "last"
) -> Steerer:
    """The steerer of one request: the correction of its query as a constant vector.

    As published, it is made once and added at every token: at ``steer_position``. Raises
    `InvalidInputError` for a steerer of another method than `QueryTruthFlow`.
    """
    method, site = steerer.method, steerer.site
    if not isinstance(method, QueryTruthFlow) or site is None:
        raise InvalidInputError(
            f"only a QueryTruthFlow at a layer makes a vector for a request, not"
            f" {type(method).__name__} at {site}."
        )
    steerer.check_width(lm.width)
    encoded = lm.encode(prompt)
    found = lm.capturer().capture([encoded], [[len(encoded) - 1]], [site.layer])
    constant = method.at_query(found.states[site.layer][0])
    return replace(steerer, method=constant, site=replace(site, position=steer_position))


def _answer_means(
    lm: ObservedModel, examples: Sequence[Example], layer: int, batch_size: int | None
) -> Tensor:
    """The mean activation of the tokens of each response, `[n, d]`."""
    found = lm.capture(examples, layer, "answer", batch_size=batch_size)
    states = found.states[layer].double()
    totals = torch.zeros(len(examples), states.shape[1], dtype=torch.float64)
    totals.index_add_(0, found.example, states)
    counts = torch.bincount(found.example, minlength=len(examples))
    return (totals / counts[:, None]).float()
