"""Sparse autoencoders of activations: files in sae-lens's layout, features, training."""

from odesteer.autoencoders.feature_names import named_by_tokens
from odesteer.autoencoders.sparse_autoencoder import ACTIVATIONS, SparseAutoencoder
from odesteer.autoencoders.top_k_training import TrainedAutoencoder, train_top_k

__all__ = [
    "ACTIVATIONS",
    "SparseAutoencoder",
    "TrainedAutoencoder",
    "named_by_tokens",
    "train_top_k",
]
