"""The fits of one task: what examples look like inside the model is looked at once."""

from collections.abc import Iterable
from typing import Any

from odesteer.artifact import Steerer
from odesteer.evaluation.runner.plan import Row
from odesteer.models import SteeredModel
from odesteer.tuning.fit_cache import FitCache, layer_part


class Fitter:
    """Steerers for rows, each fitted once."""

    def __init__(self, lm: SteeredModel, batch_size: int) -> None:
        self._lm = lm
        self._batch_size = batch_size
        self._fits: dict[tuple[str, int], FitCache] = {}

    def prepare(self, rows: Iterable[Row]) -> None:
        """Capture what the rows need: all layers of the same data in one pass."""
        wanted: dict[tuple[Any, str], tuple[Row, list[int]]] = {}
        for row in rows:
            if row.cell is not None:
                at = _data(row), layer_part(row.contender.method(row.cell))
                wanted.setdefault(at, (row, []))[1].append(row.cell.layer)
        for (_, part), (row, layers) in wanted.items():
            self._of(row).capture(layers, part)

    def steerer(self, row: Row) -> Steerer | None:
        """The fitted steerer of a row; None for baselines."""
        if row.cell is None:
            return None
        name = row.contender.name, row.cell.candidate, row.seed
        method = row.contender.method(row.cell).with_seed(row.seed)
        return self._of(row).fitted(name, method, row.cell.layer)

    def _of(self, row: Row) -> FitCache:
        at = _data(row)
        if at not in self._fits:
            self._fits[at] = FitCache(
                self._lm,
                row.fold.fit,
                row.task.capture_position,  # type: ignore[arg-type]
                seed=row.seed,
                batch_size=self._batch_size,
            )
        return self._fits[at]


def _data(row: Row) -> tuple[str, int]:
    """The same for rows whose examples look the same inside the model."""
    drawn = row.task.capture_position == "random_answer"
    return row.fold.digest, row.seed if drawn else 0
