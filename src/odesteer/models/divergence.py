"""What steering costs: KL divergence to the unsteered model on neutral text, nats a token."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import torch
from torch import Tensor

from odesteer.data import Message
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models.architecture.layers import accepts_argument
from odesteer.models.observed_model import ObservedModel
from odesteer.models.steering.pass_tracker import is_steered
from odesteer.models.tokens.batches import batches_by_length, pad_batch
from odesteer.models.tokens.encoding import Encoded, Prompt
from odesteer.models.tokens.special_tokens import pad_token_id, stop_token_ids
from odesteer.untrusted import is_integer

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")

_BATCH = 8
_GENERATION_BATCH = 40
# Of distributions that are kept; where they would fill more, they are computed again each time.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Divergence:
    """KL divergence of the unsteered from the steered model, KL(unsteered ‖ steered), by text.

    Attributes:
        per_text: `[n]` float64, nats a token: the mean over the positions of each answer.
        tokens: `[n]`, the number of these positions.
    """

    per_text: Tensor
    tokens: Tensor

    @property
    def mean(self) -> float:
        """Nats a token: the mean over all answer positions of all texts."""
        return float((self.per_text * self.tokens).sum() / self.tokens.sum())

    @property
    def standard_error(self) -> float:
        """Of `mean`, nats a token; texts are drawn, and the tokens of one belong together.

        NaN for a single text.
        """
        n = len(self.tokens)
        residuals = (self.per_text - self.mean) * self.tokens / self.tokens.double().mean()
        return float(residuals.square().sum().div(n * (n - 1)).sqrt()) if n > 1 else math.nan


def neutral_prompts(split: Split | None = None) -> tuple[str, ...]:
    """The bundled prompts: 120 questions, requests, tasks and small talk about everyday things.

    Every third is for `validation`, the other 80 are for `train`; None gives all.
    """
    text = files("odesteer.models").joinpath("neutral_prompts.txt").read_text(encoding="utf-8")
    lines = tuple(text.splitlines())
    if split is None:
        return lines
    if split not in SPLITS:
        raise InvalidInputError(f"split must be {' or '.join(SPLITS)}, not {split!r}.")
    return tuple(line for i, line in enumerate(lines) if (i % 3 == 2) == (split == "validation"))


def as_question(lm: ObservedModel, text: str, system: str | None = None) -> Prompt:
    """A text as the user's message of a chat; for models without a chat template ``Q: …\\nA:``.

    ``system`` is the system prompt; without a template it stands in front.
    """
    if getattr(lm.tokenizer, "chat_template", None):
        messages = () if system is None else (Message("system", system),)
        return (*messages, Message("user", text))
    opening = "" if system is None else f"{system}\n\n"
    return f"{opening}Q: {text}\nA:"


def greedy_answers(
    lm: ObservedModel,
    prompts: Sequence[Encoded],
    max_new_tokens: int,
    batch_size: int = _GENERATION_BATCH,
) -> list[Encoded]:
    """Each prompt with the answer that the model itself gives greedily.

    The token that ends an answer belongs to it, so that no answer is empty.
    """
    if not hasattr(lm.model, "generate"):
        raise ModelError(
            f"{type(lm.model).__name__} cannot generate the answers to neutral prompts; load it"
            " with its language model head, as AutoModelForCausalLM does."
        )
    stops, pad = set(stop_token_ids(lm.model)), pad_token_id(lm.tokenizer, lm.model)
    answered: list[Encoded | None] = [None] * len(prompts)
    for batch in batches_by_length([len(prompt) for prompt in prompts], batch_size):
        inputs = pad_batch([prompts[i].ids for i in batch], pad, "left", lm.device)
        width = inputs["input_ids"].shape[1]
        with torch.no_grad():
            out = lm.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=pad,
            )
        for i, row in zip(batch, out[:, width:].tolist(), strict=True):
            end = next((n for n, token in enumerate(row) if token in stops), len(row) - 1)
            answered[i] = Encoded((*prompts[i].ids, *row[: end + 1]), len(prompts[i]))
    return [answer for answer in answered if answer is not None]


def answer_log_probabilities(
    lm: ObservedModel, texts: Sequence[Encoded], steering: "SteeringOfWidths | None" = None
) -> list[Tensor]:
    """For each text the log-probabilities `[tokens of its answer, vocabulary]`, float32, nats.

    Row t is the distribution that the answer's token t is chosen from. The texts are one batch,
    padded on the right; ``steering`` makes the context for it, given the length of each prompt.
    """
    pad = pad_token_id(lm.tokenizer, lm.model)
    inputs = pad_batch([text.ids for text in texts], pad, "right", lm.device)
    del inputs["position_ids"]  # with padding on the right the default positions are right
    ends = [text.n_prompt for text in texts]
    width = inputs["input_ids"].shape[1]
    options: dict[str, Any] = {}
    if accepts_argument(lm.model, "use_cache"):
        options["use_cache"] = False
    if accepts_argument(lm.model, "logits_to_keep"):
        options["logits_to_keep"] = width - min(ends) + 1
    with torch.no_grad(), nullcontext() if steering is None else steering(ends):
        logits: Tensor = lm.model(**inputs, **options).logits
    first = width - logits.shape[1]
    return [
        logits[row, text.n_prompt - 1 - first : len(text) - 1 - first].float().log_softmax(-1)
        for row, text in enumerate(texts)
    ]


def kl_divergence(reference: Tensor, other: Tensor) -> Tensor:
    """KL(reference ‖ other) `[...]`, nats, of log-probabilities `[..., vocabulary]`."""
    p = reference.exp()
    return torch.where(p > 0, p * (reference - other), 0.0).sum(-1)


SteeringOfWidths = Callable[[list[int]], AbstractContextManager[Any]]
"""Makes the context in which a batch is steered, given the number of prompt tokens of each row."""


class NeutralTexts:
    """Neutral prompts, the answers of the unsteered model, and its distributions there.

    Args:
        lm: the model; no steering may be enabled.
        prompts: texts, which become questions (`as_question`), or chats.
        max_new_tokens: the most tokens of an answer.

    Attributes:
        questions: the prompts.
        texts: the encoded prompts with their answers.

    Raises `InvalidInputError` for prompts that leave no room for an answer in the model's
    context, `ModelError` inside a steering of the model.
    """

    def __init__(
        self, lm: ObservedModel, prompts: Sequence[Prompt], max_new_tokens: int = 32
    ) -> None:
        if not is_integer(max_new_tokens, 1):
            raise InvalidInputError(
                f"max_new_tokens must be a positive integer, not {max_new_tokens!r}."
            )
        if isinstance(prompts, str) or not prompts:
            raise InvalidInputError(
                f"prompts must be a list of texts or chats, not {prompts!r:.80}."
            )
        self._lm = lm
        self._check_unsteered()
        lm.check_evaluating()
        self.questions = tuple(prompts)
        encoded = [lm.encode(self._prompt(prompt)) for prompt in prompts]
        for i, one in enumerate(encoded):
            if lm.context is not None and len(one) + max_new_tokens > lm.context:
                raise InvalidInputError(
                    f"neutral prompt {i} has {len(one)} tokens and an answer {max_new_tokens},"
                    f" more than the model's context of {lm.context}; give shorter prompts= or a"
                    " smaller max_new_tokens."
                )
        self.texts = greedy_answers(lm, encoded, max_new_tokens)
        self._batches = batches_by_length([len(text) for text in self.texts], _BATCH)
        self._kept: dict[int, Tensor] = {}
        self._is_kept: bool | None = None

    def divergence(self, steering: SteeringOfWidths) -> Divergence:
        """Of the model in these contexts, one for each batch of texts padded on the right."""
        return self._measured(self.texts, steering)

    def divergence_of_prompt(self, system: str) -> Divergence:
        """Of the model that is given a system prompt, or a text in front of base models."""
        prompted = []
        for question, text in zip(self.questions, self.texts, strict=True):
            opening = self._lm.encode(self._prompt(question, system))
            answer = text.ids[text.n_prompt :]
            prompted.append(Encoded((*opening.ids, *answer), len(opening)))
        return self._measured(prompted, None)

    def reference(self, rows: Sequence[int]) -> list[Tensor]:
        """Log-probabilities `[tokens, vocabulary]` of the unsteered model at some answers."""
        if not all(row in self._kept for row in rows):
            self._check_unsteered()
            found = answer_log_probabilities(self._lm, [self.texts[row] for row in rows])
            if self._is_kept is None:
                n_tokens = sum(len(text.response) for text in self.texts)
                self._is_kept = 2 * n_tokens * found[0].shape[-1] <= _MOST_BYTES
            if not self._is_kept:
                return found
            self._kept |= {row: p.half().cpu() for row, p in zip(rows, found, strict=True)}
        # Normalised again, so that rounding never makes a divergence negative.
        return [self._kept[row].to(self._lm.device).float().log_softmax(-1) for row in rows]

    def _measured(self, texts: Sequence[Encoded], steering: SteeringOfWidths | None) -> Divergence:
        per_text = torch.zeros(len(texts), dtype=torch.float64)
        for batch, reference in self._references():
            after = answer_log_probabilities(self._lm, [texts[i] for i in batch], steering)
            for i, p, q in zip(batch, reference, after, strict=True):
                per_text[i] = kl_divergence(p, q).double().mean()
        return Divergence(per_text, torch.tensor([len(text.response) for text in self.texts]))

    def _references(self) -> Iterator[tuple[list[int], list[Tensor]]]:
        for batch in self._batches:
            yield batch, self.reference(batch)

    def _prompt(self, prompt: Prompt, system: str | None = None) -> Prompt:
        if isinstance(prompt, str):
            return as_question(self._lm, prompt, system)
        return prompt if system is None else (Message("system", system), *prompt)

    def _check_unsteered(self) -> None:
        if is_steered(self._lm.layers.owner):
            raise ModelError(
                "the unsteered model is needed to measure a divergence from it, and a steering of"
                " it is enabled; measure outside of the block."
            )


class NeutralTextCache:
    """The neutral texts of one model, kept while its weights stay the same."""

    def __init__(self) -> None:
        self._weights = ""
        self._texts: dict[Any, NeutralTexts] = {}

    def get(
        self,
        lm: ObservedModel,
        prompts: Sequence[Prompt] | None,
        split: Split,
        max_new_tokens: int,
    ) -> NeutralTexts:
        """The texts of these prompts, or of the bundled ones of a split.

        Bundled prompts that are too long for the model's context are left out.
        """
        weights = lm.content([], [])
        if weights != self._weights:
            self._weights, self._texts = weights, {}
        chosen = neutral_prompts(split) if prompts is None else prompts
        key = hashlib.sha256(repr((list(chosen), max_new_tokens)).encode()).hexdigest()
        if key not in self._texts:
            if prompts is None:
                chosen = _fitting(lm, neutral_prompts(split), max_new_tokens)
            self._texts[key] = NeutralTexts(lm, chosen, max_new_tokens)
        return self._texts[key]


def _fitting(lm: ObservedModel, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Those that leave room for an answer; raises `InvalidInputError` where there is none."""
    if lm.context is None:
        return list(prompts)
    fitting = []
    for prompt in prompts:
        try:
            n = len(lm.encode(as_question(lm, prompt)))
        except InvalidInputError:
            continue
        if n + max_new_tokens <= lm.context:
            fitting.append(prompt)
    if not fitting:
        raise InvalidInputError(
            f"no bundled prompt and an answer of {max_new_tokens} tokens fit in the model's"
            f" context of {lm.context}; give shorter prompts= or a smaller max_new_tokens."
        )
    return fitting
