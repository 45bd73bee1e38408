"""Cache of the fitted steerers of one task; activations are captured once for all of them."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from odesteer.artifact import Steerer, SteererSet
from odesteer.errors import ConvergenceError, InvalidInputError, OdesteerError
from odesteer.evaluation.runner.plan import CompletionSpec
from odesteer.methods import HeadITI
from odesteer.models import SteeredModel
from odesteer.tuning.fit_cache import FitCache, layer_part


class SteererCache:
    """Steerers for completions, each fitted once."""

    def __init__(
        self, lm: SteeredModel, batch_size: int, on_activity: Callable[[str], None] | None = None
    ) -> None:
        self._lm = lm
        self._batch_size = batch_size
        self._fits: dict[tuple[str, int], FitCache] = {}
        self._errors: dict[tuple[Any, ...], OdesteerError] = {}
        self._on_activity = on_activity
        self._n_captured = 0

    def prepare(self, specs: Iterable[CompletionSpec]) -> None:
        """Capture the activations for some completions, all layers of the same data at once, and
        fit their steerers. Errors of fits are raised by `steerer`."""
        specs = list(specs)
        self._capture(specs)
        fits = {_fit_key(spec): spec for spec in specs if spec.setting is not None}
        for i, spec in enumerate(fits.values()):
            self._report(f"fitting {spec.contender.name}, {i + 1} of {len(fits)}")
            with suppress(InvalidInputError, ConvergenceError):
                self.steerer(spec)

    def _capture(self, specs: Iterable[CompletionSpec]) -> None:
        needed: dict[tuple[Any, str], tuple[CompletionSpec, list[int]]] = {}
        for spec in specs:
            if spec.setting is not None:
                key = _data_key(spec), layer_part(spec.contender.method(spec.setting))
                needed.setdefault(key, (spec, []))[1].extend(self._layers(spec))
        for (_, part), (spec, layers) in needed.items():
            self._fits_of(spec).capture(layers, part)

    def steerer(self, spec: CompletionSpec) -> Steerer | SteererSet | None:
        """The fitted steerer of a completion; None for baselines. Raises the error of its fit."""
        if spec.setting is None:
            return None
        key = _fit_key(spec)
        if key in self._errors:
            raise self._errors[key]
        name = spec.contender.name, spec.setting.candidate, spec.seed
        method = spec.contender.method(spec.setting).with_seed(spec.seed)
        fits = self._fits_of(spec)
        try:
            if spec.contender.all_layers and isinstance(method, HeadITI):
                return fits.fitted_heads(name, method, self._layers(spec))
            return fits.fitted(name, method, spec.setting.layer)
        except (InvalidInputError, ConvergenceError) as error:
            self._errors[key] = error
            raise

    def _layers(self, spec: CompletionSpec) -> list[int]:
        """The layers that a completion is steered at."""
        if spec.setting is None:
            return []
        every = range(self._lm.n_layers)
        return list(every) if spec.contender.all_layers else [spec.setting.layer]

    def _report(self, activity: str) -> None:
        if self._on_activity is not None:
            self._on_activity(activity)

    def _captured(self, n: int) -> None:
        self._n_captured += n
        self._report(f"capturing activations of {self._n_captured} examples")

    def _fits_of(self, spec: CompletionSpec) -> FitCache:
        key = _data_key(spec)
        if key not in self._fits:
            self._fits[key] = FitCache(
                self._lm,
                spec.fold.fit,
                spec.task.capture_position,  # type: ignore[arg-type]
                seed=spec.seed,
                batch_size=self._batch_size,
                on_captured=self._captured,
            )
        return self._fits[key]


def _fit_key(spec: CompletionSpec) -> tuple[Any, ...]:
    """The same for specs of one fit."""
    layer = None if spec.setting is None else spec.setting.layer
    candidate = None if spec.setting is None else spec.setting.candidate
    return _data_key(spec), spec.contender.name, candidate, layer, spec.seed


def _data_key(spec: CompletionSpec) -> tuple[str, int]:
    """The same for specs whose examples give the same activations."""
    is_random = spec.task.capture_position == "random_answer"
    return spec.fold.digest, spec.seed if is_random else 0
