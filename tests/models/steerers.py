"""Steerers for tiny models, and what tests look at on them."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import tiny_models
from odesteer.artifact import Site, Steerer
from odesteer.barriers import Contrast
from odesteer.data import ContrastData, Example
from odesteer.flows import Solution
from odesteer.methods import CAA, Amount, Method, ODESteer
from odesteer.models import SteeredModel
from odesteer.models.architecture.layers import argument_names
from odesteer.models.tokens.batches import PaddingSide, pad_batch

D = tiny_models.WIDTH
TEXTS = ["the dog and the cat", "x", "who is it?"]
IDS = torch.tensor([[1, 20, 30, 40, 50], [1, 60, 70, 80, 90], [1, 25, 35, 45, 55]])


class Shift(Method):
    """a + strength * mean norm * a fixed direction; fails or looks on when it is told to."""

    quantities: ClassVar[tuple[str, ...]] = ("strength",)
    reference: ClassVar[str] = "none"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @property
    def default_amount(self) -> Amount:
        return Amount("strength", 1.0)

    def _fit(self, contrast: Contrast) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.direction_ = torch.randn(self.width_, generator=generator)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        size = torch.as_tensor(amount.value, device=a.device).to(a) * self.mean_norm_
        moved = size.expand(a.shape[:-1])[..., None] * self.direction_.to(a)
        return Solution(a + moved, moved.norm(dim=-1))


def activations(seed: int = 0, n: int = 24, width: int = D) -> tuple[Tensor, Tensor]:
    """Two clouds that can be told apart, of about the size of the tiny models' activations."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.randn(width, generator=generator)
    positive, negative = (torch.randn(n, width, generator=generator) for _ in range(2))
    return positive + offset, negative - offset


def steerer(
    method: Method | None = None,
    layer: int = 2,
    position: str = "last",
    *,
    seed: int = 0,
    part: str = "residual",
    width: int = D,
) -> Steerer:
    """A fitted steerer (a shift if nothing is said) that moves activations visibly."""
    method = Shift(seed) if method is None else method
    return Steerer(method.clone().fit(*activations(seed, width=width)), Site(layer, position, part))


def ode(layer: int = 2, position: str = "last", **parameters: Any) -> Steerer:
    return steerer(ODESteer(**parameters), layer, position)


def caa(layer: int = 2, position: str = "last", *, seed: int = 0) -> Steerer:
    return steerer(CAA(), layer, position, seed=seed)


def hooks_of(model: nn.Module) -> list[tuple[Any, ...]]:
    """Everything that may be hooked onto the modules of a model, as it is now."""
    return [
        (
            name,
            tuple(module._forward_hooks.items()),
            tuple(module._forward_pre_hooks.items()),
            tuple(module._forward_hooks_with_kwargs.items()),
            tuple(module._forward_pre_hooks_with_kwargs.items()),
            tuple(module._forward_hooks_always_called.items()),
            tuple(module._backward_hooks.items()),
            tuple(sorted(vars(module))),
        )
        for name, module in model.named_modules()
    ]


class Watch:
    """Copies of what decoder layers put out, seen by a hook that comes after all others."""

    def __init__(self, *layers: nn.Module) -> None:
        self.states: list[Tensor] = []
        self._handles = [layer.register_forward_hook(self._look) for layer in layers]

    def _look(self, module: nn.Module, args: Any, output: Any) -> None:
        self.states.append((output if isinstance(output, Tensor) else output[0]).clone())

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()


class WatchInputs(Watch):
    """The same for what modules are given."""

    def __init__(self, *modules: nn.Module) -> None:
        self.states = []
        self._handles = [module.register_forward_pre_hook(self._see) for module in modules]

    def _see(self, module: nn.Module, args: Any) -> None:
        self.states.append(args[0].clone())


def logits(lm: SteeredModel, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        out: Tensor = lm.model(ids).logits
    return out


def states(lm: SteeredModel, layer: int) -> Tensor:
    """The output of a layer in a pass over `IDS`."""
    with Watch(lm.layers.at(layer)) as watch:
        logits(lm)
    return watch.states[0]


def batch(lm: SteeredModel, side: PaddingSide = "left") -> dict[str, Tensor]:
    ids = [lm.encode(text).ids for text in TEXTS]
    inputs = pad_batch(ids, 0, side, torch.device("cpu"))
    if "position_ids" not in argument_names(lm.model):
        inputs.pop("position_ids")
    return inputs


class NoWaiting(TorchDispatchMode):
    """Fails on operations for which the host waits for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal"), name
        return func(*args, **(kwargs or {}))


GOOD = ["a kind word and the sun", "the best of all", "lovely", "and the good dog"]
BAD = ["a bitter word", "the worst of it", "awful and the rest", "the bad cat"]


def pairs() -> ContrastData:
    questions = [f"question {i}?" for i in range(4)]
    return ContrastData(
        tuple(Example(q, f" {text}") for q, text in zip(questions, GOOD, strict=True)),
        tuple(Example(q, f" {text}") for q, text in zip(questions, BAD, strict=True)),
        tuple(questions),
        tuple(questions),
    )
