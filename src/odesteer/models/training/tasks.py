"""Tasks of training: the batches of an objective, its loss, and what held-out examples gain."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odesteer.data import ContrastData, Example
from odesteer.errors import InvalidInputError
from odesteer.methods import Distillation, Likelihood, Preference, Reward, TrainingObjective
from odesteer.models.architecture.sites import SiteModule
from odesteer.models.divergence import (
    NeutralTexts,
    answer_log_probabilities,
    greedy_answers,
    kl_divergence,
)
from odesteer.models.tokens.batches import batches_by_length
from odesteer.models.tokens.encoding import Encoded, Prompt
from odesteer.models.training.examples import (
    as_prompt,
    encoded_example,
    last_message,
    n_held_out,
    preference_pairs,
    prompts_of,
    split_groups,
)
from odesteer.models.training.replay import Move, Replay
from odesteer.models.training.state_batch import StateBatch

Moves = Mapping[SiteModule, Move]
Sampler = Callable[[list[Prompt]], list[list[str]]]
"""Answers that the steered model samples to each of some prompts."""

_MOST_BYTES = 1 << 30  # of distributions that are kept


@dataclass
class TaskBatch:
    """Some texts with what their loss needs.

    Attributes:
        states: the texts, with the states below the sites.
        before: `[n]`, log-likelihood of each answer under the unsteered model, nats.
        reference: log-probabilities `[tokens, vocabulary]` that the answers are to have, float16.
        weights: `[n]`, how much each answer counts.
    """

    states: StateBatch
    before: Tensor
    reference: Tensor | None = None
    weights: Tensor | None = None

    @property
    def n_tokens(self) -> Tensor:
        """Tokens of each answer, `[n]`."""
        return self.states.n_tokens


class TrainingTask(ABC):
    """An objective with its data.

    Attributes:
        train, held_out: batches.
        gain_name: what `gains` are, for messages.
    """

    gain_name = "gain in log-odds, nats"

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.train: list[TaskBatch] = []
        self.held_out: list[TaskBatch] = []

    def begin_epoch(self, sample: Sampler) -> None:  # noqa: B027
        """Called before each epoch."""

    @abstractmethod
    def outcomes(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """What the steered model does with each item of a batch `[m]`, differentiable in the moves:
        one pass, from which `loss` and `gains` follow."""

    @abstractmethod
    def loss(self, batch: TaskBatch, outcomes: Tensor) -> Tensor:
        """The loss of a batch."""

    @abstractmethod
    def gains(self, batch: TaskBatch, outcomes: Tensor) -> Tensor:
        """What each item of a batch gains over the unsteered model, `[m]`."""

    def log_likelihoods(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """Of each answer `[n]`, nats."""
        return answer_log_likelihoods(self.replay.logits(batch.states, moves), batch.states)

    def activations(self) -> dict[SiteModule, Tensor]:
        """What is moved in the training texts at each site, `[m, d]`, of the unsteered model."""
        return activations_of(self.train, self.replay.sites)


def activations_of(
    batches: Sequence[TaskBatch], sites: Sequence[SiteModule]
) -> dict[SiteModule, Tensor]:
    """What is moved in the texts of batches at each site, `[m, d]`, of the unsteered model."""
    return {
        site: torch.cat([batch.states.activations[site] for batch in batches]) for site in sites
    }


def answer_log_likelihoods(logits: Tensor, batch: StateBatch) -> Tensor:
    """Log-likelihood of each answer `[n]`, nats, from the logits of its tokens."""
    answers = batch.answers.to(logits.device)
    each = -torch.nn.functional.cross_entropy(logits, answers, reduction="none")
    return torch.stack([part.sum() for part in batch.by_text(each)])


class PreferenceTask(TrainingTask):
    """`Preference`: batches hold the chosen answers, then the rejected ones."""

    def __init__(
        self,
        replay: Replay,
        objective: Preference,
        train: Sequence[tuple[Encoded, Encoded]],
        held_out: Sequence[tuple[Encoded, Encoded]],
        batch_size: int,
    ) -> None:
        super().__init__(replay)
        self.beta = objective.beta
        for pairs, batches in ((train, self.train), (held_out, self.held_out)):
            sides = [replay.lengths(side) for side in zip(*pairs, strict=True)]
            lengths = [max(both) for both in zip(*sides, strict=True)]
            for rows in reversed(batches_by_length(lengths, batch_size)):
                texts = [pairs[i][side] for side in (0, 1) for i in rows]
                states, logits = replay.capture(texts)
                batches.append(TaskBatch(states, answer_log_likelihoods(logits, states).cpu()))

    def outcomes(self, batch: TaskBatch, moves: Moves) -> Tensor:
        gained = self.log_likelihoods(batch, moves) - batch.before.to(self.replay.lm.device)
        n = len(gained) // 2
        return gained[:n] - gained[n:]

    def loss(self, batch: TaskBatch, outcomes: Tensor) -> Tensor:
        return torch.nn.functional.softplus(-self.beta * outcomes).mean()

    def gains(self, batch: TaskBatch, outcomes: Tensor) -> Tensor:
        return outcomes


class LikelihoodTask(TrainingTask):
    """`Likelihood`, and with weights the policy gradient of `Reward`."""

    gain_name = "gain in log-likelihood, nats an answer"

    def add(
        self,
        texts: Sequence[Encoded],
        batches: list[TaskBatch],
        batch_size: int,
        weights: Tensor | None = None,
    ) -> None:
        """Capture texts, with their weights `[n]`."""
        for rows in reversed(batches_by_length(self.replay.lengths(texts), batch_size)):
            states, logits = self.replay.capture([texts[i] for i in rows])
            before = answer_log_likelihoods(logits, states).cpu()
            own = None if weights is None else weights[rows]
            batches.append(TaskBatch(states, before, weights=own))

    def outcomes(self, batch: TaskBatch, moves: Moves) -> Tensor:
        return self.log_likelihoods(batch, moves)

    def loss(self, batch: TaskBatch, outcomes: Tensor) -> Tensor:
        weights = torch.ones(len(outcomes)) if batch.weights is None else batch.weights
        return -(weights.to(outcomes) * outcomes).sum() / batch.n_tokens.sum()

    def gains(self, batch: TaskBatch, outcomes: Tensor) -> Tensor:
        gained = outcomes - batch.before.to(outcomes)
        return gained if batch.weights is None else gained * batch.weights.to(gained)


class DistillationTask(TrainingTask):
    """`Distillation`: the distributions of the prompted model at its own answers."""

    gain_name = "fall of the KL divergence to the prompted model, nats a token"

    def __init__(
        self,
        replay: Replay,
        objective: Distillation,
        train: Sequence[Prompt],
        held_out: Sequence[Prompt],
        batch_size: int,
    ) -> None:
        super().__init__(replay)
        lm = replay.lm
        for prompts, batches in ((train, self.train), (held_out, self.held_out)):
            plain = [lm.encode(as_prompt(lm, prompt)) for prompt in prompts]
            prompted = [lm.encode(as_prompt(lm, prompt, objective.system)) for prompt in prompts]
            answered = greedy_answers(lm, prompted, objective.max_new_tokens)
            texts = [
                Encoded((*short.ids, *text.ids[text.n_prompt :]), len(short))
                for short, text in zip(plain, answered, strict=True)
            ]
            for rows in reversed(batches_by_length(replay.lengths(texts), batch_size)):
                reference = answer_log_probabilities(lm, [answered[i] for i in rows])
                states, logits = replay.capture([texts[i] for i in rows])
                wanted = torch.cat(reference)
                before = _mean_kl(wanted, logits, states).cpu()
                batches.append(TaskBatch(states, before, reference=replay.keep(wanted.half())))

    def outcomes(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """KL(prompted ‖ steered) of each answer `[n]`, nats a token."""
        assert batch.reference is not None
        wanted = _normalised(batch.reference, self.replay.lm.device)
        return _mean_kl(wanted, self.replay.logits(batch.states, moves), batch.states)

    def loss(self, batch: TaskBatch, outcomes: Tensor) -> Tensor:
        n = batch.n_tokens
        return (outcomes * n.to(outcomes)).sum() / n.sum()

    def gains(self, batch: TaskBatch, outcomes: Tensor) -> Tensor:
        return batch.before.to(outcomes) - outcomes


class RewardTask(LikelihoodTask):
    """`Reward`: answers are sampled anew before each epoch."""

    gain_name = "gain of the judge's score"

    def __init__(
        self,
        replay: Replay,
        objective: Reward,
        train: Sequence[Prompt],
        held_out: Sequence[Prompt],
        batch_size: int,
    ) -> None:
        super().__init__(replay)
        self.objective, self.batch_size = objective, batch_size
        self.prompts = list(train), list(held_out)

    def begin_epoch(self, sample: Sampler) -> None:
        for prompts, batches in zip(self.prompts, (self.train, self.held_out), strict=True):
            if batches is self.held_out and batches:
                continue  # the same held-out answers in every epoch
            batches.clear()
            texts, scores = self._judged(
                prompts, sample([as_prompt(self.replay.lm, one) for one in prompts])
            )
            advantages = scores - scores.mean(dim=1, keepdim=True)
            deviation = float(advantages.std())
            if not deviation > 0:
                raise InvalidInputError(
                    "the judge gives all answers to a prompt the same score, so nothing tells them"
                    " apart; use more samples, a higher temperature, or another judge."
                )
            self.add(texts, batches, self.batch_size, (advantages / deviation).flatten())

    def _judged(
        self, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]
    ) -> tuple[list[Encoded], Tensor]:
        """All answers encoded, and their scores `[prompts, samples]`."""
        judge, lm = self.objective.judge, self.replay.lm
        assert judge is not None
        texts, scores = [], []
        for prompt, several in zip(prompts, answers, strict=True):
            shown = prompt if isinstance(prompt, str) else last_message(prompt)
            row = []
            for answer in several:
                score = judge(shown, answer)
                if isinstance(score, bool) or not math.isfinite(score):
                    raise InvalidInputError(
                        f"the judge returned {score!r} for the answer {answer!r:.80}; it must"
                        " return a finite number."
                    )
                row.append(float(score))
                question = as_prompt(lm, prompt)
                opening = question if isinstance(question, str) else tuple(question)
                texts.append(lm.encode(Example(opening, answer or " ")))  # type: ignore[arg-type]
            scores.append(row)
        return texts, torch.tensor(scores)


class NeutralCost:
    """KL(unsteered ‖ steered) on neutral texts, differentiable, nats a token."""

    def __init__(self, replay: Replay, neutral: NeutralTexts, batch_size: int) -> None:
        self._replay = replay
        self.batches: list[TaskBatch] = []
        texts = neutral.texts
        n_tokens = sum(len(text.response) for text in texts)
        for rows in batches_by_length(replay.lengths(texts), batch_size):
            states, logits = replay.capture([texts[i] for i in rows])
            reference = None
            if 2 * n_tokens * logits.shape[-1] <= _MOST_BYTES:
                reference = replay.keep(logits.log_softmax(-1).half())
            self.batches.append(TaskBatch(states, torch.zeros(len(rows)), reference))

    def of_texts(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """The divergence on each text of a batch, `[n]`, nats a token."""
        if batch.reference is not None:
            reference = _normalised(batch.reference, self._replay.lm.device)
        else:
            with torch.no_grad():
                reference = self._replay.logits(batch.states, {}).log_softmax(-1)
        return _mean_kl(reference, self._replay.logits(batch.states, moves), batch.states)

    def loss(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """The mean over the tokens of a batch."""
        each, n = self.of_texts(batch, moves), batch.n_tokens
        return (each * n.to(each)).sum() / n.sum()

    def forever(self, generator: torch.Generator) -> Iterator[TaskBatch]:
        """Batches in random order, again and again."""
        while True:
            for i in torch.randperm(len(self.batches), generator=generator).tolist():
                yield self.batches[i]


def _normalised(logs: Tensor, device: torch.device) -> Tensor:
    """Log-probabilities in float32; normalised, so that rounding makes no divergence negative."""
    return logs.to(device).float().log_softmax(-1)


def _mean_kl(reference: Tensor, logits: Tensor, batch: StateBatch) -> Tensor:
    """KL(reference ‖ logits) of each answer `[n]`, the mean over its tokens."""
    each = kl_divergence(reference, logits.log_softmax(-1))
    return torch.stack([part.mean() for part in batch.by_text(each)])


def make_task(
    replay: Replay,
    objective: TrainingObjective,
    data: Any,
    batch_size: int,
    validation: float,
    seed: int,
) -> TrainingTask:
    """The task of an objective, its states captured, a share of its groups held out."""
    lm = replay.lm
    if isinstance(objective, (Distillation, Reward)):
        prompts = prompts_of(data)
        n = n_held_out(len(prompts), validation)
        order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
        train, held_out = [prompts[i] for i in order[n:]], [prompts[i] for i in order[:n]]
        kind = DistillationTask if isinstance(objective, Distillation) else RewardTask
        return kind(replay, objective, train, held_out, batch_size)  # type: ignore[arg-type]
    if not isinstance(data, ContrastData):
        raise InvalidInputError(
            f"data is {data!r:.80}; give ContrastData, as in odesteer.load_contrast(path)."
        )
    if isinstance(objective, Likelihood):
        texts: dict[str, list[Encoded]] = {}
        for i, (example, group) in enumerate(zip(data.positive, data.groups_positive, strict=True)):
            encoded = encoded_example(lm, example, f"positive example {i}")
            texts.setdefault(group, []).append(encoded)
        task = LikelihoodTask(replay)
        for chosen, batches in zip(
            split_groups(texts, validation, seed), (task.train, task.held_out), strict=True
        ):
            task.add(chosen, batches, batch_size)
        return task
    if isinstance(objective, Preference):
        halves = split_groups(preference_pairs(lm, data), validation, seed)
        return PreferenceTask(replay, objective, *halves, batch_size)
    raise InvalidInputError(f"{objective!r} is no objective that can be trained for.")
