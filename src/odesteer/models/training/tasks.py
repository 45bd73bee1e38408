"""Tasks of training: the batches of an objective, its loss, and what held-out examples gain."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import InvalidInputError
from odesteer.methods import Distillation, Likelihood, Preference, Reward, TrainingObjective
from odesteer.models.architecture.sites import SiteModule
from odesteer.models.divergence import NeutralTexts, as_question, greedy_answers, kl_divergence
from odesteer.models.observed_model import ObservedModel
from odesteer.models.tokens.batches import batches_by_length
from odesteer.models.tokens.encoding import Encoded, Prompt
from odesteer.models.training.replay import Move, Replay, StateBatch

Moves = Mapping[SiteModule, Move]
Sampler = Callable[[list[Prompt]], list[list[str]]]
"""Answers that the steered model samples to each of some prompts."""

_NEUTRAL_BATCH = 8
_MOST_BYTES = 1 << 30  # of distributions that are kept


@dataclass
class TaskBatch:
    """Some texts with what their loss needs.

    Attributes:
        states: the texts, with the states below the sites.
        before: `[n]`, log-likelihood of each answer under the unsteered model, nats.
        reference: for each text the log-probabilities that it is to have, float16.
        weights: `[n]`, how much each answer counts.
    """

    states: StateBatch
    before: Tensor
    reference: list[Tensor] = field(default_factory=list)
    weights: Tensor | None = None

    @property
    def n_tokens(self) -> Tensor:
        """Tokens of each answer, `[n]`."""
        return torch.tensor([len(text.response) for text in self.states.texts])


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
    def loss(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """The loss of a batch, differentiable in the moves."""

    @abstractmethod
    def gains(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """What each item of a batch gains over the unsteered model, `[m]`."""

    def log_likelihoods(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """Of each answer `[n]`, nats."""
        return answer_log_likelihoods(
            self.replay.log_probabilities(batch.states, moves), batch.states.texts
        )

    def activations(self) -> dict[SiteModule, Tensor]:
        """What is moved in the training texts at each site, `[m, d]`."""
        found: dict[SiteModule, list[Tensor]] = {site: [] for site in self.replay.sites}
        for batch in self.train:
            for site, states in self.replay.activations(batch.states).items():
                found[site].append(states)
        return {site: torch.cat(parts) for site, parts in found.items()}


def answer_log_likelihoods(logs: Sequence[Tensor], texts: Sequence[Encoded]) -> Tensor:
    """Log-likelihood of each answer `[n]`, nats, from the log-probabilities at its positions."""
    each = []
    for log, text in zip(logs, texts, strict=True):
        chosen = torch.tensor(text.ids[text.n_prompt :], device=log.device)
        each.append(log.gather(-1, chosen[:, None]).sum())
    return torch.stack(each)


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
            lengths = [max(map(len, pair)) for pair in pairs]
            for rows in reversed(batches_by_length(lengths, batch_size)):
                texts = [pairs[i][side] for side in (0, 1) for i in rows]
                states, logs = replay.capture(texts)
                batches.append(TaskBatch(states, answer_log_likelihoods(logs, texts)))

    def gains(self, batch: TaskBatch, moves: Moves) -> Tensor:
        gained = self.log_likelihoods(batch, moves) - batch.before.to(self.replay.lm.device)
        n = len(gained) // 2
        return gained[:n] - gained[n:]

    def loss(self, batch: TaskBatch, moves: Moves) -> Tensor:
        return torch.nn.functional.softplus(-self.beta * self.gains(batch, moves)).mean()


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
        for rows in reversed(batches_by_length([len(text) for text in texts], batch_size)):
            states, logs = self.replay.capture([texts[i] for i in rows])
            before = answer_log_likelihoods(logs, states.texts)
            own = None if weights is None else weights[rows]
            batches.append(TaskBatch(states, before, weights=own))

    def gains(self, batch: TaskBatch, moves: Moves) -> Tensor:
        gained = self.log_likelihoods(batch, moves) - batch.before.to(self.replay.lm.device)
        return gained if batch.weights is None else gained * batch.weights.to(gained)

    def loss(self, batch: TaskBatch, moves: Moves) -> Tensor:
        logs = self.log_likelihoods(batch, moves)
        weights = torch.ones(len(logs)) if batch.weights is None else batch.weights
        return -(weights.to(logs) * logs).sum() / batch.n_tokens.sum()


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
            plain = [lm.encode(_question(lm, prompt)) for prompt in prompts]
            prompted = [lm.encode(_question(lm, prompt, objective.system)) for prompt in prompts]
            answered = greedy_answers(lm, prompted, objective.max_new_tokens)
            for rows in reversed(batches_by_length([len(text) for text in answered], batch_size)):
                reference = replay.capture([answered[i] for i in rows])[1]
                answers = [answered[i].ids[answered[i].n_prompt :] for i in rows]
                texts = [
                    Encoded((*plain[i].ids, *answer), len(plain[i]))
                    for i, answer in zip(rows, answers, strict=True)
                ]
                states, logs = replay.capture(texts)
                before = _mean_kl(reference, logs)
                kept = [log.half().cpu() for log in reference]
                batches.append(TaskBatch(states, before.cpu(), reference=kept))

    def divergences(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """From the prompted to the steered model, of each answer `[n]`, nats a token."""
        device = self.replay.lm.device
        reference = [log.to(device).float().log_softmax(-1) for log in batch.reference]
        return _mean_kl(reference, self.replay.log_probabilities(batch.states, moves))

    def gains(self, batch: TaskBatch, moves: Moves) -> Tensor:
        divergences = self.divergences(batch, moves)
        return batch.before.to(divergences) - divergences

    def loss(self, batch: TaskBatch, moves: Moves) -> Tensor:
        divergences, n = self.divergences(batch, moves), batch.n_tokens
        return (divergences * n.to(divergences)).sum() / n.sum()


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
                prompts, sample([_question(self.replay.lm, one) for one in prompts])
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
            shown = prompt if isinstance(prompt, str) else _last_message(prompt)
            row = []
            for answer in several:
                score = judge(shown, answer)
                if isinstance(score, bool) or not math.isfinite(score):
                    raise InvalidInputError(
                        f"the judge returned {score!r} for the answer {answer!r:.80}; it must"
                        " return a finite number."
                    )
                row.append(float(score))
                question = _question(lm, prompt)
                opening = question if isinstance(question, str) else tuple(question)
                texts.append(lm.encode(Example(opening, answer or " ")))  # type: ignore[arg-type]
            scores.append(row)
        return texts, torch.tensor(scores)


def preference_pairs(
    lm: ObservedModel, data: ContrastData
) -> dict[str, list[tuple[Encoded, Encoded]]]:
    """Encoded pairs of a chosen and a rejected answer, by group.

    Within a group the first of both sides, the second of both, and so on, the shorter side serving
    again in turn. Raises `InvalidInputError` for pairs whose sides are identical, and where no
    group has both sides.
    """
    sides: dict[str, tuple[list[int], list[int]]] = {}
    for side, groups in enumerate(data.groups):
        for i, group in enumerate(groups):
            sides.setdefault(group, ([], []))[side].append(i)
    encoded = [
        [lm.encode_example(example, f"{name} example {i}") for i, example in enumerate(examples)]
        for name, examples in (("positive", data.positive), ("negative", data.negative))
    ]
    pairs: dict[str, list[tuple[Encoded, Encoded]]] = {}
    for group, (chosen, rejected) in sides.items():
        if not chosen or not rejected:
            continue
        for k in range(max(len(chosen), len(rejected))):
            i, j = chosen[k % len(chosen)], rejected[k % len(rejected)]
            if encoded[0][i].ids == encoded[1][j].ids:
                raise InvalidInputError(
                    f"positive example {i} and negative example {j} are identical, so neither can"
                    " be preferred; remove the pair."
                )
            pairs.setdefault(group, []).append((encoded[0][i], encoded[1][j]))
    if not pairs:
        raise InvalidInputError(
            "no group has a positive and a negative example, so there are no pairs to prefer one"
            " side of; give pairs, or use objective=Likelihood()."
        )
    return pairs


def prompts_of(data: Any) -> list[Prompt]:
    """Prompts from a list of texts or chats, or the different prompts of contrastive data."""
    if isinstance(data, ContrastData):
        found = [example.prompt for example in (*data.positive, *data.negative)]
        return list(dict.fromkeys(found))
    if isinstance(data, str) or not isinstance(data, Sequence) or not data:
        raise InvalidInputError(f"give a list of prompts (texts or chats), not {data!r:.80}.")
    return list(data)


class NeutralCost:
    """KL(unsteered ‖ steered) on neutral texts, differentiable, nats a token."""

    def __init__(self, replay: Replay, neutral: NeutralTexts) -> None:
        self._replay = replay
        self.batches: list[TaskBatch] = []
        texts = neutral.texts
        n_tokens = sum(len(text.response) for text in texts)
        kept = True
        for rows in batches_by_length([len(text) for text in texts], _NEUTRAL_BATCH):
            states, logs = replay.capture([texts[i] for i in rows])
            kept = 2 * n_tokens * logs[0].shape[-1] <= _MOST_BYTES
            reference = [log.half().cpu() for log in logs] if kept else []
            self.batches.append(TaskBatch(states, torch.zeros(len(rows)), reference))

    def of_texts(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """The divergence on each text of a batch, `[n]`, nats a token."""
        device = self._replay.lm.device
        if batch.reference:
            reference = [log.to(device).float().log_softmax(-1) for log in batch.reference]
        else:
            with torch.no_grad():
                reference = self._replay.log_probabilities(batch.states, {})
        return _mean_kl(reference, self._replay.log_probabilities(batch.states, moves))

    def loss(self, batch: TaskBatch, moves: Moves) -> Tensor:
        """The mean over the tokens of a batch."""
        each, n = self.of_texts(batch, moves), batch.n_tokens
        return (each * n.to(each)).sum() / n.sum()

    def forever(self, generator: torch.Generator) -> Iterator[TaskBatch]:
        """Batches in random order, again and again."""
        while True:
            for i in torch.randperm(len(self.batches), generator=generator).tolist():
                yield self.batches[i]


def _mean_kl(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    each = [kl_divergence(p, q).mean() for p, q in zip(reference, other, strict=True)]
    return torch.stack(each)


def _question(lm: ObservedModel, prompt: Prompt, system: str | None = None) -> Prompt:
    if isinstance(prompt, str):
        return as_question(lm, prompt, system)
    return prompt if system is None else (Message("system", system), *prompt)


def _last_message(chat: Sequence[Any]) -> str:
    last = chat[-1]
    return last.content if isinstance(last, Message) else str(last["content"])


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
        n = _n_held_out(len(prompts), validation)
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
            encoded = lm.encode_example(example, f"positive example {i}")
            texts.setdefault(group, []).append(encoded)
        task = LikelihoodTask(replay)
        for chosen, batches in zip(
            _split(texts, validation, seed), (task.train, task.held_out), strict=True
        ):
            task.add(chosen, batches, batch_size)
        return task
    if isinstance(objective, Preference):
        halves = _split(preference_pairs(lm, data), validation, seed)
        return PreferenceTask(replay, objective, *halves, batch_size)
    raise InvalidInputError(f"{objective!r} is no objective that can be trained for.")


def _n_held_out(n: int, share: float) -> int:
    if n < 3:
        raise InvalidInputError(
            f"{n} groups are too few to hold any out; give more pairs or prompts."
        )
    return max(1, round(share * n)) if share else 0


def _split(groups: Mapping[str, list[Any]], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """The items of groups to train on and of those held out."""
    names = sorted(groups)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {names[i] for i in order[: _n_held_out(len(names), share)]}
    train = [item for name in groups if name not in chosen for item in groups[name]]
    return train, [item for name in groups if name in chosen for item in groups[name]]
