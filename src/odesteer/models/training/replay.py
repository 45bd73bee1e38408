"""Running the layers above a site alone: those below return states that were stored before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from odesteer.errors import ModelError
from odesteer.models.architecture.hooks import HookSet
from odesteer.models.architecture.layers import accepts_argument, unwrapped
from odesteer.models.architecture.sites import (
    SiteModule,
    hidden_states,
    input_states,
    raise_bypassed,
    replace_input_states,
)
from odesteer.models.observed_model import ObservedModel
from odesteer.models.tokens.batches import pad_batch
from odesteer.models.tokens.encoding import Encoded
from odesteer.models.tokens.special_tokens import pad_token_id

Move = Callable[[Tensor], Tensor]
"""Moves activations `[m, d]`."""


@dataclass
class StateBatch:
    """Texts of one batch, padded on the right, with the states below the sites.

    Attributes:
        texts: the encoded prompts with their answers.
        states: `[n, columns, width]`, the output of the layer below which nothing is run again;
            None where every layer is run.
        outputs: how each of these layers returned its states, see `_rewrapped`.
    """

    texts: list[Encoded]
    states: Tensor | None
    outputs: dict[int, Any]

    @property
    def first_answer(self) -> int:
        """The first column of a token of any answer."""
        return min(text.n_prompt for text in self.texts)

    @property
    def width(self) -> int:
        """Number of columns."""
        return max(len(text) for text in self.texts)


class Replay:
    """Runs the layers of a model above some states.

    Args:
        lm: the model.
        sites: the modules whose activations are moved.
        position: which tokens are moved, as `Site` says it.
        checkpointing: whether each layer is computed again in the backward pass instead of keeping
            its activations: a third more time, and far less memory.
    """

    def __init__(
        self,
        lm: ObservedModel,
        sites: Sequence[SiteModule],
        position: str = "last",
        checkpointing: bool = False,
    ) -> None:
        self.lm = lm
        self.sites = tuple(sites)
        self.position = position
        self.checkpointing = checkpointing
        lowest = min(site.layer - (site.part == "heads") for site in sites)
        # The last layer that is not run again; -1 where all are.
        self.below = lowest
        for module in lm.layers.modules:
            if unwrapped(module) is not module:
                raise ModelError(
                    "the layers of this model are compiled, and training runs some of them alone;"
                    " open the model without torch.compile to train on it."
                )

    def capture(self, texts: Sequence[Encoded]) -> tuple[StateBatch, list[Tensor]]:
        """A batch with its states, and what `answer_log_probabilities` returns, in one pass."""
        outputs: dict[int, Any] = {}
        states: list[Tensor] = []

        def keep(layer: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, *rest: Any) -> None:
                outputs[layer] = _without_tensors(rest[-1])
                if layer == self.below:
                    # A copy: what later layers write in place must not be kept.
                    states.append(hidden_states(rest[-1]).detach().to("cpu", copy=True))

            return hook

        hooks = [(self.lm.layers.at(i), keep(i)) for i in range(self.below + 1)]
        batch = StateBatch(list(texts), None, {})
        with HookSet([], hooks), torch.no_grad():
            logits = self._forward(batch)
        if self.below >= 0:
            if not states:
                raise_bypassed(SiteModule(self.below, "residual", self.lm.layers.at(0), 0))
            batch = StateBatch(batch.texts, states[0], outputs)
        return batch, self._of_answers(batch, logits)

    def log_probabilities(
        self, batch: StateBatch, moves: Mapping[SiteModule, Move]
    ) -> list[Tensor]:
        """For each text the log-probabilities `[tokens of its answer, vocabulary]`, float32.

        Differentiable in the moves; what is moved is as in `SteeredModel.steering`.
        """
        before: list[tuple[nn.Module, Any]] = []
        after: list[tuple[nn.Module, Any]] = []
        for site, move in moves.items():
            hook = _MoveHook(move, batch, self.position, site.part)
            (after if site.part == "residual" else before).append((site.module, hook))
        with HookSet(before, after), self._skipping(batch), self._checkpointed():
            logits = self._forward(batch)
        return self._of_answers(batch, logits)

    def activations(self, batch: StateBatch) -> dict[SiteModule, Tensor]:
        """What is moved at each site `[m, d]`, float32, on the CPU; of the unsteered model."""
        found: dict[SiteModule, Tensor] = {}

        def look(site: SiteModule) -> Move:
            def move(a: Tensor) -> Tensor:
                found[site] = a.detach().float().cpu()
                return a

            return move

        with torch.no_grad():
            self.log_probabilities(batch, {site: look(site) for site in self.sites})
        return found

    def _forward(self, batch: StateBatch) -> Tensor:
        pad = pad_token_id(self.lm.tokenizer, self.lm.model)
        inputs = pad_batch([text.ids for text in batch.texts], pad, "right", self.lm.device)
        del inputs["position_ids"]  # with padding on the right the default positions are right
        options: dict[str, Any] = {}
        if accepts_argument(self.lm.model, "use_cache"):
            options["use_cache"] = False
        if accepts_argument(self.lm.model, "logits_to_keep"):
            options["logits_to_keep"] = batch.width - batch.first_answer + 1
        logits: Tensor = self.lm.model(**inputs, **options).logits
        return logits

    def _of_answers(self, batch: StateBatch, logits: Tensor) -> list[Tensor]:
        first = batch.width - logits.shape[1]
        return [
            logits[row, text.n_prompt - 1 - first : len(text) - 1 - first].float().log_softmax(-1)
            for row, text in enumerate(batch.texts)
        ]

    @contextmanager
    def _skipping(self, batch: StateBatch) -> Iterator[None]:
        """The layers below return at once: the last of them the stored states."""
        if batch.states is None:
            yield
            return
        stored = batch.states

        def stand_in(layer: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                states = input_states(args, kwargs)
                if layer == self.below:
                    # Layers write in place at times.
                    states = stored.to(states.device, copy=True)
                return _rewrapped(batch.outputs[layer], states)

            return forward

        with _replaced({self.lm.layers.at(i): stand_in(i) for i in range(self.below + 1)}):
            yield

    @contextmanager
    def _checkpointed(self) -> Iterator[None]:
        if not (self.checkpointing and torch.is_grad_enabled()):
            with nullcontext():
                yield
            return

        def again(module: nn.Module) -> Callable[..., Any]:
            forward = module.forward
            return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)

        above = self.lm.layers.modules[self.below + 1 :]
        with _replaced({module: again(module) for module in above}):
            yield


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Other forward functions for some modules, as attributes of the instances."""
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, own in before.items():
            if own is not None:
                module.forward = own
            elif "forward" in vars(module):
                del module.forward


def _without_tensors(output: Any) -> Any:
    """An output of a layer with its states, and all other tensors, left out."""
    if isinstance(output, (tuple, list)):
        return tuple(None if isinstance(item, Tensor) else item for item in output)
    return None


def _rewrapped(output: Any, states: Tensor) -> Any:
    """``states`` in the form in which a layer returned its own."""
    return states if output is None else (states, *output[1:])


class _MoveHook:
    """Moves the tokens at a position, in the output of a module or in its input."""

    def __init__(self, move: Move, batch: StateBatch, position: str, part: str) -> None:
        self._move, self._batch, self._part = move, batch, part
        self._position = position

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if self._part == "heads":
            states = input_states(args, rest[0])
            return replace_input_states(args, rest[0], self._moved(states))
        states = self._moved(hidden_states(rest[-1]))
        return states if isinstance(rest[-1], Tensor) else (states, *rest[-1][1:])

    def _moved(self, states: Tensor) -> Tensor:
        rows, columns = moved_tokens(self._batch.texts, self._position)
        index = (
            torch.tensor(rows, device=states.device),
            torch.tensor(columns, device=states.device),
        )
        moved = self._move(states[index].float()).to(states.dtype)
        return states.index_put(index, moved)


def moved_tokens(texts: Sequence[Encoded], position: str) -> tuple[list[int], list[int]]:
    """Rows and columns of the tokens of texts that steering at a position moves.

    The last token of a text decides about nothing in it, and is left out.
    """
    rows: list[int] = []
    columns: list[int] = []
    for row, text in enumerate(texts):
        first = {"last": text.n_prompt - 1, "generated": text.n_prompt}.get(position, 0)
        last = text.n_prompt if position == "prompt" else len(text) - 1
        rows += [row] * max(last - first, 0)
        columns += range(first, last)
    return rows, columns
