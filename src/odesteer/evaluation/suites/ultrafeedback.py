"""Helpfulness on UltraFeedback (Cui et al., ICML 2024) as in arXiv 2602.17560."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import DataError
from odesteer.evaluation.item import Item
from odesteer.evaluation.suites.base import Sizes, Suite
from odesteer.evaluation.suites.data_files import find, first, from_hub, read_rows, shuffled, unique
from odesteer.evaluation.task import Decoding, Fold, Task

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
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_ASSISTANT = "\n\nAssistant:"


@dataclass(frozen=True)
class Pair:
    """A prompt, as messages, with a better and a worse answer."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def text(self) -> str:
        return "\n".join(message.content for message in self.prompt)


class UltraFeedback(Suite):
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
            return (Preference(train, test, self.sizes, chat=self.chat),)
        path = find(self.data, _FOLDERS, _NAMES, _REMEDY)
        pairs = _pairs(read_rows(path), str(path))
        # One file: a quarter of its prompts is the test split.
        n = max(1, len(pairs) // 4)
        mixed = shuffled(pairs, f"ultrafeedback/{_SEED}")
        return (Preference(mixed[n:], mixed[:n], self.sizes, chat=self.chat),)


class Preference(Task):
    """Answers that a reward model likes better."""

    name = "ultrafeedback"
    title = "reward of answers"
    version = "1"
    source = "Cui et al., ICML 2024; protocol of arXiv 2602.17560"
    differences = (
        "from a local file a quarter of the prompts is the test split",
        "perplexity under the steered model itself, unsteered, unless --perplexity-model names"
        " another",
    )
    changelog = ("1: the first version",)

    max_new_tokens = 128
    decoding = Decoding(options={"no_repeat_ngram_size": 2})
    judges = ("reward-model", "perplexity", "diversity")
    headline = "reward"
    wins = "reward"
    percentiles = ("reward",)
    instruction = "Give the most helpful, honest and complete answer that you can."

    def __init__(
        self, train: Sequence[Pair], test: Sequence[Pair], sizes: Sizes, *, chat: bool
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

    def _example(self, pair: Pair, answer: str) -> Example:
        return Example(pair.prompt, answer) if self._chat else Example(f"{pair.text}\n", answer)

    def _item(self, pair: Pair) -> Item:
        prompt: str | tuple[Message, ...] = pair.prompt if self._chat else f"{pair.text}\n"
        reference: dict[str, Any] = {"chosen": pair.chosen, "rejected": pair.rejected}
        return Item(pair.text, prompt, pair.text, reference)


def _pairs(rows: Sequence[dict[str, Any]], where: str) -> list[Pair]:
    found = [pair for row in rows if (pair := _pair(row)) is not None]
    if not found:
        columns = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise DataError(
            f"{where} has no pairs of chosen and rejected answers (columns: {columns}). {_REMEDY}"
        )
    return found


def _pair(row: dict[str, Any]) -> Pair | None:
    """One row of any of the usual forms; None for rows without a preference."""
    better, worse = row.get("score_chosen"), row.get("score_rejected")
    if better is not None and worse is not None and not better > worse:
        return None
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(row.get("conversations"), list):
        turns = [_message(turn) for turn in row["conversations"]]
        return _made(turns, _content(chosen), _content(rejected))
    if isinstance(chosen, list) and isinstance(rejected, list):
        turns = [_message(turn) for turn in chosen[:-1]]
        return _made(turns, _content(chosen[-1]), _content(rejected[-1]))
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return None
    if isinstance(row.get("prompt"), str):
        return _made([Message("user", row["prompt"])], chosen, rejected)
    opening, marker, answer = chosen.rpartition(_ASSISTANT)
    other, _, refused = rejected.rpartition(_ASSISTANT)
    if not marker or opening != other:
        return None
    return _made(_dialogue(opening), answer, refused)


def _dialogue(text: str) -> list[Message]:
    """Turns of a transcript with 'Human:' and 'Assistant:'."""
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


def _made(turns: list[Message], chosen: str, rejected: str) -> Pair | None:
    chosen, rejected = chosen.strip(), rejected.strip()
    if not turns or not chosen or not rejected or chosen == rejected:
        return None
    return Pair(tuple(turns), chosen, rejected)
