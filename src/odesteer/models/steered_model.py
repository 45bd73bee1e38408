"""`SteeredModel`: fitting, steering and generating with a Hugging Face model."""

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.data import ContrastData
from odesteer.errors import InvalidInputError
from odesteer.methods import EndToEnd, Method
from odesteer.models.capture.spill import spill_folder
from odesteer.models.divergence import (
    SPLITS,
    Divergence,
    NeutralTextCache,
    NeutralTexts,
    Split,
)
from odesteer.models.fitting import fit_steerers, prepare_method
from odesteer.models.generation.generate import GenerationRunner
from odesteer.models.generation.result import Generation
from odesteer.models.generation.streaming import StreamCallback
from odesteer.models.observed_model import ObservedModel, plain_numbers
from odesteer.models.provenance_check import warn_of_other_model, warn_of_other_template
from odesteer.models.steering.context import Steering
from odesteer.models.steering.positions import PromptWidth, ThreadPromptWidth
from odesteer.models.steering.rows import (
    Amounts,
    Quantity,
    RowAssignment,
    Steerers,
    assign_rows,
    check_rows,
)
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.models.tokens.encoding import Prompt, is_one_prompt
from odesteer.models.tokens.special_tokens import pad_token_id
from odesteer.models.training.end_to_end import fit_end_to_end


class SteeredModel(ObservedModel):
    """A causal language model of transformers with its tokenizer.

    The model stays the user's own: it is used as it is, and is changed only inside `steering`.
    ``layers`` names the list of decoder layers (``"model.decoder.layers"``), and ``heads`` the
    output projection of the attention inside each (``"self_attn.o_proj"``), where they cannot be
    told from the structure. ``chat_template_kwargs`` are arguments of the chat template
    (``{"enable_thinking": False}``), used for every chat: captured, fitted on, generated from,
    scored and served; steerers keep them in their provenance.

    Attributes:
        model: the model.
        tokenizer: its tokenizer; nothing is set on it.
        layers: its decoder layers.
        width: d, the width of the residual stream.
        context: number of positions that the model was built for; None if it is not limited.
        model_id: hub id or folder name, as far as it is known.
        model_revision: commit on the hub, as far as it is known.
        chat_template_kwargs: the arguments of the chat template.

    Raises `ModelError` for a model that cannot be steered.
    """

    @overload
    def fit(
        self,
        method: Method,
        data: ContrastData | Sequence[Prompt],
        layer: int,
        *,
        part: str = ...,
        position: CapturePosition = ...,
        steer_position: str = ...,
        k: int | None = ...,
        seed: int = ...,
        batch_size: int | None = ...,
        folder: str | Path | None = ...,
        progress: bool = ...,
        neutral: Sequence[Prompt] | None = ...,
        checkpointing: bool = ...,
    ) -> Steerer: ...

    @overload
    def fit(
        self,
        method: Method,
        data: ContrastData | Sequence[Prompt],
        layer: Sequence[int],
        *,
        part: str = ...,
        position: CapturePosition = ...,
        steer_position: str = ...,
        k: int | None = ...,
        seed: int = ...,
        batch_size: int | None = ...,
        folder: str | Path | None = ...,
        progress: bool = ...,
        neutral: Sequence[Prompt] | None = ...,
        checkpointing: bool = ...,
        choose_layer: Literal[False] = ...,
    ) -> SteererSet: ...

    @overload
    def fit(
        self,
        method: Method,
        data: ContrastData | Sequence[Prompt],
        layer: Sequence[int],
        *,
        part: str = ...,
        steer_position: str = ...,
        batch_size: int | None = ...,
        folder: str | Path | None = ...,
        progress: bool = ...,
        neutral: Sequence[Prompt] | None = ...,
        checkpointing: bool = ...,
        choose_layer: Literal[True],
    ) -> Steerer: ...

    def fit(
        self,
        method: Method,
        data: ContrastData | Sequence[Prompt],
        layer: int | Sequence[int],
        *,
        part: str = "residual",
        position: CapturePosition = "last",
        steer_position: str = "last",
        k: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        folder: str | Path | None = None,
        progress: bool = False,
        neutral: Sequence[Prompt] | None = None,
        checkpointing: bool = False,
        choose_layer: bool = False,
    ) -> Steerer | SteererSet:
        """Fit a copy of ``method`` to the activations of ``data``, at one layer or at several.

        ``part``, ``position``, ``k`` and ``seed`` say where activations are captured (see
        `capture`), ``steer_position`` where the steerer acts: `last`, `generated`, `prompt`, `all`,
        a window (`generated:0:32`) or a phase (`thinking`, `answer`, `after:MARKER`), see
        `odesteer.artifact.positions`. The steerer knows its site and its provenance. A list of
        layers is captured in one pass and gives a `SteererSet`, in which each layer has a fit of
        its own.

        ``folder`` is where activations go meanwhile, as in `capture`; they stay there. Without one
        they are kept in memory, or in a temporary folder if they would fill half of it.

        `HeadITI` with several layers chooses its ``top_k`` heads among the heads of all of them;
        layers without a chosen head have no steerer. It is told the number of heads.

        `EndToEnd` is trained through the layers above: its data are pairs, or for some objectives
        prompts alone; several layers are trained jointly, or with ``choose_layer`` each alone, from
        one capture, and the one with the lowest held-out loss is returned. It acts in training
        where it will act afterwards, at ``steer_position``. ``batch_size`` counts pairs,
        ``folder`` holds a checkpoint that an interrupted training resumes from, ``seed`` is the
        method's own. ``neutral`` are the prompts that its cost is measured on, every third for
        validation; by default the bundled ones. With ``checkpointing`` each layer is computed again
        in the backward pass, which saves memory and takes a third more time.
        """
        layer = plain_numbers(layer)
        n_heads = self.n_heads if part == "heads" else None
        method = prepare_method(method, part, n_heads)
        sites = [Site(number, steer_position, part) for number in self._layer_numbers(layer)]
        if isinstance(method, EndToEnd):
            if position != "last" or k is not None or seed:
                raise InvalidInputError(
                    "EndToEnd is trained at the tokens that it steers: position and k have no use,"
                    " and the seed is a parameter of the method, EndToEnd(seed=...)."
                )
            steerers = fit_end_to_end(
                self,
                method,
                data,
                {site: self._sites.of(site) for site in sites},
                self._neutral_of(neutral),
                self.generate,
                {
                    "model_id": self.model_id,
                    "model_revision": self.model_revision,
                    "model_width": self.width,
                    "n_layers": self.n_layers,
                    "n_heads": n_heads,
                    "capture_position": None,
                },
                batch_size=batch_size,
                checkpointing=checkpointing,
                choose=choose_layer,
                folder=folder,
                report=_report_on_stderr if progress else _report_nothing,
            )
            joint = isinstance(layer, Sequence) and not choose_layer
            return SteererSet(steerers) if joint else steerers[0]
        if neutral is not None or checkpointing or choose_layer:
            raise InvalidInputError(
                f"neutral, checkpointing and choose_layer are for EndToEnd; {type(method).__name__}"
                " is fitted to activations and has no use for them (odesteer tune chooses layers)."
            )
        if not isinstance(data, ContrastData):
            raise InvalidInputError(
                f"data is {data!r:.80}; give ContrastData, as in odesteer.load_contrast(path)."
            )
        provenance = {
            "model_id": self.model_id,
            "model_revision": self.model_revision,
            "model_width": self.width,
            "n_layers": self.n_layers,
            "n_heads": n_heads,
            "capture_position": position,
            "seed": seed,
        }
        examples, layers = (*data.positive, *data.negative), [site.layer for site in sites]
        width = sum(self._sites.of(site).width for site in sites)
        with spill_folder(self._n_rows(examples, position, k) * width, folder) as spill:
            activations = self.capture(
                examples,
                layers,
                position,
                part=part,
                k=k,
                seed=seed,
                batch_size=batch_size,
                folder=spill,
                progress=progress,
            )
            steerers = fit_steerers(method, activations, data, sites, provenance, self.template)
        return SteererSet(steerers) if isinstance(layer, Sequence) else steerers[0]

    def divergence(
        self,
        *steerers: Steerers,
        level: Quantity = None,
        T: Quantity = None,
        strength: Quantity = None,
        interpolation: Quantity = None,
        system: str | None = None,
        prompts: Sequence[Prompt] | None = None,
        split: Split = "validation",
        max_new_tokens: int = 32,
    ) -> Divergence:
        """What steering costs: KL(unsteered ‖ steered) on neutral text, nats a token.

        Neutral prompts are answered greedily by the unsteered model, with at most
        ``max_new_tokens``; both models then read these answers, and at each answer position the
        distributions over the next token are compared. The result has the mean over positions,
        and one figure for each text.

        ``steerers`` and the amount are as in `steering`; one quantity for all texts. ``system``
        measures the model with a system prompt instead (for models without a chat template a text
        in front), which is the cost of prompting. ``prompts`` are texts, asked as the user of a
        chat (``Q: …\\nA:`` where there is no chat template), or chats; by default the bundled
        ones of a ``split``: 80 for `train`, 40 others for `validation`, less those that do not fit
        in the model's context.

        Answers and distributions are kept for the next call, as long as the weights stay the
        same. Raises `ModelError` inside `steering`, and otherwise as `steering` does.
        """
        if (system is None) == (not steerers):
            raise InvalidInputError("give steerers or a system prompt, one of them.")
        texts = self.neutral_texts(prompts, split, max_new_tokens)
        if system is not None:
            return texts.divergence_of_prompt(system)
        amounts = Amounts.of(level=level, T=T, strength=strength, interpolation=interpolation)
        assignments = self._assignments(steerers, amounts, stacklevel=2)
        return texts.divergence(lambda ends: Steering(self._sites, assignments, PromptWidth(ends)))

    def neutral_texts(
        self,
        prompts: Sequence[Prompt] | None = None,
        split: Split = "validation",
        max_new_tokens: int = 32,
    ) -> NeutralTexts:
        """Neutral prompts answered by the unsteered model, as `divergence` has them."""
        return self._neutral_texts.get(self, prompts, split, max_new_tokens)

    def steering(
        self,
        *steerers: Steerers,
        level: Quantity = None,
        T: Quantity = None,
        strength: Quantity = None,
        interpolation: Quantity = None,
        prompt_width: int | Sequence[int] | None = None,
        receipt: bool = False,
        compiled: bool = False,
    ) -> Steering:
        """A context in which the forward passes of the model are steered, see `Steering`.

        Each of ``steerers`` is one (or a `SteererSet`) for all rows of a batch, or a list with
        one for each row (None: leave that row exactly as it is); several act one after another.
        The amount, given as one quantity, is a number or a list with one for each row (None
        likewise); without one each method takes its own default. Rows that generation multiplies
        (beams, several samples) keep theirs. A steerer with a gate leaves rows alone whose prompt
        does not meet its condition.

        What is moved depends on which tokens are prompt and which generated, not on how they are
        cut into passes. `generate` of transformers tells where the prompt ends. In other passes the
        first one over a sequence is the prompt, and what follows it (with its cache, or behind its
        tokens again) is generated; ``prompt_width`` says otherwise: how many columns of a batch are
        the prompt, one number, or one for each row where prompts are padded on the right.
        ``receipt`` records what happens for `Steering.receipt`. ``compiled`` keeps a compiled model
        compiled, see `Steering`.

        Everything is checked here, before anything is touched. Raises `ModelError` for a steerer
        that does not fit this model, `InvalidInputError` for an amount that does not fit the
        method, and warns with `ProvenanceWarning` where a steerer comes from another model.
        """
        amounts = Amounts.of(level=level, T=T, strength=strength, interpolation=interpolation)
        if not steerers and amounts.is_given:
            raise InvalidInputError(f"an amount ({amounts.value}) needs a steerer to apply it.")
        assignments = self._assignments(steerers, amounts, stacklevel=2)
        width: ThreadPromptWidth | PromptWidth = self._prompt_width
        if prompt_width is not None:
            width = PromptWidth(prompt_width)
            if compiled and len(width.ends or ()) > 1:
                raise InvalidInputError("compiled=True takes one prompt_width for all rows.")
        return Steering(
            self._sites,
            assignments,
            width,
            receipt=receipt,
            compiled=compiled,
            tokenizer=self.tokenizer,
        )

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
        stream: StreamCallback | Any | None = ...,
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
        stream: StreamCallback | Any | None = ...,
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
        stream: StreamCallback | Any | None = None,
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
        batch = [prompts] if is_one_prompt(prompts) else list(prompts)
        encoded = [
            self._encoder.prompt(prompt, f"prompt {i}")  # type: ignore[arg-type]
            for i, prompt in enumerate(batch)
        ]
        runner = GenerationRunner(
            self.model,
            self.tokenizer,
            self._sites,
            self._prompt_width,
            device=self.device,
            context=self.context,
            pad=pad_token_id(self.tokenizer, self.model),
            max_new_tokens=max_new_tokens,
            receipt=receipt,
            stream=stream,
            options=options,
        )
        runner.check(encoded)
        amounts = Amounts.of(level=level, T=T, strength=strength, interpolation=interpolation)
        if steerer is None and amounts.is_given:
            raise InvalidInputError(f"an amount ({amounts.value}) needs a steerer to apply it.")
        check_rows(len(batch), steerer, amounts)
        self._assignments([] if steerer is None else [steerer], amounts, stacklevel=2)
        self.check_evaluating()
        return runner.generate_all(encoded, steerer, amounts, batch_size, seed)

    def _neutral_of(self, prompts: Sequence[Prompt] | None) -> Callable[[Split], NeutralTexts]:
        """The neutral texts of each split; of given prompts every third is for validation."""
        if prompts is None:
            return lambda split: self.neutral_texts(split=split)
        if isinstance(prompts, str) or len(prompts) < 3:
            raise InvalidInputError(
                f"neutral must be a list of at least three prompts, not {prompts!r:.80}."
            )
        halves: dict[Split, list[Prompt]] = {
            split: [p for i, p in enumerate(prompts) if (i % 3 == 2) == (split == "validation")]
            for split in SPLITS
        }
        return lambda split: self.neutral_texts(halves[split])

    @cached_property
    def _neutral_texts(self) -> NeutralTextCache:
        return NeutralTextCache()

    def _assignments(
        self, steerers: Sequence[Steerers], amounts: Amounts, stacklevel: int
    ) -> list[RowAssignment]:
        """Row assignments of steerers, checked against this model."""
        assignments = assign_rows(steerers, amounts)
        origins = set()
        for assignment in assignments:
            assignment.check_meaning()
            for one in assignment.involved:
                self._sites.check(one)
                origins.add(one.provenance)
        for origin in sorted(origins, key=repr):
            warn_of_other_model(origin, self.model_id, self.model_revision, stacklevel + 1)
            warn_of_other_template(origin, self.chat_template_kwargs, stacklevel + 1)
        return assignments


def _report_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report_nothing(line: str) -> None:
    pass
