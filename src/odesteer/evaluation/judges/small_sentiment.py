"""Small judge of sentiment: a TF-IDF classifier of words, trained on film reviews."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

from odesteer.data.readers import read_tsv
from odesteer.errors import DataError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Scores
from odesteer.evaluation.judges.tfidf import Labelled, TfidfJudge, is_for_judges, is_held_out

_WORD = re.compile(r"[a-z']+")


class SmallSentiment(TfidfJudge[str]):
    """``positive``, the probability that a completion praises, from its words.

    Trained on counterfactual film reviews: the pairs of ``dev_paired.tsv``,
    and of ``train_paired.tsv`` the half of `is_for_judges`; the suite takes the other half.
    """

    name: ClassVar[str] = "small-sentiment"
    metrics = ("positive",)
    blank: ClassVar[Mapping[str, float]] = {"positive": 0.0}
    what: ClassVar[str] = "the probability that a completion is positive, by its words"
    files: ClassVar[tuple[str, ...]] = (
        "cad-imdb/paired/train_paired.tsv",
        "cad-imdb/paired/dev_paired.tsv",
    )
    origin: ClassVar[str] = "https://github.com/acmi-lab/counterfactually-augmented-data"

    def rows(self) -> list[Labelled[str]]:
        found = []
        for name in self.files:
            path = self.folder / name
            for row in read_tsv(path):
                fields = row.fields
                if not {"Sentiment", "Text", "batch_id"} <= fields.keys():
                    raise DataError(f"{path}, {row.place}: no 'Sentiment', 'Text' or 'batch_id'.")
                key = fields["batch_id"]
                if "train" in name and not is_for_judges(key):
                    continue
                text = " ".join(fields["Text"].replace("<br />", " ").split())
                group = f"{name} {key}"
                found.append(Labelled(text, fields["Sentiment"] == "Positive", group))
        return found

    def splits(self, rows: Sequence[Labelled[str]]) -> dict[str, list[bool]]:
        return {"unseen reviews": [is_held_out(row.group) for row in rows]}

    def features(self, what: str) -> list[str]:
        words = _WORD.findall(what.lower())
        return [*words, *(f"{a} {b}" for a, b in pairwise(words))]

    def _sample(self, item: Item, text: str) -> str:
        return text

    def _scores(self, probability: float) -> Scores:
        return {"positive": probability}
