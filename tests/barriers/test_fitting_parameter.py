"""`Fitting`: folds and seed are one parameter, and are still taken, read and set by name."""

import pytest
import sklearn

from barrier_cases import contrast
from odesteer import CAA
from odesteer.barriers import Fitting, LinearBarrier, PolynomialBarrier, Raw
from odesteer.barriers import registry as barriers
from odesteer.errors import InvalidInputError
from odesteer.methods import HPR
from odesteer.methods import registry as methods

CLASSES = [barriers.get(name) for name in barriers] + [methods.get(name) for name in methods]
WITH_FOLDS = [cls for cls in CLASSES if "fitting" in cls.parameter_names()]


def test_no_class_has_folds_of_its_own():
    assert len(WITH_FOLDS) > 20
    assert not [cls for cls in CLASSES if "folds" in cls.parameter_names()]


@pytest.mark.parametrize("cls", [LinearBarrier, PolynomialBarrier, CAA, HPR])
def test_folds_and_seed_are_taken_read_and_set_by_name(cls):
    made = cls(folds=3, seed=8)
    assert repr(made) == repr(cls(fitting=Fitting(3, 8)))
    assert (made.folds, made.seed) == (3, 8)
    assert made.with_params(folds=0).fitting.folds == 0
    assert made.with_params(folds=0).seed == 8
    assert made.with_seed(5).fitting.seed == 5
    assert made.set_params(seed=1).get_params()["fitting__seed"] == 1
    made.folds = 4
    assert (made.fitting.folds, made.seed) == (4, 1)
    assert sklearn.clone(made).folds == 4
    assert cls().folds == 5  # not shared


def test_a_name_and_the_object_go_together():
    positional = LinearBarrier(1.0, Raw(), Fitting(2, 3), seed=7)
    assert (positional.folds, positional.seed) == (2, 7)
    with pytest.raises(TypeError, match="multiple values"):
        LinearBarrier(1.0, C=2.0)
    with pytest.raises(TypeError, match="positional"):
        LinearBarrier(1.0, Raw(), 5, 0)


def test_anything_else_is_refused():
    message = r"fitting of LinearBarrier must be a Fitting\(\.\.\.\), such as Fitting\(\), not 0"
    with pytest.raises(InvalidInputError, match=message):
        LinearBarrier(1.0, Raw(), 0).fit(*contrast())
    with pytest.raises(InvalidInputError, match=message):
        LinearBarrier(fitting=0, seed=2)
    with pytest.raises(InvalidInputError, match=r"folds must be 0 \(none\) or an integer"):
        LinearBarrier(folds=1).fit(*contrast())
