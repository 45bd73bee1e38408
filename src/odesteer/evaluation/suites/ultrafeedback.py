"""Suite ``ultrafeedback`` (Cui et al., ICML 2024): helpfulness as in arXiv 2602.17560."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import DataError
from odesteer.evaluation.item import Item
from odesteer.evaluation.suites.base import DECODING_DIFFERENCES, PAPER_DECODING, Sizes, Suite
from odesteer.evaluation.suites.data_files import find, first, from_hub, read_rows, shuffled, unique
from odesteer.evaluation.task import Fold, Task

_DATASET = "HuggingFaceH4/ultrafeedback_binarized"
_COLUMNS = ("chosen", "rejected", "score_chosen", "score_rejected")
_NAMES = ("train_prefs.parquet", "train_prefs.jsonl", "test.jsonl.gz", "dpo_en_demo.json")
_FOLDERS = ("ultrafeedback_binarized", "preference-llamafactory", "hh-rlhf-harmless-test")
_REMEDY = (
    "Name a file of chosen/rejected pairs with --data, or leave --data out to get"
    f" {_DATASET} from the hub."
)
_SEED = 42
_FIT, _VALIDATION, _TEST = 10_000, 500, 500
_PREFERENCE_WORDS = 50
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_ASSISTANT = "\n\nAssistant:"


@dataclass(frozen=True)
class PreferencePair:
    """A prompt, as messages, with a better and a worse answer."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def text(self) -> str:
        return "\n".join(message.content for message in self.prompt)


class UltraFeedbackSuite(Suite):
    """Reward of answers, and wins against no steering."""

    name = "ultrafeedback"
    title = "UltraFeedback: reward of answers, and wins against no steering"
    full = Sizes(_FIT, _VALIDATION, _TEST)
    quick = Sizes(fit=40, validation=4, test=8)

    def tasks(self) -> tuple[Task, ...]:
        if self.data is None:
            train, test = (
                _pairs(from_hub(_DATASET, None, split, _COLUMNS, _REMEDY), _DATASET)
                for split in ("train_prefs", "test_prefs")
            )
            return self._tasks(train, test)
        path = find(self.data, _FOLDERS, _NAMES, _REMEDY)
        pairs = _pairs(read_rows(path), str(path))
        # One file: a quarter of its prompts is the test split.
        n = max(1, len(pairs) // 4)
        order = shuffled(pairs, f"ultrafeedback/{_SEED}")
        return self._tasks(order[n:], order[:n])

    def _tasks(
        self, train: Sequence[PreferencePair], test: Sequence[PreferencePair]
    ) -> tuple[Task, ...]:
        return (
            UltraFeedbackTask(train, test, self.sizes, chat=self.chat),
            UltraFeedbackPreference(train, test, self.sizes, chat=self.chat),
        )


class _PairTask(Task):
    """Fitted on better and worse answers; items are other prompts."""

    source = "Cui et al., ICML 2024; protocol of arXiv 2602.17560"

    def __init__(
        self,
        train: Sequence[PreferencePair],
        test: Sequence[PreferencePair],
        sizes: Sizes,
        *,
        chat: bool,
    ) -> None:
        tested = {pair.text for pair in test}
        known = unique([pair for pair in train if pair.text not in tested], lambda p: p.text)
        if len(known) < 2:
            raise DataError(f"{len(known)} pairs are left to fit on; give more data.")
        order = shuffled(known, f"ultrafeedback/{_SEED}/train")
        n = min(sizes.validation or _VALIDATION, max(1, len(order) // 5))
        self._validation = order[:n]
        self._fit = first(order[n:], sizes.fit)
        self._test = first(
            shuffled(unique(test, lambda p: p.text), f"ultrafeedback/{_SEED}/test"), sizes.test
        )
        self._chat = chat

    def folds(self, seed: int) -> tuple[Fold, ...]:
        groups = tuple(pair.text for pair in self._fit)
        data = ContrastData(
            tuple(self._example(pair, pair.chosen) for pair in self._fit),
            tuple(self._example(pair, pair.rejected) for pair in self._fit),
            groups,
            groups,
        )
        items = [tuple(map(self._item, part)) for part in (self._validation, self._test)]
        return (Fold("all", data, *items),)

    def _example(self, pair: PreferencePair, answer: str) -> Example:
        return Example(pair.prompt, answer) if self._chat else Example(f"{pair.text}\n", answer)

    def _item(self, pair: PreferencePair) -> Item:
        prompt: str | tuple[Message, ...] = pair.prompt if self._chat else f"{pair.text}\n"
        reference: dict[str, Any] = {"chosen": pair.chosen, "rejected": pair.rejected}
        return Item(pair.text, prompt, pair.text, reference)


class UltraFeedbackTask(_PairTask):
    """Answers with a higher reward of a reward model."""

    name = "ultrafeedback"
    title = "reward of answers"
    version = "2"
    differences = (
        "from a local file a quarter of the prompts is the test split",
        "no bigram of prompt and answer is repeated, as in the published script; the paper does"
        " not say so",
        "settings are chosen on the 500 validation pairs for every method",
        *DECODING_DIFFERENCES,
    )
    changelog = ("2: repetition penalty of the paper", "1: the first version")

    max_new_tokens = 128
    decoding = replace(
        PAPER_DECODING, options={**PAPER_DECODING.options, "no_repeat_ngram_size": 2}
    )
    judges = ("reward-model", "perplexity", "diversity")
    headline = "reward"
    wins = "reward"
    percentiles = ("reward",)
    instruction = "Give the most helpful, honest and complete answer that you can."


class UltraFeedbackPreference(_PairTask):
    """Log-odds of the better answer, which needs no judge and nothing that is generated."""

    name = "ultrafeedback-preference"
    title = "log-odds of the better answer against the worse one"
    version = "1"
    differences = (
        "not in the paper: likelihoods of the first fifty words of both answers",
        "from a local file a quarter of the prompts is the test split",
    )
    changelog = ("1: the first version",)
    kind = "choice"
    judges = ("choice-margin",)
    headline = "margin"

    def _item(self, pair: PreferencePair) -> Item:
        item = super()._item(pair)
        ends = [" ".join(text.split()[:_PREFERENCE_WORDS]) for text in (pair.chosen, pair.rejected)]
        if ends[0] == ends[1]:
            ends = [pair.chosen, pair.rejected]
        both = {"choices": ends, "labels": [1, 0]}
        return Item(pair.text, item.prompt, pair.text, {"mc1": both, "mc2": both})


def _pairs(rows: Sequence[dict[str, Any]], where: str) -> list[PreferencePair]:
    found = [pair for row in rows if (pair := _pair(row)) is not None]
    if not found:
        columns = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise DataError(
            f"{where} has no pairs of chosen and rejected answers (columns: {columns}). {_REMEDY}"
        )
    return found


def _pair(row: dict[str, Any]) -> PreferencePair | None:
    """A row in any of the usual formats; None for rows without a preference."""
    better, worse = row.get("score_chosen"), row.get("score_rejected")
    if better is not None and worse is not None and not better > worse:
        return None
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(row.get("conversations"), list):
        turns = [_message(turn) for turn in row["conversations"]]
        return _pair_of(turns, _content(chosen), _content(rejected))
    if isinstance(chosen, list) and isinstance(rejected, list):
        turns = [_message(turn) for turn in chosen[:-1]]
        return _pair_of(turns, _content(chosen[-1]), _content(rejected[-1]))
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return None
    if isinstance(row.get("prompt"), str):
        return _pair_of([Message("user", row["prompt"])], chosen, rejected)
    context, marker, answer = chosen.rpartition(_ASSISTANT)
    other_context, _, rejected_answer = rejected.rpartition(_ASSISTANT)
    if not marker or context != other_context:
        return None
    return _pair_of(_dialogue(context), answer, rejected_answer)


def _dialogue(text: str) -> list[Message]:
    """Messages of a transcript with 'Human:' and 'Assistant:'."""
    turns = []
    for part in text.replace(_ASSISTANT, "\n\nHuman:\0").split("\n\nHuman:"):
        role = "assistant" if part.startswith("\0") else "user"
        if part.strip("\0 \n"):
            turns.append(Message(role, part.strip("\0 \n")))
    return turns


def _message(turn: Any) -> Message:
    role = str(turn.get("role", turn.get("from")))
    return Message(_ROLES.get(role, role), _content(turn))


def _content(turn: Any) -> str:
    if isinstance(turn, dict):
        turn = turn.get("content", turn.get("value"))
    return turn if isinstance(turn, str) else ""


def _pair_of(turns: list[Message], chosen: str, rejected: str) -> PreferencePair | None:
    chosen, rejected = chosen.strip(), rejected.strip()
    if not turns or not chosen or not rejected or chosen == rejected:
        return None
    return PreferencePair(tuple(turns), chosen, rejected)
