"""Metrics of texts and of likelihoods, and the statistics of their tables."""

from odesteer.evaluation.metrics.aggregates import expected_maximum, product, wins
from odesteer.evaluation.metrics.bootstrap import Cell, Estimate, PairedBootstrap
from odesteer.evaluation.metrics.likelihood import log_likelihoods, nll, perplexity
from odesteer.evaluation.metrics.multiple_choice import mc1, mc2, mc3
from odesteer.evaluation.metrics.ngrams import distinct, distinct_in_all, repetition

__all__ = [
    "Cell",
    "Estimate",
    "PairedBootstrap",
    "distinct",
    "distinct_in_all",
    "expected_maximum",
    "log_likelihoods",
    "mc1",
    "mc2",
    "mc3",
    "nll",
    "perplexity",
    "product",
    "repetition",
    "wins",
]
