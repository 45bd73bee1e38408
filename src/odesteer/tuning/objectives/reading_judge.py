"""A judge made from the data itself: what the unsteered model sees when it reads a text."""

from collections.abc import Sequence

import torch
from torch import Tensor

from odesteer.data import ContrastData, Example
from odesteer.errors import DataError
from odesteer.models import SteeredModel
from odesteer.tuning.objectives.prompts import Prompt, questions

N_FOLDS = 5


class ReadingJudge:
    """Logistic regression on activations of the unsteered model as it reads a text.

    A text is represented by the mean activation over its tokens after one of the later layers.
    The model that reads is never steered, and the examples that the judge learns from are none of
    those that steerers are fitted on. Learned is the difference between responses to the
    same prompts, see `questions`.

    It is a proxy: it can tell what the activations of its examples tell, and texts unlike any
    of those may fool it. ``auc`` says how well it tells groups that it has not seen.

    Parameters:
        lm: the model.
        data: contrastive data to learn from, at least two groups with both sides.
        layer: whose output is read; by default three quarters of the way up.
        batch_size: texts at a time.

    Attributes:
        auc: area under the ROC curve on groups left out.
    """

    def __init__(
        self,
        lm: SteeredModel,
        data: ContrastData,
        *,
        layer: int | None = None,
        batch_size: int = 16,
    ) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import GroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self.lm = lm
        self.layer = round(0.75 * (lm.n_layers - 1)) if layer is None else layer
        self.batch_size = batch_size
        examples: list[Example] = []
        labels: list[bool] = []
        groups: list[str] = []
        for question in questions(data):
            for label, side in zip((True, False), question.examples, strict=True):
                examples += side
                labels += [label] * len(side)
                groups += [question.group] * len(side)
        n_groups = len(set(groups))
        if n_groups < 4:
            raise DataError(
                f"a judge cannot be learned from {n_groups} groups; use more data, or the"
                " likelihood objective, which needs no judge."
            )
        states = self._states(examples).numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        folds = GroupKFold(min(N_FOLDS, n_groups // 2))
        try:
            unseen = cross_val_predict(
                model, states, labels, groups=groups, cv=folds, method="predict_proba"
            )[:, 1]
            self.auc = float(roc_auc_score(labels, unseen))
        except ValueError as error:  # a fold with one side only
            raise DataError(
                f"a judge cannot be learned from {n_groups} groups ({error}); use more data, or"
                " the likelihood objective, which needs no judge."
            ) from error
        self._model = model.fit(states, labels)
        self.n_examples = len(examples)
        self.digest = data.digest()

    def __call__(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float | None]:
        """The probability that each text is positive; None for blank ones."""
        written = [i for i, text in enumerate(texts) if text.strip()]
        values: list[float | None] = [None] * len(texts)
        if written:
            states = self._states([Example(prompts[i], texts[i]) for i in written])
            found = self._model.predict_proba(states.numpy())[:, 1]
            for i, probability in zip(written, found, strict=True):
                values[i] = float(probability)
        return values

    def about(self) -> dict[str, object]:
        """What it is, as plain data."""
        return {
            "judge": "logistic regression on activations of the unsteered model reading the text",
            "judge_layer": self.layer,
            "judge_examples": self.n_examples,
            "judge_auc": self.auc,
            "judge_data_digest": self.digest,
        }

    def _states(self, examples: Sequence[Example]) -> Tensor:
        """Mean activation over the tokens of each response, `[n, d]`."""
        captured = self.lm.capture(examples, self.layer, "answer", batch_size=self.batch_size)
        states, source = captured.states[self.layer].double(), captured.example
        total = torch.zeros(len(examples), states.shape[1], dtype=states.dtype)
        total.index_add_(0, source, states)
        counts = torch.bincount(source, minlength=len(examples))
        return total / counts.clamp_min(1)[:, None]
