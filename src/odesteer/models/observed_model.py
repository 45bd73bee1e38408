"""`ObservedModel`: a Hugging Face model with its tokenizer, encoding and capture."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import nn
from typing_extensions import Self

from odesteer.data import Example
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.architecture.layers import execution_device, find_decoder_layers, text_config
from odesteer.models.architecture.loading import load_model
from odesteer.models.architecture.sites import ModelSites
from odesteer.models.capture.capturer import Activations, Capturer
from odesteer.models.capture.spill import ActivationShards
from odesteer.models.provenance_check import model_name
from odesteer.models.steering.positions import ThreadPromptWidth
from odesteer.models.tokens.batches import PaddingSide
from odesteer.models.tokens.capture_positions import (
    DEFAULT_K,
    CapturePosition,
    CapturePositions,
    Tokens,
    captured_tokens,
    check_position,
    rows_of_tokens,
    union_of_tokens,
)
from odesteer.models.tokens.chat_template import ChatTemplate
from odesteer.models.tokens.encoding import Encoded, Encoder, Prompt
from odesteer.models.tokens.special_tokens import pad_token_id

_CONTEXT_LENGTHS = ("max_position_embeddings", "max_seq_len", "n_positions", "n_ctx")


class ObservedModel:
    """A causal language model of transformers with its tokenizer, encoding and capture.

    The model is used as it is. Attributes and arguments are documented at `SteeredModel`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        layers: str | None = None,
        heads: str | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
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
            (int(n) for name in _CONTEXT_LENGTHS if (n := getattr(config, name, None) or 0) > 0),
            None,
        )
        whole = getattr(model, "config", None)
        self.model_id = model_name(str(getattr(whole, "_name_or_path", "") or ""))
        self.model_revision: str | None = getattr(whole, "_commit_hash", None)
        self._encoder = Encoder(tokenizer, self.context, chat_template_kwargs)
        self._sites = ModelSites(model, self.layers, self.width, heads)
        self._prompt_width = ThreadPromptWidth()

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
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Load a model and its tokenizer from the hub, a folder or a GGUF file.

        A GGUF file is a path that ends in ``.gguf``, ``owner/name/file.gguf`` on the hub, or the
        ``gguf_file`` in a folder or repository; its weights are dequantised. ``device`` is by
        default the GPU if there is one; ``options`` (``device_map``, ``quantization_config``,
        ``attn_implementation``…) go to transformers, those that say which files are meant
        (``subfolder``, ``gguf_file``, ``token``, ``trust_remote_code``, ``cache_dir``…) for the
        tokenizer too. Raises `ModelError` where there is no such model.
        """
        model, tokenizer = load_model(
            str(id_or_folder), revision=revision, device=device, dtype=dtype, **options
        )
        return cls(model, tokenizer, layers, heads, chat_template_kwargs=chat_template_kwargs)

    @property
    def chat_template_kwargs(self) -> dict[str, Any]:
        """The arguments of the chat template, a copy."""
        return dict(self.template.arguments)

    @property
    def template(self) -> ChatTemplate:
        """The chat template with its arguments."""
        return self._encoder.template

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def n_heads(self) -> int:
        """Number of attention heads in each layer; raises `ModelError` for a model without."""
        return self._sites.heads.n_heads

    @property
    def device(self) -> torch.device:
        """The device of the model's inputs."""
        return execution_device(_embedding(self.model) or self.model)

    def encode(self, example: Example | Prompt) -> Encoded:
        """Token ids of an example, or of a prompt for generation: a text or a chat."""
        if isinstance(example, Example):
            return self._encoder.example(example)
        return self._encoder.prompt(example)

    def encode_example(self, example: Example, what: str = "the example") -> Encoded:
        """Token ids of an example; ``what`` names it in errors."""
        return self._encoder.example(example, what)

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
        side: PaddingSide = "right",
        folder: str | Path | None = None,
        progress: bool | Callable[[int], None] = False,
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
        side: PaddingSide = "right",
        folder: str | Path | None = None,
        progress: bool | Callable[[int], None] = False,
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
        side: PaddingSide = "right",
        folder: str | Path | None = None,
        progress: bool | Callable[[int], None] = False,
    ) -> Activations | dict[str, Activations]:
        """Activations of ``examples`` at one or several layers and positions, in one pass up to
        the highest layer.

        ``position`` is `last` (last token of each example), `answer` (all tokens of the
        response), `prompt` (last token of the prompt) or `random_answer` (``k`` tokens of the
        response, 4 by default, chosen by ``seed``); of several each has its own activations, by
        its name. ``part`` is `residual`, the output of the layers, `heads`, the outputs of
        their attention heads side by side, or `final`, of the last layer, the output of the norm
        behind it. ``side`` is where batches are padded, ``batch_size``
        how many examples they hold; it is found without one. Inside `steering` the activations
        are those of the steered model.

        With a ``folder`` activations go there in shards instead of into memory, and are read back
        a layer at a time. A capture that was interrupted, or killed, goes on with what is missing
        when it is asked for again. Raises `InvalidInputError` for a folder with anything else.
        """
        layers = self._layer_numbers(layer)
        if not layers or not examples:
            raise InvalidInputError("give at least one layer and one example to capture.")
        self.check_evaluating()
        encoded = [
            self._encoder.example(example, f"example {i}") for i, example in enumerate(examples)
        ]
        tokens = captured_tokens(encoded, position, k=k, seed=seed)
        every = union_of_tokens(tokens)
        found = self._captured(encoded, every, layers, part, side, batch_size, folder, progress)
        if isinstance(position, str):
            return found
        return {name: found.rows(rows_of_tokens(own, every)) for name, own in tokens.items()}

    def _captured(
        self,
        examples: Sequence[Encoded],
        tokens: Tokens,
        layers: Sequence[int],
        part: str,
        side: PaddingSide,
        batch_size: int | None,
        folder: str | Path | None,
        progress: bool | Callable[[int], None],
    ) -> Activations:
        """Activations at the ``tokens`` of each example, in memory or in a folder."""
        store = None
        if folder is not None:
            settings = {"layers": layers, "part": part, "side": side, "batch_size": batch_size}
            store = ActivationShards(
                folder, {**settings, "content": self.content(examples, tokens)}
            )
        return self.capturer(side).capture(
            examples, tokens, layers, part, batch_size=batch_size, store=store, progress=progress
        )

    def capturer(self, side: PaddingSide = "right") -> Capturer:
        """Captures the activations of encoded examples at any of their tokens."""
        pad = pad_token_id(self.tokenizer, self.model)
        return Capturer(self.model, self._sites, self.device, pad, side)

    def content(self, examples: Sequence[Encoded], tokens: Sequence[Sequence[int]]) -> str:
        """sha256 of the tokens and of a sample of each weight: identifies a capture."""
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

    def _layer_numbers(self, layer: int | Sequence[int]) -> list[int]:
        """Layer numbers, checked, without repetitions."""
        given = plain_numbers(layer)
        numbers = list(dict.fromkeys(given)) if isinstance(given, Sequence) else [given]
        for number in numbers:
            self.layers.at(number)
        return numbers

    def check_evaluating(self) -> None:
        """Raise `ModelError` in training mode, where dropout is random."""
        if self.model.training:
            raise ModelError(
                "the model is in training mode, where dropout makes its activations random; call"
                " model.eval() first."
            )


def plain_numbers(layer: Any) -> Any:
    """A number, or a list of numbers, of numpy or torch as Python's own."""
    if hasattr(layer, "tolist"):
        return layer.tolist()
    if isinstance(layer, Sequence) and not isinstance(layer, str):
        return [plain_numbers(one) for one in layer]
    return layer


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
    """The input embedding, where the model has `get_input_embeddings`."""
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return embedding if isinstance(embedding, nn.Module) else None
