"""Transfer of a steerer to another model or layer, by a map between their activations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from odesteer.artifact import Provenance, Site, Steerer
from odesteer.barriers import Barrier, ProjectedBarrier
from odesteer.errors import InvalidInputError
from odesteer.flows import Euclidean
from odesteer.methods import CAA, Amount, Method, ODESteer
from odesteer.models.observed_model import ObservedModel
from odesteer.models.tokens.encoding import Encoded
from odesteer.version import __version__

MapKind = Literal["ridge", "orthogonal"]
# Of the variance of the target's activations along each principal direction.
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Transferred:
    """A steerer on another model, and how well the map between the two explains it.

    Attributes:
        steerer: fitted on one model, for a layer of the other.
        explained_barrier: the share of the variance of h over tokens of unseen texts that h of the
            mapped activations explains (R²).
        explained_activations: the same of the activations themselves.
        n_texts, n_tokens: what the map was fitted to and measured on.
    """

    steerer: Steerer
    explained_barrier: float
    explained_activations: float
    n_texts: int
    n_tokens: int


@dataclass(frozen=True)
class ActivationMap:
    """x ≈ Ma + c, from activations a of one model to x of another.

    Attributes:
        matrix: M `[d_x, d_a]` float64.
        offset: c `[d_x]` float64.
    """

    matrix: Tensor
    offset: Tensor

    @classmethod
    def fitted(cls, a: Tensor, x: Tensor, kind: MapKind, ridge: float) -> "ActivationMap":
        """Fitted to rows `[n, d_a]` and `[n, d_x]` that belong together.

        By ridge regression on coordinates in units of their spreads, with ``ridge`` in units of
        their mean variance; or the best orthogonal matrix times a number (Procrustes).
        """
        mean_a, mean_x = a.mean(dim=0), x.mean(dim=0)
        a, x = a - mean_a, x - mean_x
        if kind == "orthogonal":
            left, lengths, right = torch.linalg.svd(x.T @ a, full_matrices=False)
            matrix = (lengths.sum() / a.square().sum()) * (left @ right)
        else:
            spread = a.square().mean(dim=0).sqrt().clamp_min(1e-12)
            a = a / spread
            moment = a.T @ a / len(a) + ridge * torch.eye(a.shape[1], dtype=a.dtype)
            matrix = torch.linalg.solve(moment, a.T @ x / len(a)).T / spread
        return cls(matrix, mean_x - matrix @ mean_a)

    def __call__(self, a: Tensor) -> Tensor:
        """Ma + c, `[n, d_a] -> [n, d_x]`."""
        return a @ self.matrix.T + self.offset


def transfer(
    steerer: Steerer,
    source: ObservedModel,
    target: ObservedModel,
    texts: Sequence[str],
    *,
    layer: int | None = None,
    kind: MapKind = "ridge",
    tokens_per_text: int = 8,
    least_explained: float = 0.25,
    batch_size: int | None = None,
) -> Transferred:
    """Carry a steerer of ``source`` to a layer of ``target``, which may be the same model.

    Both models read the ``texts``; their activations at tokens that end at the same character are
    pairs, and a map from the target's to the source's is fitted to three fifths of the texts, its
    ridge chosen on one fifth and its fit measured on the last. The barrier becomes h∘map with the
    levels that it has, and its gradient is pulled back, by the same solver to the same amount. A
    method that adds the same vector to all activations (CAA) becomes one that adds the vector that
    the map in the other direction gives. Others are refused.

    Args:
        steerer: fitted on ``source``, at the residual stream, without a gate.
        source: the model that it was fitted on.
        target: the model that it shall steer.
        texts: ordinary texts, best like those that will be steered; 50 at least.
        layer: of the target; without one that of the same relative depth.
        kind: ``ridge``, or ``orthogonal`` for a rotation and a scale, which needs fewer texts.
        tokens_per_text: pairs taken of each text, evenly spread.
        least_explained: the least share of the variance of h on unseen texts.
        batch_size: texts in a pass.

    Raises `InvalidInputError` for steerers that cannot be carried, for texts without enough common
    tokens, and with the figure where the map explains too little of the barrier.
    """
    site, barrier = _checked(steerer, source, kind)
    n_source, n_target = source.n_layers, target.n_layers
    if layer is None:
        layer = round(site.layer / max(n_source - 1, 1) * (n_target - 1))
    if not 0 <= layer < n_target:
        raise InvalidInputError(f"{target.model_id} has layers 0 to {n_target - 1}, not {layer}.")
    if len(texts) < 50:
        raise InvalidInputError(f"{len(texts)} texts are too few for a map; give 50 at least.")
    pairs = [_common_tokens(source, target, text, tokens_per_text) for text in texts]
    pairs = [pair for pair in pairs if pair[1]]
    if len(pairs) < 50:
        raise InvalidInputError(
            f"only {len(pairs)} of {len(texts)} texts have tokens that end at the same character in"
            " both models; give more or longer texts."
        )
    x, example = _captured(source, [(p[0], p[1]) for p in pairs], site.layer, batch_size)
    a, _ = _captured(target, [(p[2], p[3]) for p in pairs], layer, batch_size)
    part = example % 5
    fit, choose, judge = part < 3, part == 3, part == 4
    ridges = _RIDGES if kind == "ridge" else (0.0,)
    maps = [ActivationMap.fitted(a[fit], x[fit], kind, ridge) for ridge in ridges]
    truth = barrier.value(x[choose])
    best = max(maps, key=lambda one: _explained(truth, barrier.value(one(a[choose]))))
    of_barrier = _explained(barrier.value(x[judge]), barrier.value(best(a[judge])))
    of_activations = _explained(x[judge], best(a[judge]))
    if not of_barrier >= least_explained:
        raise InvalidInputError(
            f"the map from layer {layer} of {target.model_id} to layer {site.layer} of"
            f" {source.model_id} explains {of_barrier:.3f} of the variance of the barrier on unseen"
            f" texts, and {least_explained:g} is asked for ({of_activations:.3f} of the"
            " activations); use another layer, or more texts like those that will be steered."
        )
    scale = float(a.std(dim=0).norm() / x.std(dim=0).norm())
    own = steerer.method
    method: Method
    if isinstance(own, ODESteer):
        method = _pulled_back(own, barrier, best, float(a.norm(dim=1).mean()), scale)
    else:
        method = _pushed(own, ActivationMap.fitted(x[fit], a[fit], kind, 1e-2), scale)
    origin = Provenance(
        model_id=target.model_id,
        model_revision=target.model_revision,
        model_width=target.width,
        n_layers=n_target,
        capture_position=steerer.provenance.capture_position,
        data_digest=steerer.provenance.data_digest,
        n_positive=steerer.provenance.n_positive,
        n_negative=steerer.provenance.n_negative,
        seed=steerer.provenance.seed,
        held_out={
            "transfer_explained_barrier": of_barrier,
            "transfer_explained_activations": of_activations,
        },
        odesteer_version=__version__,
    )
    moved = Steerer(method, replace(site, layer=layer), origin)
    return Transferred(moved, of_barrier, of_activations, len(pairs), len(a))


def _checked(steerer: Steerer, source: ObservedModel, kind: MapKind) -> tuple[Site, Barrier]:
    if kind not in get_args(MapKind):
        raise InvalidInputError(f"a map is ridge or orthogonal, not {kind!r}.")
    site = steerer.site
    if site is None or site.part != "residual":
        raise InvalidInputError(
            "only steerers of the residual stream at a layer are carried to other models, not"
            f" {'one without a site' if site is None else site}."
        )
    if steerer.gate is not None:
        raise InvalidInputError(
            "the steerer has a gate, which belongs to the model it was fitted on; carry it without"
            " one, and gate the result by a condition that is fitted on the other model."
        )
    steerer.check_width(source.width)
    barrier = getattr(steerer.method, "barrier", None)
    method = steerer.method
    is_flow = isinstance(method, ODESteer) and isinstance(method.metric, Euclidean)
    if barrier is None or not (is_flow or method.constant_displacement() is not None):
        raise InvalidInputError(
            f"{method!r:.80} is neither a flow up a barrier, in the Euclidean metric, nor the same"
            " displacement everywhere: what it does has no meaning in another space. Carry an"
            " ODESteer or a CAA."
        )
    return site, barrier


def _common_tokens(
    source: ObservedModel, target: ObservedModel, text: str, most: int
) -> tuple[Encoded, list[int], Encoded, list[int]]:
    """The text for both models, and the tokens of each that end at the same characters."""
    ends = []
    encoded = []
    for lm in (source, target):
        one = lm.encode(text)
        spans = lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        front = len(one) - len(spans["input_ids"])  # special tokens that stand in front
        if front < 0 or list(one.ids[front:]) != list(spans["input_ids"]):
            raise InvalidInputError(
                f"the tokenizer of {lm.model_id} reads a text differently with its special tokens,"
                " so that tokens cannot be aligned."
            )
        encoded.append(one)
        # The last token that ends at a character: bytes of one character share its end.
        ends.append({end: front + i for i, (_, end) in enumerate(spans["offset_mapping"])})
    common = sorted(ends[0].keys() & ends[1].keys() - {0})
    # The first tokens of a text are unlike all others (attention sinks).
    common = [end for end in common if min(ends[0][end], ends[1][end]) > 1]
    if len(common) > most:
        last = len(common) - 1
        common = [common[round(last * (i + 1) / most)] for i in range(most)]
    return (
        encoded[0],
        [ends[0][end] for end in common],
        encoded[1],
        [ends[1][end] for end in common],
    )


def _captured(
    lm: ObservedModel,
    read: Sequence[tuple[Encoded, list[int]]],
    layer: int,
    batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Activations `[n, d]` float64 and the number `[n]` of the text of each."""
    texts, tokens = [text for text, _ in read], [own for _, own in read]
    found = lm.capturer().capture(texts, tokens, [layer], batch_size=batch_size)
    return found.states[layer].double(), found.example


def _explained(truth: Tensor, estimate: Tensor) -> float:
    """The share of the variance of ``truth`` that an estimate explains (R²)."""
    error = (truth - estimate).square().sum()
    return 1 - float(error / (truth - truth.mean(dim=0)).square().sum())


def _pulled_back(
    own: ODESteer, barrier: Barrier, to_source: ActivationMap, mean_norm: float, scale: float
) -> ODESteer:
    """The flow up h∘map, with the same solver, amount and largest strength."""
    method = own.with_params(barrier=ProjectedBarrier())
    matrix, offset = to_source.matrix.float(), to_source.offset.float()
    method.barrier_ = ProjectedBarrier.of(barrier, matrix, offset)
    method.metric_ = Euclidean()
    method.width_, method.mean_norm_ = matrix.shape[1], mean_norm
    method.strength_unit_ = scale * own.strength_unit
    return method


def _pushed(own: Method, to_target: ActivationMap, scale: float) -> CAA:
    """A given direction: the map of the displacement of the default amount, at T = 1."""
    constant = own.constant_displacement()
    assert constant is not None  # others are refused
    vector = (to_target.matrix @ constant.double()).float()
    unit = scale * own.strength_unit
    return CAA.from_direction(vector, strength_unit=unit, amount=Amount("T", 1.0))
