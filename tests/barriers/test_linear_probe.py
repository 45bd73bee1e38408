"""How good a fit is beside a standardised linear probe, and what is said against it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from barrier_cases import MASSIVE, massive_contrast
from odesteer.barriers import PolynomialBarrier, UnitSphere, check_contrast
from odesteer.barriers.held_out import group_folds
from odesteer.barriers.linear_probe import concerns, probe_figures


def test_the_probe_is_logistic_regression_on_standardised_activations():
    contrast = check_contrast(*massive_contrast(60))
    x, y = contrast.examples.numpy(), contrast.labels.numpy()
    h = np.zeros(len(y))
    for mask in group_folds(contrast.groups, contrast.labels, 5, 0):
        held_out = mask.numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=1000))
        h[held_out] = model.fit(x[~held_out], y[~held_out]).decision_function(x[held_out])
    figures = probe_figures(contrast, 0.7)
    assert figures["linear_probe_auc"] == pytest.approx(roc_auc_score(y, h), abs=1e-3)
    assert 0 < figures["linear_probe_auc_error"] < 0.06
    assert figures["auc_error"] > figures["linear_probe_auc_error"]


def test_without_folds_there_is_no_probe():
    contrast = check_contrast(*massive_contrast(2))
    assert probe_figures(contrast, None) == {}


def test_a_barrier_that_misses_what_is_there_is_said_to():
    positive, negative = massive_contrast(100)
    negative[:, MASSIVE] = positive[torch.randperm(100), MASSIVE]
    barrier = PolynomialBarrier(inputs=UnitSphere()).fit(positive, negative)
    contrast = check_contrast(positive, negative)
    figures = {**barrier.held_out_, **probe_figures(contrast, barrier.held_out_["auc"])}
    (concern,) = concerns(figures)[-1:]
    assert "far behind" in concern


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, []),
        ({"log_loss": 0.7}, []),
        ({"auc": 0.9}, []),
        ({"auc": 0.56}, ["AUC 0.56: levels are near noise"]),
        ({"auc": 0.65, "auc_error": 0.1}, ["AUC 0.65: levels are near noise"]),
        ({"auc": 0.8, "linear_probe_auc": 0.82}, []),
        ({"auc": 0.8, "linear_probe_auc": 0.85, "linear_probe_auc_error": 0.03}, []),
        ({"auc": 0.8, "linear_probe_auc": 0.85, "linear_probe_auc_error": 0.02}, ["far behind"]),
        ({"auc": 0.56, "linear_probe_auc": 0.86}, ["near noise", "far behind the 0.86"]),
    ],
)
def test_what_is_said(figures, said):
    found = concerns(figures)
    assert len(found) == len(said)
    assert all(part in concern for part, concern in zip(said, found, strict=True))
