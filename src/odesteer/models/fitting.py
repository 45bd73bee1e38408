"""Fitting methods to captured activations; choosing the best attention heads of several layers."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch

from odesteer.artifact import Provenance, Site, Steerer
from odesteer.barriers import Barrier, FitArguments, FrozenBarrier, check_contrast
from odesteer.barriers.linear_probe import concerns, probe_figures
from odesteer.data import ContrastData
from odesteer.errors import InvalidInputError, WeakSignalWarning
from odesteer.estimator import Parametrised
from odesteer.methods import HeadITI, Method
from odesteer.models.capture.capturer import Activations
from odesteer.models.provenance_check import template_hash
from odesteer.models.tokens.chat_template import ChatTemplate
from odesteer.untrusted import is_integer
from odesteer.version import __version__

S = TypeVar("S")


def prepare_method(method: Method, part: str, n_heads: int | None) -> Method:
    """A copy of ``method`` that knows the model's number of heads where it acts on heads.

    Raises `InvalidInputError` for a method that does not suit the part of the layers.
    """
    if not isinstance(method, Method):
        raise InvalidInputError(
            f"method is {method!r:.80}; give a method, as in odesteer.ODESteer()."
        )
    return cast(Method, _with_n_heads(method, part, n_heads))


def _with_n_heads(value: Any, part: str, n_heads: int | None) -> Any:
    """A copy with ``n_heads`` set in each `HeadITI`, also inside other methods."""
    if isinstance(value, (list, tuple)):
        return type(value)(_with_n_heads(item, part, n_heads) for item in value)
    if not isinstance(value, Method):
        return value
    if not isinstance(value, HeadITI):
        inner = {
            name: _with_n_heads(old, part, n_heads)
            for name, old in value.get_params(deep=False).items()
        }
        return value.with_params(**inner)
    if part != "heads":
        raise InvalidInputError(
            "HeadITI moves attention heads; fit it with part='heads', or use ITI for the residual"
            " stream."
        )
    if value.n_heads not in (None, n_heads):
        raise InvalidInputError(
            f"n_heads={value.n_heads}, but this model has {n_heads} attention heads in each layer;"
            " leave it out."
        )
    return value.with_params(n_heads=n_heads)


def fit_steerers(
    method: Method,
    activations: Activations,
    data: ContrastData,
    sites: Sequence[Site],
    provenance: dict[str, Any],
    template: ChatTemplate,
) -> list[Steerer]:
    """A copy of ``method`` fitted at each site; ``provenance`` are the entries about the model.

    The heads of several layers compete if ``method`` is `HeadITI` itself and none are named:
    layers none of whose heads is chosen have no steerer.
    """
    chats = any(example.is_chat for example in (*data.positive, *data.negative))
    shared = {
        **provenance,
        "chat_template_hash": template_hash(template.tokenizer) if chats else None,
        "chat_template_kwargs": template.arguments if chats else {},
        "data_digest": data.digest(),
        "n_positive": len(data.positive),
        "n_negative": len(data.negative),
        "odesteer_version": __version__,
    }
    sides = _SiteActivations(activations, data, sites)
    methods: dict[Site, Method] = dict.fromkeys(sites, method)
    figures: dict[Site, dict[str, float]] = {}
    if isinstance(method, HeadITI) and method.heads is None and len(sites) > 1:
        chosen = best_heads(method, sides)
        methods = {
            site: method.with_params(heads=list(heads), top_k=None)
            for site, heads in chosen.items()
        }
        figures = {site: _named(heads) for site, heads in chosen.items()}
    steerers = []
    together: dict[Site, Method] = {}
    if len(sites) > 1:
        _check_joint(method)
        if method.fits_jointly:
            every = method.fit_layers([sides[site] for site in sites])
            together = dict(zip(sites, every, strict=True))
    for site, own in methods.items():
        done = together[site] if site in together else own.clone().fit(*sides[site])
        if isinstance(done, HeadITI) and done.accuracies_ is not None:
            figures[site] = _named({head: float(done.accuracies_[head]) for head in done.heads_})
        held_out = _held_out(done, sides[site])
        for concern in concerns(held_out):
            # Of what is within chance the barrier itself has warned.
            if "near noise" not in concern or held_out["auc"] - 2 * held_out["auc_error"] >= 0.5:
                warnings.warn(f"{site}: {concern}.", WeakSignalWarning, stacklevel=3)
        origin = Provenance(**shared, held_out={**held_out, **figures.get(site, {})})
        steerers.append(Steerer(done, site, origin))
    return steerers


def _check_joint(method: Method) -> None:
    """Raise `InvalidInputError` for a barrier that layers share and that is a part of a part."""
    inside = None if method.fits_jointly else _shared_inside(method)
    if inside is not None:
        name = type(inside).__name__
        raise InvalidInputError(
            f"the {name} inside {method!r:.80} would be fitted at each layer by itself; fit"
            f" ODESteer({name}()) at these layers, and wrap what comes out, as in"
            f" {type(method).__name__}.around(steerer.method)."
        )


def _shared_inside(value: Any) -> Barrier | None:
    """The first barrier among a value's parts that is yet to be fitted to several layers."""
    if isinstance(value, Barrier) and value.fits_jointly:
        return value
    parts: Iterable[Any] = ()
    if isinstance(value, (list, tuple)):
        parts = value
    elif isinstance(value, Parametrised) and not isinstance(value, FrozenBarrier):
        parts = value.get_params(deep=False).values()
    found = map(_shared_inside, parts)
    return next((barrier for barrier in found if barrier is not None), None)


def _held_out(method: Method, arguments: FitArguments) -> dict[str, float]:
    """Held-out figures of a fitted method's barrier, and of a linear probe on the same folds."""
    barrier = getattr(method, "barrier", None)
    own = getattr(barrier, "held_out_", None) or {}
    folds, seed = getattr(barrier, "folds", 0) or 5, getattr(barrier, "seed", 0)
    contrast = check_contrast(*arguments)
    return {**own, **probe_figures(contrast, own.get("auc"), folds, seed)}


def _named(heads: dict[int, float]) -> dict[str, float]:
    return {f"head_{head}_accuracy": accuracy for head, accuracy in heads.items()}


class _SiteActivations(Mapping[Site, FitArguments]):
    """The arguments of `fit` at each site, selected at each access."""

    def __init__(self, activations: Activations, data: ContrastData, sites: Sequence[Site]) -> None:
        self._activations, self._data, self._sites = activations, data, sites

    def __getitem__(self, site: Site) -> FitArguments:
        source, data = self._activations.example, self._data
        states = self._activations.states[site.layer]
        wanted = source < len(data.positive)
        labels = (*data.groups_positive, *data.groups_negative)
        groups = (
            [labels[i] for i in source[wanted].tolist()],
            [labels[i] for i in source[~wanted].tolist()],
        )
        # Rows are in the order of the examples, positives first: both sides are views.
        n = int(wanted.sum())
        return states[:n], states[n:], groups

    def __iter__(self) -> Iterator[Site]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


def best_heads(method: HeadITI, sides: Mapping[S, FitArguments]) -> dict[S, dict[int, float]]:
    """The ``top_k`` heads of all layers whose probes are most accurate (Li et al., NeurIPS 2023).

    Returns for each layer that has such heads the accuracy of each on held-out groups, by number;
    equal ones are taken from the first layers and heads on. By default a quarter of all heads.
    Raises `InvalidInputError` for a number that is not there.
    """
    accuracies = [method.head_accuracies(*arguments) for arguments in sides.values()]
    n_heads, flat = len(accuracies[0]), torch.cat(accuracies)
    k = max(1, len(flat) // 4) if method.top_k is None else method.top_k
    if not is_integer(k) or not 1 <= k <= len(flat):
        raise InvalidInputError(
            f"top_k must be an integer from 1 to {len(flat)}, the number of heads in"
            f" {len(accuracies)} layers, not {k!r}."
        )
    best = sorted(int(i) for i in flat.argsort(descending=True, stable=True)[:k])
    chosen: dict[S, dict[int, float]] = {}
    for i in best:
        layer = list(sides)[i // n_heads]
        chosen.setdefault(layer, {})[i % n_heads] = float(flat[i])
    return chosen
