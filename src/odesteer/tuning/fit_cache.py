"""Cache of fits: all candidates at all layers, from activations captured once."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.data import ContrastData
from odesteer.methods import HeadITI, Method
from odesteer.models import Activations, SteeredModel
from odesteer.models.fitting import fit_steerers, prepare_method
from odesteer.models.tokens.capture_positions import CapturePosition, check_position


def layer_part(method: Method) -> str:
    """The part of a decoder layer that a method acts on."""
    return "heads" if isinstance(method, HeadITI) else "residual"


@dataclass
class FitCache:
    """Fits methods on one set of data, each once; its fields are those of `SteeredModel.fit`.

    A fit is equal to that of `SteeredModel.fit` to the bit.
    """

    lm: SteeredModel
    data: ContrastData
    position: CapturePosition = "last"
    steer_position: str = "last"
    seed: int = 0
    batch_size: int = 16
    _activations: dict[str, Activations] = field(default_factory=dict)
    _fitted: dict[tuple[Hashable, int], Steerer] = field(default_factory=dict)
    _heads: dict[tuple[Hashable, tuple[int, ...]], SteererSet] = field(default_factory=dict)
    on_captured: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        check_position(self.position)

    def missing(self, layers: Sequence[int], part: str = "residual") -> list[int]:
        """The layers whose activations have not been captured."""
        known = self._activations[part].states if part in self._activations else {}
        return [layer for layer in dict.fromkeys(layers) if layer not in known]

    def capture(self, layers: Sequence[int], part: str = "residual") -> None:
        """Capture the missing ones of these layers, in one pass over the data."""
        missing = self.missing(layers, part)
        if not missing:
            return
        known = self._activations[part].states if part in self._activations else {}
        captured = self.lm.capture(
            (*self.data.positive, *self.data.negative),
            missing,
            self.position,
            part=part,
            seed=self.seed,
            batch_size=self.batch_size,
            progress=False if self.on_captured is None else self.on_captured,
        )
        self._activations[part] = Activations({**known, **captured.states}, captured.example)

    def fitted(self, name: Hashable, method: Method, layer: int) -> Steerer:
        """A copy of ``method`` fitted at a layer; the cache key is ``name`` and the layer."""
        key = name, layer
        if key not in self._fitted and method.needs_model:
            self._fitted[key] = self.lm.fit(
                method.with_seed(self.seed), self.data, layer, steer_position=self.steer_position
            )
        if key not in self._fitted:
            part = layer_part(method)
            self.capture([layer], part)
            n_heads = self.lm.n_heads if part == "heads" else None
            (self._fitted[key],) = fit_steerers(
                prepare_method(method, part, n_heads),
                self._activations[part],
                self.data,
                [Site(layer, self.steer_position, part)],
                self._provenance(n_heads),
                self.lm.template,
            )
        return self._fitted[key]

    def fitted_heads(self, name: Hashable, method: HeadITI, layers: Sequence[int]) -> SteererSet:
        """`HeadITI` with the best heads of several layers, which compete as in the original.

        By default a twentieth of all heads is shifted, as 48 of 1,024 are in the paper. Fitted
        once for each ``name``.
        """
        key = name, tuple(layers)
        if key not in self._heads:
            self.capture(layers, "heads")
            n_heads = self.lm.n_heads
            if method.heads is None and method.top_k is None:
                method = method.with_params(top_k=max(1, n_heads * len(layers) // 20))
            self._heads[key] = SteererSet(
                fit_steerers(
                    prepare_method(method, "heads", n_heads),
                    self._activations["heads"],
                    self.data,
                    [Site(layer, self.steer_position, "heads") for layer in layers],
                    self._provenance(n_heads),
                    self.lm.template,
                )
            )
        return self._heads[key]

    def _provenance(self, n_heads: int | None) -> dict[str, object]:
        return {
            "model_id": self.lm.model_id,
            "model_revision": self.lm.model_revision,
            "model_width": self.lm.width,
            "n_layers": self.lm.n_layers,
            "n_heads": n_heads,
            "capture_position": self.position,
            "seed": self.seed,
        }
