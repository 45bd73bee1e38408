"""A Hugging Face model that steerers can be fitted on and act on."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import nn
from typing_extensions import Self

from odesteer import __version__
from odesteer.artifact import Provenance, Site, Steerer
from odesteer.data import ContrastData, Example
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import Method
from odesteer.models.batches import Side
from odesteer.models.capture import Activations, CapturePosition, Capturer, captured_tokens
from odesteer.models.detokenizing import Stream
from odesteer.models.encoding import Encoded, Encoder, Prompt
from odesteer.models.generation import Generation
from odesteer.models.layers import execution_device, find_decoder_layers, text_config
from odesteer.models.loading import load_model
from odesteer.models.origin import model_name, template_hash, warn_of_other_model
from odesteer.models.prompt_width import PromptWidth, SaidWidth
from odesteer.models.rows import Amounts, Quantity, Share, Steerers, share_rows
from odesteer.models.seeding import seeded
from odesteer.models.steering import Steering, site_of
from odesteer.models.writing import Writer

_CONTEXT = ("max_position_embeddings", "max_seq_len", "n_positions", "n_ctx")


class SteeredModel:
    """A causal language model of transformers with its tokenizer.

    The model stays the user's own: it is used as it is, and is changed only inside `steering`.
    ``layers`` names the list of decoder layers (``"model.decoder.layers"``) where it cannot be
    told from the structure.

    Attributes:
        model: the model.
        tokenizer: its tokenizer; nothing is set on it.
        layers: its decoder layers.
        width: d, the width of the residual stream.
        context: number of positions that the model was built for; None if it is not limited.
        model_id: hub id or folder name, as far as it is known.
        model_revision: commit on the hub, as far as it is known.

    Raises `ModelError` for a model that cannot be steered.
    """

    def __init__(self, model: Any, tokenizer: Any, layers: str | None = None) -> None:
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
        return cls(model, tokenizer, layers)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        return execution_device(_embedding(self.model) or self.model)

    def encode(self, example: Example | Prompt) -> Encoded:
        """Token ids of an example, or of a prompt for generation: a text or a chat."""
        if isinstance(example, Example):
            return self._encoder.example(example)
        return self._encoder.prompt(example)

    def capture(
        self,
        examples: Sequence[Example],
        layer: int | Sequence[int],
        position: CapturePosition = "last",
        *,
        k: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
        side: Side = "right",
        progress: bool = False,
    ) -> Activations:
        """Activations of ``examples`` after one or several layers, in one pass.

        ``position`` is `last` (last token of each example), `answer` (all tokens of the
        response), `prompt` (last token of the prompt) or `random_answer` (``k`` tokens of the
        response, 4 by default, chosen by ``seed``). ``side`` is where batches are padded. Inside
        `steering` the activations are those of the steered model.
        """
        layers = self._numbers(layer)
        if not layers or not examples:
            raise InvalidInputError("give at least one layer and one example to capture.")
        self._check_evaluating()
        encoded = [
            self._encoder.example(example, f"example {i}") for i, example in enumerate(examples)
        ]
        tokens = captured_tokens(encoded, position, k=k, seed=seed)
        capturer = Capturer(self.model, self.layers, self.device, self._pad(), side)
        return capturer.capture(encoded, tokens, layers, batch_size=batch_size, progress=progress)

    @overload
    def fit(
        self,
        method: Method,
        data: ContrastData,
        layer: int,
        *,
        position: CapturePosition = ...,
        steer_position: str = ...,
        k: int | None = ...,
        seed: int = ...,
        batch_size: int = ...,
        progress: bool = ...,
    ) -> Steerer: ...

    @overload
    def fit(
        self,
        method: Method,
        data: ContrastData,
        layer: Sequence[int],
        *,
        position: CapturePosition = ...,
        steer_position: str = ...,
        k: int | None = ...,
        seed: int = ...,
        batch_size: int = ...,
        progress: bool = ...,
    ) -> list[Steerer]: ...

    def fit(
        self,
        method: Method,
        data: ContrastData,
        layer: int | Sequence[int],
        *,
        position: CapturePosition = "last",
        steer_position: str = "last",
        k: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
        progress: bool = False,
    ) -> Steerer | list[Steerer]:
        """Fit a copy of ``method`` to the activations of ``data``, at one layer or at several.

        ``position``, ``k`` and ``seed`` say where activations are captured (see `capture`),
        ``steer_position`` where the steerer acts: `last`, `generated`, `prompt` or `all`. The
        steerer knows its site and its provenance. Several layers are captured in one pass.
        """
        if not isinstance(method, Method):
            raise InvalidInputError(
                f"method is {method!r:.80}; give a method, as in odesteer.ODESteer()."
            )
        if not isinstance(data, ContrastData):
            raise InvalidInputError(
                f"data is {data!r:.80}; give ContrastData, as in odesteer.load_contrast(path)."
            )
        numbers = self._numbers(layer)
        sites = [Site(number, steer_position) for number in numbers]
        examples = (*data.positive, *data.negative)
        n_positive = len(data.positive)
        activations = self.capture(
            examples,
            numbers,
            position,
            k=k,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
        source = activations.example
        wanted = source < n_positive
        labels = (*data.groups_positive, *data.groups_negative)
        groups = (
            [labels[i] for i in source[wanted].tolist()],
            [labels[i] for i in source[~wanted].tolist()],
        )
        steerers = []
        for site in sites:
            states = activations.states[site.layer]
            fitted = method.clone().fit(states[wanted], states[~wanted], groups)
            barrier = getattr(fitted, "barrier", None)
            provenance = Provenance(
                model_id=self.model_id,
                model_revision=self.model_revision,
                model_width=self.width,
                n_layers=self.n_layers,
                capture_position=position,
                chat_template_hash=(
                    template_hash(self.tokenizer) if any(e.is_chat for e in examples) else None
                ),
                data_digest=data.digest(),
                n_positive=n_positive,
                n_negative=len(data.negative),
                seed=seed,
                held_out=getattr(barrier, "held_out_", None) or {},
                odesteer_version=__version__,
            )
            steerers.append(Steerer(fitted, site, provenance))
        return steerers if isinstance(layer, Sequence) else steerers[0]

    def steering(
        self,
        *steerers: Steerers,
        level: Quantity = None,
        T: Quantity = None,
        strength: Quantity = None,
        interpolation: Quantity = None,
        prompt_width: int | None = None,
        receipt: bool = False,
    ) -> Steering:
        """A context in which every use of the model by this thread is steered.

        Each of ``steerers`` is one for all rows of a batch, or a list with one for each row
        (None: leave that row exactly as it is); several act one after another. The amount, given
        as one quantity, is a number or a list with one for each row (None likewise); without one
        each method takes its own default. Rows that generation multiplies (beams, several
        samples) keep theirs.

        ``prompt_width`` says how many columns of a batch, padded on the left, are the prompt, so
        that a pass over prompt and response is steered as generating it would have been.
        ``receipt`` keeps an account for `Steering.receipt`.

        Everything is checked here, before anything is touched. Raises `ModelError` for a steerer
        that does not fit this model, `InvalidInputError` for an amount that does not fit the
        method, and warns with `ProvenanceWarning` where a steerer comes from another model.
        """
        amounts = Amounts.of(level=level, T=T, strength=strength, interpolation=interpolation)
        if not steerers and amounts.is_given:
            raise InvalidInputError(f"an amount ({amounts.value}) needs a steerer to apply it.")
        shares = self._shares(steerers, amounts, stacklevel=2)
        width: PromptWidth | SaidWidth = self._prompt_width
        if prompt_width is not None:
            if isinstance(prompt_width, bool) or not isinstance(prompt_width, int):
                raise InvalidInputError(f"prompt_width must be an integer, not {prompt_width!r}.")
            if prompt_width < 1:
                raise InvalidInputError(f"prompt_width must be positive, not {prompt_width}.")
            width = SaidWidth(prompt_width)
        return Steering(self.layers, shares, width, receipt=receipt)

    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        steerer: Steerers | None = ...,
        *,
        level: Quantity = ...,
        T: Quantity = ...,
        strength: Quantity = ...,
        interpolation: Quantity = ...,
        max_new_tokens: int = ...,
        seed: int | None = ...,
        batch_size: int | None = ...,
        receipt: Literal[False] = ...,
        stream: Stream | Any | None = ...,
        **options: Any,
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        steerer: Steerers | None = ...,
        *,
        level: Quantity = ...,
        T: Quantity = ...,
        strength: Quantity = ...,
        interpolation: Quantity = ...,
        max_new_tokens: int = ...,
        seed: int | None = ...,
        batch_size: int | None = ...,
        receipt: Literal[True],
        stream: Stream | Any | None = ...,
        **options: Any,
    ) -> list[Generation]: ...

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        steerer: Steerers | None = None,
        *,
        level: Quantity = None,
        T: Quantity = None,
        strength: Quantity = None,
        interpolation: Quantity = None,
        max_new_tokens: int = 128,
        seed: int | None = 0,
        batch_size: int | None = None,
        receipt: bool = False,
        stream: Stream | Any | None = None,
        **options: Any,
    ) -> list[str] | list[Generation]:
        """Continue ``prompts`` (texts, or chats), steered as in `steering`.

        Args:
            prompts: a list of them; a single one is a list of one.
            steerer: one for all prompts, a list with one (or None) for each, or None.
            level, T, strength, interpolation: how far, one of them; a number, or a list with one
                (or None) for each prompt.
            max_new_tokens: the most tokens to generate for each prompt.
            seed: of the sampling; the caller's random generators are left as they are. None draws
                from them instead.
            batch_size: how many prompts at a time; None for all at once.
            receipt: whether to return `Generation` objects, with what steering did to each
                token, instead of texts.
            stream: called as ``stream(row, text)`` with each piece of text as it arises, or a
                streamer of transformers (for one prompt).
            options: for `generate` of transformers (``do_sample``, ``temperature``,
                ``num_beams``, ``num_return_sequences``, ``cache_implementation``…).

        Returns one text (`Generation`) for each prompt, in order, or ``num_return_sequences`` of
        them in a row. Raises `InvalidInputError` for prompts that are longer than the model's
        context and for options that do not go together.
        """
        batch = [prompts] if _is_one_prompt(prompts) else list(prompts)
        encoded = [
            self._encoder.prompt(prompt, f"prompt {i}")  # type: ignore[arg-type]
            for i, prompt in enumerate(batch)
        ]
        writer = Writer(
            self.model,
            self.tokenizer,
            self.layers,
            self._prompt_width,
            device=self.device,
            context=self.context,
            pad=self._pad(),
            max_new_tokens=max_new_tokens,
            receipt=receipt,
            stream=stream,
            options=options,
        )
        writer.check(encoded)
        amounts = Amounts.of(level=level, T=T, strength=strength, interpolation=interpolation)
        if steerer is None and amounts.is_given:
            raise InvalidInputError(f"an amount ({amounts.value}) needs a steerer to apply it.")
        for what, n in (("amounts", amounts.n_rows), ("steerers", _n_rows(steerer))):
            if n is not None and n != len(batch):
                raise InvalidInputError(
                    f"there are {len(batch)} prompts and {n} {what}; give one for each, or one"
                    " for all."
                )
        self._shares([] if steerer is None else [steerer], amounts, stacklevel=2)
        self._check_evaluating()
        size = len(batch) if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < min(1, len(batch)):
            raise InvalidInputError(f"batch_size must be a positive integer, not {batch_size!r}.")
        done: list[Any] = []
        with seeded(seed, self.device):
            for start in range(0, len(batch), max(size, 1)):
                part = slice(start, start + size)
                shares = share_rows(
                    [] if steerer is None else [_rows_of(steerer, part)], amounts.of_rows(part)
                )
                done += writer.write(encoded[part], shares, start)
        return done

    def _shares(
        self, steerers: Sequence[Steerers], amounts: Amounts, stacklevel: int
    ) -> list[Share]:
        """The checked shares of steerers on this model."""
        shares = share_rows(steerers, amounts)
        origins = set()
        for share in shares:
            self.layers.at(site_of(share.steerer).layer)
            share.steerer.check_width(self.width)
            share.check_meaning()
            origins.add(share.steerer.provenance)
        for origin in sorted(origins, key=repr):
            warn_of_other_model(origin, self.model_id, self.model_revision, stacklevel + 1)
        return shares

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


def _is_one_prompt(prompts: object) -> bool:
    """Whether it is a text or a chat rather than a list of them."""
    if isinstance(prompts, str):
        return True
    return isinstance(prompts, Sequence) and any(
        not isinstance(item, (str, Sequence)) for item in prompts
    )


def _n_rows(steerer: Steerers | None) -> int | None:
    return None if steerer is None or isinstance(steerer, Steerer) else len(steerer)


def _rows_of(steerer: Steerers, part: slice) -> Steerers:
    return steerer if isinstance(steerer, Steerer) else steerer[part]
