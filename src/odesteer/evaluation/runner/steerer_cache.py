"""Cache of the fitted steerers of one task; activations are captured once for all of them."""

from collections.abc import Iterable
from typing import Any

from odesteer.artifact import Steerer
from odesteer.evaluation.runner.plan import CompletionSpec
from odesteer.models import SteeredModel
from odesteer.tuning.fit_cache import FitCache, layer_part


class SteererCache:
    """Steerers for completions, each fitted once."""

    def __init__(self, lm: SteeredModel, batch_size: int) -> None:
        self._lm = lm
        self._batch_size = batch_size
        self._fits: dict[tuple[str, int], FitCache] = {}

    def prepare(self, specs: Iterable[CompletionSpec]) -> None:
        """Capture the activations for some completions: all layers of the same data at once."""
        needed: dict[tuple[Any, str], tuple[CompletionSpec, list[int]]] = {}
        for spec in specs:
            if spec.setting is not None:
                key = _data_key(spec), layer_part(spec.contender.method(spec.setting))
                needed.setdefault(key, (spec, []))[1].append(spec.setting.layer)
        for (_, part), (spec, layers) in needed.items():
            self._fits_of(spec).capture(layers, part)

    def steerer(self, spec: CompletionSpec) -> Steerer | None:
        """The fitted steerer of a completion; None for baselines."""
        if spec.setting is None:
            return None
        name = spec.contender.name, spec.setting.candidate, spec.seed
        method = spec.contender.method(spec.setting).with_seed(spec.seed)
        return self._fits_of(spec).fitted(name, method, spec.setting.layer)

    def _fits_of(self, spec: CompletionSpec) -> FitCache:
        key = _data_key(spec)
        if key not in self._fits:
            self._fits[key] = FitCache(
                self._lm,
                spec.fold.fit,
                spec.task.capture_position,  # type: ignore[arg-type]
                seed=spec.seed,
                batch_size=self._batch_size,
            )
        return self._fits[key]


def _data_key(spec: CompletionSpec) -> tuple[str, int]:
    """The same for specs whose examples give the same activations."""
    is_random = spec.task.capture_position == "random_answer"
    return spec.fold.digest, spec.seed if is_random else 0
