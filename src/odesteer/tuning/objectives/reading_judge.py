"""Judge trained on the data: a linear probe on activations of the unsteered model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from odesteer.data import ContrastData, Example
from odesteer.errors import DataError
from odesteer.models import SteeredModel
from odesteer.tuning.objectives.prompts import Prompt, prompt_responses

N_FOLDS = 5


class ReadingJudge:
    """Logistic regression on activations of the unsteered model as it reads a text.

    A text is represented by the mean activation over its tokens after one of the later layers of
    the unsteered model. The training examples are disjoint from those that steerers are fitted
    on; both sides have the same prompts, see `prompt_responses`.

    It is a proxy, and unreliable on texts unlike its training examples. ``auc`` is its accuracy
    on groups left out.

    Parameters:
        lm: the model.
        data: contrastive data to train on, at least two groups with both sides.
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
        for responses in prompt_responses(data):
            for label, side in zip((True, False), responses.examples, strict=True):
                examples += side
                labels += [label] * len(side)
                groups += [responses.group] * len(side)
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
        """Description as plain data."""
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
