"""Running `generate` of transformers under steering, batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.architecture.sites import ModelSites
from odesteer.models.generation.result import Generation, generated_ids, generations
from odesteer.models.generation.seeding import batch_seed, seeded
from odesteer.models.generation.streaming import RowStreamer, StreamCallback, token_texts
from odesteer.models.steering.context import Steering
from odesteer.models.steering.positions import ThreadPromptWidth
from odesteer.models.steering.rows import Amounts, RowAssignment, Steerers, assign_rows, select_rows
from odesteer.models.tokens.batches import pad_batch
from odesteer.models.tokens.encoding import Encoded
from odesteer.models.tokens.special_tokens import stop_token_ids
from odesteer.untrusted import is_integer

_RESERVED = (
    "inputs",
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    "past_key_values",
    "streamer",
    "return_dict_in_generate",
    "max_length",
    "generation_config",
)


@dataclass
class GenerationRunner:
    """Generates from prompts; the fields are the arguments of `SteeredModel.generate`."""

    model: Any
    tokenizer: Any
    sites: ModelSites
    prompt_width: ThreadPromptWidth
    device: torch.device
    context: int | None
    pad: int
    max_new_tokens: int
    receipt: bool
    stream: StreamCallback | Any | None
    options: dict[str, Any]

    def check(self, prompts: Sequence[Encoded]) -> None:
        """Raise `ModelError` or `InvalidInputError` for what cannot be generated."""
        if not hasattr(self.model, "generate"):
            raise ModelError(
                f"{type(self.model).__name__} cannot generate; load it with its language model"
                " head, as AutoModelForCausalLM does."
            )
        reserved = [name for name in _RESERVED if name in self.options]
        if reserved:
            raise InvalidInputError(
                f"{reserved[0]} is not an option here: prompts are encoded, max_new_tokens and"
                " stream are given, and texts are returned. For full control call"
                " lm.model.generate(...) inside `with lm.steering(...)`."
            )
        n = self.max_new_tokens
        if not is_integer(n):
            raise InvalidInputError(f"max_new_tokens must be an integer, not {n!r}.")
        if n < 1:
            raise InvalidInputError(f"max_new_tokens must be positive, not {n}.")
        for i, prompt in enumerate(prompts):
            if self.context is not None and len(prompt) + n > self.context:
                room = self.context - len(prompt)
                raise InvalidInputError(
                    f"prompt {i} has {len(prompt)} tokens and {n} are to follow, more"
                    f" than the model's context of {self.context}; "
                    + (f"set max_new_tokens to {room} at most." if room else "shorten the prompt.")
                )
        beams = self._setting("num_beams") or 1
        for what, given in (("stream", self.stream is not None), ("receipt", self.receipt)):
            if given and beams > 1:
                raise InvalidInputError(
                    f"{what} does not go with num_beams={beams}: beams change places while they"
                    " grow. Sample, or decode greedily."
                )
        if hasattr(self.stream, "put") and len(prompts) > 1:
            raise InvalidInputError(
                f"a streamer of transformers shows one prompt, not {len(prompts)}; give a"
                " function stream(row, text)."
            )

    def generate_all(
        self,
        prompts: Sequence[Encoded],
        steerers: Steerers | None,
        amounts: Amounts,
        batch_size: int | None,
        seed: int | None,
    ) -> list[Any]:
        """Continue all prompts, a batch at a time."""
        size = len(prompts) if batch_size is None else batch_size
        if not is_integer(size) or size < min(1, len(prompts)):
            raise InvalidInputError(f"batch_size must be a positive integer, not {batch_size!r}.")
        done: list[Any] = []
        for start in range(0, len(prompts), max(size, 1)):
            part = slice(start, start + size)
            own = [] if steerers is None else [select_rows(steerers, part)]
            assignments = assign_rows(own, amounts.of_rows(part))
            with seeded(batch_seed(seed, start) if self._draws else None, self.device):
                done += self.generate_batch(prompts[part], assignments, start)
        return done

    def generate_batch(
        self, prompts: Sequence[Encoded], assignments: Sequence[RowAssignment], first_row: int
    ) -> list[str] | list[Generation]:
        """Continue one batch of prompts, the first of which is number ``first_row`` of all."""
        inputs = pad_batch([prompt.ids for prompt in prompts], self.pad, "left", self.device)
        width = inputs["input_ids"].shape[1]
        copies = self._setting("num_return_sequences") or 1
        ids = [prompt.ids for prompt in prompts for _ in range(copies)]
        stops = stop_token_ids(self.model, self.options.get("eos_token_id"))
        options = {"pad_token_id": self.pad, **self.options}
        if self._setting("stop_strings") is not None:
            options.setdefault("tokenizer", self.tokenizer)
        with Steering(
            self.sites,
            assignments,
            self.prompt_width,
            receipt=self.receipt,
            tokenizer=self.tokenizer,
        ) as steering:
            out = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=self.max_new_tokens,
                streamer=self._streamer(ids, stops, first_row * copies),
                **options,
            )
        rows = [generated_ids(row, stops, self.pad) for row in out[:, width:].tolist()]
        if self.receipt:
            gates = [steering.gates_of(i // copies) for i in range(len(rows))]
            return generations(self.tokenizer, ids, rows, steering.receipt(), width, gates)
        return ["".join(token_texts(self.tokenizer, *both)) for both in zip(ids, rows, strict=True)]

    @property
    def _draws(self) -> bool:
        """Whether generation may draw random numbers."""
        return bool(self._setting("do_sample")) or "custom_generate" in self.options

    def _streamer(self, ids: Sequence[Sequence[int]], stops: Sequence[int], first: int) -> Any:
        if self.stream is None or hasattr(self.stream, "put"):
            return self.stream
        call: StreamCallback = self.stream
        return RowStreamer(self.tokenizer, ids, stops, lambda row, text: call(first + row, text))

    def _setting(self, name: str) -> Any:
        """A generation option: as given, or else from the model's generation config."""
        given = self.options.get(name)
        config = getattr(self.model, "generation_config", None)
        return getattr(config, name, None) if given is None else given
