"""Suite ``sentiment``: praise or panning, fitted on counterfactual film reviews (Kaushik 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from odesteer.data import ContrastData, Example
from odesteer.errors import DataError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.tfidf import is_for_judges
from odesteer.evaluation.suites.base import Sizes, Suite
from odesteer.evaluation.suites.data_files import field, find, first, read_rows, shuffled
from odesteer.evaluation.task import Fold, Task

PRAISE = (" great", " wonderful", " excellent", " brilliant")
PANNING = (" terrible", " awful", " boring", " bad")

_FOLDERS = ("cad-imdb/paired", "paired", "cad-imdb")
_FILE = "train_paired.tsv"
_REMEDY = (
    "Get sentiment/combined/paired of"
    " https://github.com/acmi-lab/counterfactually-augmented-data, and name its folder with"
    " --data."
)
_SEED = 42
_OPENING_WORDS = 12
_MOST_CHARACTERS = 1000


@dataclass(frozen=True)
class ReviewPair:
    """A review and its minimal rewriting with the other sentiment."""

    key: str
    positive: str
    negative: str

    @property
    def opening(self) -> str:
        """The first words of the negative one."""
        return " ".join(self.negative.split()[:_OPENING_WORDS])


class SentimentSuite(Suite):
    """Sentiment of continuations of reviews, by likelihood and by judges."""

    name = "sentiment"
    title = "film reviews: odds of praise, and sentiment of continuations"
    full = Sizes(400, 100, 200)
    quick = Sizes(fit=40, validation=4, test=8)
    needs_data = f"counterfactual reviews. {_REMEDY}"

    def tasks(self) -> tuple[Task, ...]:
        assert self.data is not None
        path = find(self.data, _FOLDERS, (_FILE,), _REMEDY)
        pairs = review_pairs(read_rows(path), str(path))
        own = [pair for pair in pairs if not is_for_judges(pair.key)]
        return (SentimentOdds(own, self.sizes), SentimentOfTexts(own, self.sizes))


def review_pairs(rows: Sequence[dict[str, Any]], where: str) -> list[ReviewPair]:
    """The pairs of a file; both reviews have at most 1,000 characters."""
    sides: dict[str, dict[str, str]] = {}
    for row in rows:
        side = str(field(where, row, "Sentiment"))
        text = " ".join(str(field(where, row, "Text")).replace("<br />", " ").split())
        sides.setdefault(str(field(where, row, "batch_id")), {})[side] = text
    found = [
        ReviewPair(key, side["Positive"], side["Negative"])
        for key, side in sides.items()
        if {"Positive", "Negative"} <= side.keys()
    ]
    short = [p for p in found if max(len(p.positive), len(p.negative)) <= _MOST_CHARACTERS]
    if len(short) < 6:
        raise DataError(f"{where} has {len(short)} pairs of short reviews, too few. {_REMEDY}")
    return short


class _ReviewTask(Task):
    """Fitted on whole reviews; items are beginnings of others."""

    version = "1"
    source = "counterfactually augmented IMDb reviews, Kaushik et al., ICLR 2020"
    changelog = ("1: the first version",)
    shared_differences: ClassVar[tuple[str, ...]] = (
        "reviews of at most 1,000 characters, of the half that trains no judge",
        "prompts are the first twelve words of the negative review, as plain text",
    )

    def __init__(self, pairs: Sequence[ReviewPair], sizes: Sizes) -> None:
        order = shuffled(pairs, f"sentiment/{_SEED}")
        n = len(order) // 2
        n_validation = max(1, n // 3)
        self._fit = first(order[:n], sizes.fit)
        held_out = order[n:]
        self._validation = first(held_out[:n_validation], sizes.validation)
        self._test = first(held_out[n_validation:], sizes.test)

    def folds(self, seed: int) -> tuple[Fold, ...]:
        groups = tuple(pair.key for pair in self._fit)
        data = ContrastData(
            tuple(Example("", pair.positive) for pair in self._fit),
            tuple(Example("", pair.negative) for pair in self._fit),
            groups,
            groups,
        )
        items = [tuple(map(self._item, part)) for part in (self._validation, self._test)]
        return (Fold("all", data, *items),)

    def _item(self, pair: ReviewPair) -> Item:
        raise NotImplementedError


class SentimentOdds(_ReviewTask):
    """Log-odds of words of praise against words of panning."""

    name = "sentiment-odds"
    title = "log-odds of praise after the beginning of a negative review"
    differences = (
        *_ReviewTask.shared_differences,
        "four words of praise and four of panning after 'Overall, this film is'",
    )
    kind = "choice"
    judges = ("choice-margin",)
    headline = "margin"

    def _item(self, pair: ReviewPair) -> Item:
        words = [*PRAISE, *PANNING]
        both = {"choices": words, "labels": [1] * len(PRAISE) + [0] * len(PANNING)}
        prompt = f"{pair.opening} … Overall, this film is"
        return Item(pair.key, prompt, pair.key, {"mc1": both, "mc2": both})


class SentimentOfTexts(_ReviewTask):
    """Sentiment of what the model writes."""

    name = "sentiment"
    title = "positive continuations of the beginnings of negative reviews"
    differences = (
        *_ReviewTask.shared_differences,
        "judged by a classifier of words that is trained on other reviews, VADER beside it; blank"
        " texts count as negative",
    )
    max_new_tokens = 30
    judges = ("small-sentiment", "vader", "form", "perplexity", "diversity")
    headline = "positive"
    instruction = "This is an enthusiastic review of a wonderful film."

    def _item(self, pair: ReviewPair) -> Item:
        reference = {"chosen": pair.positive, "rejected": pair.negative}
        return Item(pair.key, pair.opening, pair.key, reference)
