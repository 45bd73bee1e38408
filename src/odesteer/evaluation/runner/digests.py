"""Digests of what results depend on: the keys under which completions are stored."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import torch

from odesteer.estimator import Parametrised
from odesteer.evaluation.item import Item
from odesteer.evaluation.runner.plan import CompletionSpec
from odesteer.methods import CAA, Angular, MiMiC, RepE
from odesteer.models import SteeredModel
from odesteer.version import __version__

_FORMER_MODULES = {
    "BogackiShampine": "odesteer.flows.solvers.bogacki_shampine",
    "CAA": "odesteer.methods.caa",
    "Euler": "odesteer.flows.solvers.euler",
    "FrozenBarrier": "odesteer.barriers.frozen",
    "Geodesic": "odesteer.flows.solvers.geodesic",
    "HomogeneousBarrier": "odesteer.barriers.homogeneous",
    "ITI": "odesteer.methods.iti",
    "LinearDiscriminantBarrier": "odesteer.barriers.linear",
    "LogisticProbeBarrier": "odesteer.barriers.probe",
    "Midpoint": "odesteer.flows.solvers.midpoint",
    "MinimumBarrier": "odesteer.barriers.minimum",
    "Perceptron": "odesteer.barriers.perceptron",
    "PrincipalDifferenceBarrier": "odesteer.barriers.principal",
    "ProductBarrier": "odesteer.barriers.product",
    "RK4": "odesteer.flows.solvers.rk4",
    "RandomFourierBarrier": "odesteer.barriers.fourier",
    "RandomFourierFunction": "odesteer.barriers.fourier",
    "RepE": "odesteer.methods.repe",
    "Sum": "odesteer.methods.composition",
    "TensorSketch": "odesteer.barriers.sketch",
    "TensorSketchBarrier": "odesteer.barriers.sketch",
    "ThreeEighths": "odesteer.flows.solvers.rk4",
}
"""For classes that were moved: the module in whose name results are stored."""


_ADDED_PARAMETERS = {"ValueBarrier": {"tolerance": 1e-3}}
"""Parameters that classes got later, with the defaults at which digests leave them out."""


def class_path(cls: type[Any]) -> str:
    """The full name of a class in digests, which does not change when the class is moved."""
    own = cls.__module__.startswith("odesteer.")
    module = _FORMER_MODULES.get(cls.__qualname__, cls.__module__) if own else cls.__module__
    return f"{module}.{cls.__qualname__}"


def to_plain(value: Any) -> Any:
    """A value as JSON data; objects as their class and all their parameters."""
    if isinstance(value, Parametrised):
        return {"class": class_path(type(value)), **_parameters(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return {name: to_plain(inner) for name, inner in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(name): to_plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return repr(value)


def _parameters(value: Parametrised) -> dict[str, Any]:
    """All parameters; those that moved into an object side by side with the others, as before."""
    found: dict[str, Any] = {}
    for name, inner in value.get_params(deep=False).items():
        if isinstance(inner, Parametrised) and name in value.moved_parameters.values():
            found |= _parameters(inner)
        else:
            found[name] = to_plain(inner)
    added = {**value.added_parameters, **_ADDED_PARAMETERS.get(type(value).__name__, {})}
    return {name: inner for name, inner in found.items() if added.get(name, ...) != inner}


def digest(value: Any, length: int = 16) -> str:
    """Hexadecimal SHA-256 of a value as JSON, shortened."""
    text = json.dumps(to_plain(value), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def item_digest(item: Item) -> str:
    """Of an item's key, prompt and reference."""
    prompt = item.prompt
    messages = prompt if isinstance(prompt, str) else [[m.role, m.content] for m in prompt]
    return digest([item.key, messages, to_plain(item.reference)], 12)


def model_digest(lm: SteeredModel) -> str:
    """Of a model's configuration, its chat template's arguments and the first values of each of
    its tensors.

    Reading all of a large model would take longer than many benchmarks; training changes every
    tensor.
    """
    found = hashlib.sha256()
    config: Any = getattr(lm.model, "config", None)
    described = dict(config.to_dict()) if hasattr(config, "to_dict") else {}
    for name in ("_name_or_path", "transformers_version"):
        described.pop(name, None)
    found.update(json.dumps(described, sort_keys=True, default=repr).encode())
    if lm.chat_template_kwargs:
        found.update(json.dumps(lm.chat_template_kwargs, sort_keys=True).encode())
    for name, tensor in lm.model.state_dict().items():
        head = tensor.detach().flatten()[:64].to("cpu", torch.float32).numpy().tobytes()
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + head)
    return found.hexdigest()[:16]


def completion_keys(model: str, specs: Sequence[CompletionSpec]) -> list[str]:
    """The keys of completions: digests of everything that they depend on.

    ``model`` is the model's digest.
    """
    digests: dict[tuple[Any, ...], str] = {}
    keys = []
    for spec in specs:
        group = (spec.contender.name, spec.setting, spec.fold.name, spec.seed)
        if group not in digests:
            digests[group] = digest(_dependencies(model, spec))
        seed = spec.seed if has_luck(spec) else "-"
        keys.append(f"{digests[group]}/{item_digest(spec.item)}/{seed}/{spec.sample}")
    return keys


_FOLDS_ONLY: tuple[type[Any], ...] = (Angular, CAA, MiMiC, RepE)
"""Methods whose seed draws nothing but the folds of the quantiles that levels count in."""


def has_luck(spec: CompletionSpec) -> bool:
    """Whether a completion depends on the seed: results of others are measured once for all seeds.

    Nothing is drawn where choices are scored or the likeliest tokens taken, with data captured at
    fixed tokens and a method that draws nothing; what the seed changes in the data counts apart.
    """
    if spec.task.kind != "choice" and spec.task.decoding.temperature != 0:
        return True
    if spec.contender.kind == "prompt":
        return True  # draws examples
    return spec.setting is not None and fit_has_luck(spec)


def fit_has_luck(spec: CompletionSpec) -> bool:
    """Whether a fit depends on the seed."""
    if spec.setting is None:
        return False
    if spec.task.capture_position == "random_answer":
        return True
    method = spec.contender.method(spec.setting)
    if type(method) in _FOLDS_ONLY and spec.setting.amount.quantity != "level":
        return False
    return digest(method.with_seed(0)) != digest(method.with_seed(1))


def _dependencies(model: str, spec: CompletionSpec) -> dict[str, Any]:
    """What a completion depends on apart from its item. The names are part of stored digests."""
    task, data = spec.task, spec.fold.digest
    found: dict[str, Any] = {
        "odesteer": __version__,
        "model": model,
        "task": [task.name, task.version, task.kind],
        "decoding": [task.decoding, task.max_new_tokens, task.stop],
        "kind": spec.contender.kind,
    }
    if spec.contender.kind == "prompt":
        found["asking"] = [task.instruction, task.shots, data]
    elif spec.setting is not None:
        found["fit"] = [data, spec.seed if fit_has_luck(spec) else None, task.capture_position]
        found["method"] = spec.contender.method(spec.setting)
        if spec.contender.all_layers:
            found["layers"] = "all"
        found["cell"] = [spec.setting.layer, spec.setting.amount.quantity, spec.setting.value]
    return found
