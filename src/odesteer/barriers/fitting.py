"""Fitting: cross-validation folds and the seed of a fit, one parameter of barriers and methods."""

from typing import ClassVar

from odesteer.estimator import Parametrised


class Fitting(Parametrised):
    """How a fit is checked on held-out examples, and the seed of what it draws.

    Its parameters are also taken one by one, as in ``LinearBarrier(folds=0)``.

    Parameters:
        folds: of the cross-validation behind the held-out figures and the quantiles that levels
            count in; 0 for none, then the quantiles are those of the training examples.
        seed: of the folds, and of random features, landmarks, first weights and batches.
    """

    family: ClassVar[str] = "fitting"
    formerly_separate: ClassVar[tuple[str, ...]] = ("folds", "seed")

    def __init__(self, folds: int = 5, seed: int = 0) -> None:
        self.folds = folds
        self.seed = seed
