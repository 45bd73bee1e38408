"""A Hugging Face model whose activations can be looked at."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import nn
from typing_extensions import Self

from odesteer.data import Example
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.batches import Side
from odesteer.models.capture import Activations, Capturer
from odesteer.models.captured_tokens import (
    DEFAULT_K,
    CapturePosition,
    CapturePositions,
    Tokens,
    all_tokens,
    captured_tokens,
    check_position,
    rows_among,
)
from odesteer.models.encoding import Encoded, Encoder, Prompt
from odesteer.models.layers import execution_device, find_decoder_layers, text_config
from odesteer.models.loading import load_model
from odesteer.models.origin import model_name
from odesteer.models.places import Places
from odesteer.models.prompt_width import PromptWidth
from odesteer.models.shards import Shards

_CONTEXT = ("max_position_embeddings", "max_seq_len", "n_positions", "n_ctx")


class ObservedModel:
    """A causal language model of transformers with its tokenizer; its activations can be seen.

    The model stays the user's own: it is used as it is.
    Its attributes and arguments are told at `SteeredModel`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, layers: str | None = None, heads: str | None = None
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"model is {model!r:.80}, not a torch module; to load one by name write"
                " SteeredModel.from_pretrained('owner/name')."
            )
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a multimodal processor
        if not callable(tokenizer):
            raise ModelError(f"tokenizer is {tokenizer!r:.80}; give the model's own tokenizer.")
        self.model: Any = model
        self.tokenizer = tokenizer
        self.layers = find_decoder_layers(model, layers)
        config = text_config(model)
        self.width = _width(model, config)
        self.context: int | None = next(
            (int(n) for name in _CONTEXT if (n := getattr(config, name, None))), None
        )
        whole = getattr(model, "config", None)
        self.model_id = model_name(str(getattr(whole, "_name_or_path", "") or ""))
        self.model_revision: str | None = getattr(whole, "_commit_hash", None)
        self._encoder = Encoder(tokenizer, self.context)
        self._places = Places(model, self.layers, self.width, heads)
        self._prompt_width = PromptWidth()

    @classmethod
    def from_pretrained(
        cls,
        id_or_folder: str,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        layers: str | None = None,
        heads: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a model and its tokenizer from the hub or a folder.

        ``device`` is by default the GPU if there is one; ``options`` (``device_map``,
        ``quantization_config``, ``attn_implementation``…) go to transformers. Raises `ModelError`
        where there is no such model.
        """
        model, tokenizer = load_model(
            str(id_or_folder), revision=revision, device=device, dtype=dtype, **options
        )
        return cls(model, tokenizer, layers, heads)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def n_heads(self) -> int:
        """Number of attention heads in each layer; raises `ModelError` for a model without."""
        return self._places.heads.n_heads

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        return execution_device(_embedding(self.model) or self.model)

    def encode(self, example: Example | Prompt) -> Encoded:
        """Token ids of an example, or of a prompt for generation: a text or a chat."""
        if isinstance(example, Example):
            return self._encoder.example(example)
        return self._encoder.prompt(example)

    @overload
    def capture(
        self,
        examples: Sequence[Example],
        layer: int | Sequence[int],
        position: CapturePosition = "last",
        *,
        part: str = "residual",
        k: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        side: Side = "right",
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> Activations: ...

    @overload
    def capture(
        self,
        examples: Sequence[Example],
        layer: int | Sequence[int],
        position: CapturePositions,
        *,
        part: str = "residual",
        k: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        side: Side = "right",
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> dict[str, Activations]: ...

    def capture(
        self,
        examples: Sequence[Example],
        layer: int | Sequence[int],
        position: CapturePosition | CapturePositions = "last",
        *,
        part: str = "residual",
        k: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        side: Side = "right",
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> Activations | dict[str, Activations]:
        """Activations of ``examples`` at one or several layers and positions, in one pass up to
        the highest layer.

        ``position`` is `last` (last token of each example), `answer` (all tokens of the
        response), `prompt` (last token of the prompt) or `random_answer` (``k`` tokens of the
        response, 4 by default, chosen by ``seed``); of several each has its own activations, by
        its name. ``part`` is `residual`, the output of the layers, or `heads`, the outputs of
        their attention heads side by side. ``side`` is where batches are padded, ``batch_size``
        how many examples they hold; it is found without one. Inside `steering` the activations
        are those of the steered model.

        With a ``folder`` activations go there in shards instead of into memory, and are read back
        a layer at a time. A capture that was interrupted, or killed, goes on with what is missing
        when it is asked for again. Raises `InvalidInputError` for a folder with anything else.
        """
        layers = self._numbers(layer)
        if not layers or not examples:
            raise InvalidInputError("give at least one layer and one example to capture.")
        self._check_evaluating()
        encoded = [
            self._encoder.example(example, f"example {i}") for i, example in enumerate(examples)
        ]
        tokens = captured_tokens(encoded, position, k=k, seed=seed)
        every = all_tokens(tokens)
        found = self._captured(encoded, every, layers, part, side, batch_size, folder, progress)
        if isinstance(position, str):
            return found
        return {name: found.rows(rows_among(own, every)) for name, own in tokens.items()}

    def _captured(
        self,
        examples: Sequence[Encoded],
        tokens: Tokens,
        layers: Sequence[int],
        part: str,
        side: Side,
        batch_size: int | None,
        folder: str | Path | None,
        progress: bool,
    ) -> Activations:
        """What `capture` finds at the ``tokens`` of each example."""
        store = None
        if folder is not None:
            settings = {"layers": layers, "part": part, "side": side, "batch_size": batch_size}
            store = Shards(folder, {**settings, "content": self._content(examples, tokens)})
        return self.capturer(side).capture(
            examples, tokens, layers, part, batch_size=batch_size, store=store, progress=progress
        )

    def capturer(self, side: Side = "right") -> Capturer:
        """What captures the activations of encoded examples at any of their tokens."""
        return Capturer(self.model, self._places, self.device, self._pad(), side)

    def _content(self, examples: Sequence[Encoded], tokens: Sequence[Sequence[int]]) -> str:
        """sha256 of what is captured from what: tokens, and some of each weight."""
        digest = hashlib.sha256(
            repr([(e.ids, list(t)) for e, t in zip(examples, tokens, strict=True)]).encode()
        )
        for name, weight in self.model.named_parameters():
            digest.update(name.encode())
            if weight.device.type != "meta":
                some = weight.detach().flatten()[:: max(1, weight.numel() // 8)]
                digest.update(repr(some.tolist()).encode())
        return digest.hexdigest()

    def _n_rows(self, examples: Sequence[Example], position: CapturePosition, k: int | None) -> int:
        """About how many activations of a layer `capture` returns.

        Raises `InvalidInputError` unless there is one position.
        """
        check_position(position)
        if position == "answer":
            return sum(len(self._encoder.example(example).response) for example in examples)
        return len(examples) * ((k or DEFAULT_K) if position == "random_answer" else 1)

    def _numbers(self, layer: int | Sequence[int]) -> list[int]:
        """Checked layer numbers, each once."""
        numbers = list(dict.fromkeys(layer)) if isinstance(layer, Sequence) else [layer]
        for number in numbers:
            self.layers.at(number)
        return numbers

    def _check_evaluating(self) -> None:
        if self.model.training:
            raise ModelError(
                "the model is in training mode, where dropout makes its activations random; call"
                " model.eval() first."
            )

    def _pad(self) -> int:
        """A token id for padding, which attention masks hide."""
        for name in ("pad_token_id", "eos_token_id"):
            token = getattr(self.tokenizer, name, None)
            if token is not None:
                return int(token)
        return 0


def _width(model: nn.Module, config: Any) -> int:
    width = getattr(config, "hidden_size", None)
    if width is None:
        width = getattr(_embedding(model), "embedding_dim", None)
    if width is None:
        raise ModelError(
            f"{type(model).__name__} does not say how wide its residual stream is"
            " (config.hidden_size)."
        )
    return int(width)


def _embedding(model: Any) -> nn.Module | None:
    """The module that the token ids go into, where the model tells."""
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return embedding if isinstance(embedding, nn.Module) else None
