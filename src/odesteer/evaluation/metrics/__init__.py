"""Metrics of texts and likelihoods, and bootstrap intervals."""

from odesteer.evaluation.metrics.aggregates import expected_maximum, product, wins
from odesteer.evaluation.metrics.bootstrap import Estimate, Observation, PairedBootstrap
from odesteer.evaluation.metrics.contrasts import holm, p_value, resolution
from odesteer.evaluation.metrics.likelihood import log_likelihoods, nll, perplexity
from odesteer.evaluation.metrics.multiple_choice import mc1, mc2, mc3
from odesteer.evaluation.metrics.ngrams import distinct, distinct_in_all, repetition

__all__ = [
    "Estimate",
    "Observation",
    "PairedBootstrap",
    "distinct",
    "distinct_in_all",
    "expected_maximum",
    "holm",
    "log_likelihoods",
    "mc1",
    "mc2",
    "mc3",
    "nll",
    "p_value",
    "perplexity",
    "product",
    "repetition",
    "resolution",
    "wins",
]
