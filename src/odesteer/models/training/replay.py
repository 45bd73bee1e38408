"""Running the layers above a site alone: those below return states that were stored before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from odesteer.artifact.positions import parse_position
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.architecture.hooks import HookSet
from odesteer.models.architecture.layers import accepts_argument, unwrapped
from odesteer.models.architecture.sites import (
    SiteModule,
    hidden_states,
    input_states,
    raise_bypassed,
    replace_hidden_states,
    replace_input_states,
)
from odesteer.models.observed_model import ObservedModel
from odesteer.models.tokens.batches import pad_batch
from odesteer.models.tokens.encoding import Encoded
from odesteer.models.tokens.special_tokens import pad_token_id
from odesteer.models.training.kept import TensorKeeper
from odesteer.models.training.prompt_states import can_keep, computed
from odesteer.models.training.state_batch import StateBatch, moved_tokens

Move = Callable[[Tensor], Tensor]
"""Moves activations `[m, d]`."""

# Log-probabilities with the beginnings of texts computed before may differ by rounding.
_ROUNDING = {torch.float64: 1e-3, torch.float32: 1e-2}
_COARSE_ROUNDING = 0.5


class Replay:
    """Runs the layers of a model above some states.

    Where the model has a plain cache of keys and values, what stands before the first token that is
    moved or decides about an answer is not run again either.

    Args:
        lm: the model.
        sites: the modules whose activations are moved.
        alone: whether they are moved one at a time, so that each needs the layers above it alone;
            the states below each are kept.
        position: which tokens are moved, as `Site` says it.
        checkpointing: whether each layer is computed again in the backward pass instead of keeping
            its activations: a third more time, and far less memory.
        keep: keeps tensors between passes.

    Raises `InvalidInputError` for positions that depend on the text.
    """

    def __init__(
        self,
        lm: ObservedModel,
        sites: Sequence[SiteModule],
        position: str = "last",
        checkpointing: bool = False,
        keep: TensorKeeper | None = None,
        alone: bool = False,
    ) -> None:
        if parse_position(position).phase is not None:
            raise InvalidInputError(
                f"steer_position={position!r} depends on the text that is written, and training"
                " reads texts that are; use last, generated, prompt, all or a window of them."
            )
        self.lm = lm
        self.sites = tuple(sites)
        self.position = position
        self.checkpointing = checkpointing
        self.keep = TensorKeeper() if keep is None else keep
        below = sorted({_layer_below(site) for site in sites})
        # The layers whose states are kept; -1, with none to keep, where all layers are run.
        self.below = tuple(below if alone else below[:1])
        self._keeps_prompts: bool | None = None if can_keep(lm) else False
        for module in lm.layers.modules:
            if unwrapped(module) is not module:
                raise ModelError(
                    "the layers of this model are compiled, and training runs some of them alone;"
                    " open the model without torch.compile to train on it."
                )

    def capture(self, texts: Sequence[Encoded]) -> tuple[StateBatch, Tensor]:
        """A batch with its states, and what `logits` returns for it, in one pass."""
        return self._captured(texts, self._skips_prompts(texts))

    def lengths(self, texts: Sequence[Encoded]) -> list[int]:
        """How many tokens of each text are run again."""
        starts = self._starts(texts) if self._skips_prompts(texts) else [0] * len(texts)
        return [len(text) - start for text, start in zip(texts, starts, strict=True)]

    def _skips_prompts(self, texts: Sequence[Encoded]) -> bool:
        if self._keeps_prompts is None:
            self._keeps_prompts = self._prompts_agree(texts)
        return self._keeps_prompts

    def _captured(self, texts: Sequence[Encoded], with_prompts: bool) -> tuple[StateBatch, Tensor]:
        batch = StateBatch(list(texts), [0] * len(texts), self.position)
        if with_prompts:
            starts = self._starts(texts)
            beginnings = [text.ids[:n] for text, n in zip(texts, starts, strict=True)]
            prompts = computed(self.lm, beginnings) if all(starts) else None
            if prompts is not None:
                batch = StateBatch(list(texts), starts, self.position, prompts)
        outputs: dict[int, Any] = {}
        states: dict[int, Tensor] = {}

        def lower(layer: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, *rest: Any) -> None:
                outputs[layer] = _without_tensors(rest[-1])
                if layer in self.below:
                    # A copy: what later layers write in place must not be kept.
                    states[layer] = self.keep(hidden_states(rest[-1]))

            return hook

        def look(site: SiteModule) -> Move:
            def move(a: Tensor) -> Tensor:
                batch.activations[site] = self.keep(a)
                return a

            return move

        hooks = [(self.lm.layers.at(i), lower(i)) for i in range(self.below[-1] + 1)]
        with HookSet([], hooks), torch.no_grad():
            logits = self.logits(batch, {site: look(site) for site in self.sites})
        for layer in self.below:
            if layer >= 0 and layer not in states:
                raise_bypassed(SiteModule(layer, "residual", self.lm.layers.at(layer), 0))
        batch.states, batch.outputs = states, outputs
        if batch.prompts is not None:
            batch.prompts = batch.prompts.kept(self.below[0], self.keep)
        return batch, logits

    def _starts(self, texts: Sequence[Encoded]) -> list[int]:
        """The first token of each text that is moved or decides about an answer."""
        starts = [text.n_prompt - 1 for text in texts]
        for row, column in zip(*moved_tokens(texts, self.position), strict=True):
            starts[row] = min(starts[row], column)
        return starts

    def _prompts_agree(self, texts: Sequence[Encoded]) -> bool:
        """Whether passes behind kept prompts give what passes over whole texts give."""
        few = sorted(texts, key=len)[:: max(1, len(texts) - 1)][:2]
        whole, parts = (self._captured(few, kept)[1].log_softmax(-1) for kept in (False, True))
        likely = whole > -20
        tolerance = _ROUNDING.get(self.lm.model.dtype, _COARSE_ROUNDING)
        return bool(((whole - parts)[likely].abs() < tolerance).all())

    def logits(self, batch: StateBatch, moves: Mapping[SiteModule, Move]) -> Tensor:
        """The logits `[tokens, vocabulary]`, float32, that the tokens of all answers of a batch are
        chosen from, text after text.

        Differentiable in the moves; what is moved is as in `SteeredModel.steering`.
        """
        before: list[tuple[nn.Module, Any]] = []
        after: list[tuple[nn.Module, Any]] = []
        for site, move in moves.items():
            hook = _MoveHook(move, batch, site.is_output)
            (after if site.is_output else before).append((site.module, hook))
        chosen = _DecidingStates(batch)
        head = _output_embeddings(self.lm.model)
        if head is not None:
            before.append((head, chosen))
        below = self._last_skipped(batch, moves)
        cache = None if batch.prompts is None else batch.prompts.fresh(self.lm.device, below)
        skipping, again = self._skipping(batch, below), self._checkpointed(batch, cache, below)
        with HookSet(before, after), skipping, again:
            logits = self._forward(batch, cache)
        return (logits[0] if chosen.ran else logits[batch.deciding]).float()

    def _last_skipped(self, batch: StateBatch, moves: Mapping[SiteModule, Move]) -> int:
        """The last layer that need not run for these moves; -1 for none."""
        highest = min((_layer_below(site) for site in moves), default=len(self.lm.layers.modules))
        return max((layer for layer in batch.states if layer <= highest), default=-1)

    def log_probabilities(
        self, batch: StateBatch, moves: Mapping[SiteModule, Move]
    ) -> tuple[Tensor, ...]:
        """For each text the log-probabilities `[tokens of its answer, vocabulary]`, float32."""
        return batch.by_text(self.logits(batch, moves).log_softmax(-1))

    def _forward(self, batch: StateBatch, cache: Any) -> Tensor:
        pad = pad_token_id(self.lm.tokenizer, self.lm.model)
        inputs: dict[str, Any] = dict(pad_batch(batch.parts, pad, "right", self.lm.device))
        if batch.prompts is not None:
            mask = torch.cat([batch.prompts.mask, inputs["attention_mask"]], dim=1)
            width = batch.prompts.mask.shape[1]
            inputs["attention_mask"] = mask
            if accepts_argument(self.lm.model, "position_ids"):
                inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)[:, width:]
            else:
                del inputs["position_ids"]
            inputs |= {"past_key_values": cache, "use_cache": True}
        else:
            del inputs["position_ids"]  # with padding on the right the default positions are right
            if accepts_argument(self.lm.model, "use_cache"):
                inputs["use_cache"] = False
        logits: Tensor = self.lm.model(**inputs).logits
        return logits

    @contextmanager
    def _skipping(self, batch: StateBatch, below: int) -> Iterator[None]:
        """The layers up to ``below`` return at once: the last of them its stored states."""
        if below < 0:
            yield
            return
        stored = batch.states[below]

        def stand_in(layer: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                states = input_states(args, kwargs)
                if layer == below:
                    # Layers write in place at times.
                    states = stored.to(states.device, copy=True)
                return _rewrapped(batch.outputs[layer], states)

            return forward

        with _replaced({self.lm.layers.at(i): stand_in(i) for i in range(below + 1)}):
            yield

    @contextmanager
    def _checkpointed(self, batch: StateBatch, cache: Any, below: int) -> Iterator[None]:
        if not (self.checkpointing and torch.is_grad_enabled()):
            yield
            return

        def again(module: nn.Module) -> Callable[..., Any]:
            forward = module.forward

            def run(*args: Any, **kwargs: Any) -> Any:
                # A layer adds to the cache, and must find it as it was when it runs again.
                if batch.prompts is not None:
                    own = batch.prompts.fresh(self.lm.device, below)
                    args = tuple(own if value is cache else value for value in args)
                    kwargs = {n: own if value is cache else value for n, value in kwargs.items()}
                return forward(*args, **kwargs)

            return lambda *args, **kwargs: checkpoint(run, *args, use_reentrant=False, **kwargs)

        above = self.lm.layers.modules[below + 1 :]
        with _replaced({module: again(module) for module in above}):
            yield


def _layer_below(site: SiteModule) -> int:
    """The last layer that a move at a site leaves as it was."""
    return site.layer - (site.part == "heads")


def check_differentiable(value: Tensor) -> None:
    """Raise `ModelError` where no gradient comes back through the model."""
    if not value.requires_grad:
        raise ModelError(
            "no gradient comes back through the layers above the site: kernels of quantised"
            " models often have none. Train on the model in bfloat16 or float32, and steer the"
            " quantised one with the result."
        )


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


def _output_embeddings(model: Any) -> nn.Module | None:
    """The module that makes logits of states, where the model names one."""
    own: Any = unwrapped(model)
    found = own.get_output_embeddings() if hasattr(own, "get_output_embeddings") else None
    return found if isinstance(found, nn.Module) else None


class _DecidingStates:
    """Gives the output embeddings the states alone that answers are chosen from.

    They are by far the largest product of a small model.
    """

    def __init__(self, batch: StateBatch) -> None:
        self._batch = batch
        self.ran = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> Any:
        states = input_states(args, kwargs)
        rows, columns = self._batch.deciding
        self.ran = True
        return replace_input_states(args, kwargs, states[rows, columns][None])


class _MoveHook:
    """Moves the tokens at a position, in the output of a module or in its input."""

    def __init__(self, move: Move, batch: StateBatch, is_output: bool) -> None:
        self._move, self._batch, self._is_output = move, batch, is_output

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if not self._is_output:
            states = input_states(args, rest[0])
            return replace_input_states(args, rest[0], self._moved(states))
        return replace_hidden_states(rest[-1], self._moved(hidden_states(rest[-1])))

    def _moved(self, states: Tensor) -> Tensor:
        rows, columns = self._batch.moved
        index = (rows.to(states.device), columns.to(states.device))
        activations: Tensor = states[index]
        moved: Tensor = self._move(activations.float()).to(states.dtype)
        return states.index_put(index, moved)
