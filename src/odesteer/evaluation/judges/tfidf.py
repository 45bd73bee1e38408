"""Base of judges that are trained locally in seconds: logistic regression on TF-IDF features."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from odesteer.errors import DataError
from odesteer.evaluation.item import Item
from odesteer.evaluation.judges.base import Judge, Scores

T = TypeVar("T", bound=Hashable)

DATA_VARIABLE = "ODESTEER_DATA"
"""Environment variable that names the folder of data sets, ``data`` without it."""

_HELD_OUT = 0.2


@dataclass(frozen=True)
class Labelled(Generic[T]):
    """A labelled training example. Examples of one group are held out together."""

    what: T
    positive: bool
    group: str


class TfidfJudge(Judge, Generic[T]):
    """A logistic regression on TF-IDF features, trained at the first use on the user's files.

    It judges by words alone. Its accuracy on held-out rows is measured before it is trained on all
    rows, and reported by `about`.
    """

    what: ClassVar[str]
    """What is judged, for reports."""
    files: ClassVar[tuple[str, ...]]
    """Training files, relative to the folder of data sets."""
    origin: ClassVar[str]
    """Where the training files can be downloaded."""
    C: ClassVar[float] = 10.0
    """Inverse strength of the L2 penalty."""

    def __init__(self, *, data: str | None = None) -> None:
        self.data = data
        self._model: Any = None
        self._facts: dict[str, Any] = {}

    @property
    def folder(self) -> Path:
        """The folder of data sets."""
        return Path(self.data or os.environ.get(DATA_VARIABLE) or "data")

    def unavailable(self) -> str | None:
        for name in self.files:
            path = self.folder / name
            if not path.is_file():
                return (
                    f"it is trained on {path}, which is not there. It comes from {self.origin};"
                    f" put it there, or name the folder that holds {name} with data= or the"
                    f" environment variable {DATA_VARIABLE}."
                )
        return None

    def about(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "kind": "trained here",
            "what": self.what,
            "model": "TF-IDF logistic regression",
            "files": list(self.files),
            "origin": self.origin,
        }
        if self.unavailable() is None:
            self._train()
            facts |= self._facts
        return facts

    def identity(self) -> dict[str, Any]:
        """Digests of the training files: other files train another judge."""
        return {"sha256": {name: _digest(self.folder / name) for name in self.files}}

    @abstractmethod
    def rows(self) -> list[Labelled[T]]:
        """The training examples, in the order of the files. Raises `DataError` for other files."""

    @abstractmethod
    def features(self, what: T) -> list[str]:
        """The features of an example: words, word pairs and the like."""

    @abstractmethod
    def _sample(self, item: Item, text: str) -> T:
        """The example that a completion is classified as."""

    @abstractmethod
    def _scores(self, probability: float) -> Scores:
        """Scores from the probability of the positive class."""

    def splits(self, rows: Sequence[Labelled[T]]) -> dict[str, list[bool]]:
        """Named held-out sets to measure the accuracy on: for each row whether it is held out."""
        return {"unseen groups": [is_held_out(row.group) for row in rows]}

    def _judge(self, items: Sequence[Item], texts: Sequence[str]) -> list[Scores]:
        samples = [self._sample(item, text) for item, text in zip(items, texts, strict=True)]
        probabilities = self._train().predict_proba(samples)[:, 1]
        return [self._scores(float(probability)) for probability in probabilities]

    def _train(self) -> Any:
        if self._model is None:
            rows = self.rows()
            if len({row.positive for row in rows}) < 2:
                raise DataError(
                    f"the judge {self.name!r} learns from examples of both kinds, and"
                    f" {', '.join(str(self.folder / name) for name in self.files)} has"
                    f" {'one kind only' if rows else 'none'}."
                )
            held_out = {name: self._measure(rows, out) for name, out in self.splits(rows).items()}
            self._facts = {
                **self.identity(),
                "rows": len(rows),
                "held_out": held_out,
            }
            self._model = self._fit(rows)
        return self._model

    def _fit(self, rows: Sequence[Labelled[T]]) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        model = make_pipeline(
            TfidfVectorizer(analyzer=self.features, min_df=2, sublinear_tf=True),
            LogisticRegression(C=self.C, max_iter=500),
        )
        return model.fit([row.what for row in rows], [row.positive for row in rows])

    def _measure(
        self, rows: Sequence[Labelled[T]], is_out: Sequence[bool]
    ) -> dict[str, float] | None:
        """Accuracy on the held-out rows; None if there are too few."""
        import numpy as np
        from sklearn.metrics import balanced_accuracy_score, roc_auc_score

        test = [row for row, out in zip(rows, is_out, strict=True) if out]
        train = [row for row, out in zip(rows, is_out, strict=True) if not out]
        if any(len({row.positive for row in part}) < 2 for part in (test, train)):
            return None
        truth = np.array([row.positive for row in test])
        probability = self._fit(train).predict_proba([row.what for row in test])[:, 1]
        predicted = probability >= 0.5
        return {
            "accuracy": float((predicted == truth).mean()),
            "balanced_accuracy": float(balanced_accuracy_score(truth, predicted)),
            "auc": float(roc_auc_score(truth, probability)),
            "always_the_commoner": float(max(truth.mean(), 1 - truth.mean())),
            "rows": len(test),
        }


def is_held_out(group: str) -> bool:
    """Whether a group is among the held-out fifth, by its hash."""
    return _share(group) < _HELD_OUT


def is_for_judges(text: str) -> bool:
    """Whether a text of a file that suites and judges share is of the judges' half, by its hash.

    ``text`` is what its group has in common, such as the toxic sentence of a pair.
    """
    return _share("judge: " + " ".join(text.split())) < 0.5


def _share(text: str) -> float:
    """A hash of a text, 0 to 1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def _digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
