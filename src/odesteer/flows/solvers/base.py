"""Base classes of solvers: equal steps, and steps whose size an error estimate controls."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from odesteer.errors import InvalidInputError
from odesteer.estimator import Parametrised
from odesteer.flows.field import VectorField
from odesteer.untrusted import is_integer


class Solver(Parametrised, ABC):
    """A one-step method for da/dt = v(a).

    ``order`` p: the error after a fixed time is O(Δt^p). ``stages``: evaluations of the field in
    one step. ``spherical``: whether steps keep ‖a‖, and so depend on it.
    """

    family: ClassVar[str] = "solver"
    order: ClassVar[int]
    stages: ClassVar[int]
    spherical: ClassVar[bool] = False

    def check(self) -> None:
        """Raise `InvalidInputError` for parameters that make no solver."""


def check_count(name: str, value: int) -> None:
    """Raise `InvalidInputError` unless ``value`` is a positive integer."""
    if not is_integer(value, 1):
        raise InvalidInputError(f"{name} must be a positive integer, not {value!r}.")


class FixedStep(Solver):
    """A solver that takes ``n_steps`` steps, equal ones of size T/n_steps for a fixed time T.

    Parameters:
        n_steps: number of steps, at least 1.
        steps_over: what the steps of a flow to a value τ divide. ``"distance"``: the way that is
            left, which each step estimates as (τ - h)/(dh/dt), over the number of steps left; so
            about ``n_steps`` lead to the value. The last one is twice as long, and where it falls
            short up to ``n_steps`` more divide what is left of the cap; none is longer than
            T/n_steps. ``"cap"``: T, so that a value near by takes few of the steps, all of size
            T/n_steps; so does a single step. Files written before this parameter existed mean
            ``"cap"``.
    """

    added_parameters: ClassVar[Mapping[str, Any]] = {"steps_over": "cap"}
    step_parameters = ("n_steps",)
    steps_over: str = "distance"  # for subclasses with a constructor of their own

    def __init__(self, n_steps: int = 10, steps_over: str = "distance") -> None:
        self.n_steps = n_steps
        self.steps_over = steps_over

    @property
    def divides_distance(self) -> bool:
        """Whether the steps of a flow to a value divide the distance rather than the cap."""
        return self.steps_over == "distance" and self.n_steps > 1

    @abstractmethod
    def step(self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor) -> Tensor:
        """The state after one step of size ``dt`` `[..., 1]` from ``a`` `[..., d]`.

        ``slope`` is v(a), which the caller has computed.
        """

    def check(self) -> None:
        check_count("n_steps", self.n_steps)
        if self.steps_over not in ("distance", "cap"):
            raise InvalidInputError(
                f"steps_over must be 'distance' or 'cap', not {self.steps_over!r}."
            )


class EmbeddedPair(Solver):
    """A solver whose step comes with an estimate of its error, which sets the size of the next.

    Each activation has its own step size. A step is accepted when the estimate, measured in
    activation units against atol + rtol·‖a‖, is at most 1; sizes follow the standard controller
    (Hairer, Nørsett and Wanner, section II.4).

    Parameters:
        rtol: tolerated error of a step, relative to ‖a‖.
        atol: the same in activation units.
        max_steps: attempts after which the solver gives up: with an error, or, in a flow that
            stops at a value, short of the value.
    """

    step_parameters = ("max_steps",)

    def __init__(self, rtol: float = 1e-4, atol: float = 1e-6, max_steps: int = 1000) -> None:
        self.rtol = rtol
        self.atol = atol
        self.max_steps = max_steps

    @abstractmethod
    def step_with_error(
        self, field: VectorField, a: Tensor, dt: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The state after one step, and the estimate of its error, both `[..., d]`."""

    def check(self) -> None:
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise InvalidInputError(
                f"rtol and atol must be at least 0 and not both 0, not {self.rtol}, {self.atol}."
            )
        check_count("max_steps", self.max_steps)
