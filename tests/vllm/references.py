"""Reference: a steered Hugging Face model, whose tokens vLLM must reproduce."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from odesteer.artifact import Site, Steerer, load, parse_requests
from odesteer.barriers import LinearBarrier, PolynomialBarrier, TensorSketchBarrier
from odesteer.flows import RK4, Euler
from odesteer.methods import CAA, LinearAcT, Method, ODESteer
from odesteer.models import SteeredModel

LENGTH = 16
"""Number of tokens that are generated for each request."""

METHODS: dict[str, Method] = {
    "kernel": ODESteer(PolynomialBarrier(folds=0)),
    "linear": ODESteer(LinearBarrier(folds=0), RK4(4)),
    "sketch": ODESteer(TensorSketchBarrier(degree=3, n_components=256, folds=0), Euler(10)),
    "caa": CAA(),
    "map": LinearAcT(),
}


PHASES = {"inside": "thinking:t..e", "outside": "answer:t..e", "behind": "after:s"}
"""Positions that depend on the text, by the prefix of their steerers. Letters are markers that come
often."""


@dataclass(frozen=True)
class Request:
    """A prompt, and what it is steered by (None: nothing)."""

    prompt: tuple[int, ...]
    steering: str | None = None


@dataclass(frozen=True)
class Answer:
    """The likeliest tokens one after another, and the logarithms of their probabilities."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    def agrees(self, other: "Answer", tolerance: float = 1e-4) -> bool:
        return self.tokens == other.tokens and all(
            abs(a - b) <= tolerance for a, b in zip(self.logprobs, other.logprobs, strict=True)
        )


def prompts(n: int, longest: int, *, vocabulary: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Token ids of prompts of many lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (n,), generator=generator).tolist()
    ids = torch.randint(5, vocabulary, (n, longest), generator=generator).tolist()
    return [tuple(row[:length]) for row, length in zip(ids, lengths, strict=True)]


def fit_steerers(
    lm: SteeredModel,
    layer: int,
    folder: Path,
    prefix: str,
    position: str = "last",
    names: Sequence[str] = tuple(METHODS),
) -> None:
    """Fit some methods to activations of the model, and save them under their names."""
    clouds = []
    for seed, vocabulary in ((1, 200), (2, 500)):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(5, vocabulary, (80, 6), generator=generator)
        with torch.no_grad():
            states = lm.model(ids, output_hidden_states=True).hidden_states[layer + 1]
        clouds.append(states[:, -1])
    for name in names:
        fitted = METHODS[name].clone().fit(*clouds)
        Steerer(fitted, Site(layer, position)).save(folder / f"{prefix}-{name}.safetensors")


class Reference:
    """A steered Hugging Face model that answers requests, each by itself."""

    def __init__(self, lm: SteeredModel, steerers: Path) -> None:
        self._lm = lm
        self._steerers = steerers
        self._answers: dict[Request, Answer] = {}

    def answer(self, request: Request) -> Answer:
        if request not in self._answers:
            self._answers[request] = self._answer(request)
        return self._answers[request]

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        return [self.answer(request) for request in requests]

    def _answer(self, request: Request) -> Answer:
        ids = torch.tensor([request.prompt])
        with ExitStack() as stack:
            for part in parse_requests(request.steering) if request.steering else ():
                steerer = load(self._steerers / f"{part.name}.safetensors")
                amount = part.amount_of(steerer)
                quantity = {} if amount is None else {amount.quantity: amount.value}
                stack.enter_context(self._lm.steering(steerer, **quantity))
            out = self._lm.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=LENGTH,
                min_new_tokens=LENGTH,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                eos_token_id=None,
                pad_token_id=0,
            )
        tokens = out.sequences[0, len(request.prompt) :].tolist()
        rows = (logits[0].double().log_softmax(-1) for logits in out.logits)
        return Answer(tuple(tokens), tuple(float(r[t]) for r, t in zip(rows, tokens, strict=True)))


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        name: prefix of the names of its steerers.
        path: where vLLM finds it.
        reference: the model on Hugging Face.
        vocabulary: number of its tokens that prompts are made of.
    """

    name: str
    path: Path
    reference: Reference
    vocabulary: int = 500
