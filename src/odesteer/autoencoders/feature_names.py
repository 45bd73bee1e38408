"""Names of features: the tokens on which they are most active."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from odesteer.autoencoders.sparse_autoencoder import SparseAutoencoder
from odesteer.errors import InvalidInputError

_BLOCK = 2048
_CANDIDATES = 12


def named_by_tokens(
    autoencoder: SparseAutoencoder, states: Tensor, tokens: Sequence[str], n_words: int = 4
) -> SparseAutoencoder:
    """The autoencoder with names: up to ``n_words`` different tokens of highest activation.

    ``states`` are activations `[n, d]`, ``tokens`` the text of the token of each. Features that are
    on nowhere get no name. Raises `InvalidInputError` where the two differ in number.
    """
    if len(states) != len(tokens):
        raise InvalidInputError(
            f"there are {len(tokens)} tokens for {len(states)} activations; give one for each."
        )
    best = torch.full((_CANDIDATES, autoencoder.n_features), -1.0)
    rows = torch.zeros(_CANDIDATES, autoencoder.n_features, dtype=torch.long)
    for start in range(0, len(states), _BLOCK):
        features = autoencoder.encode(states[start : start + _BLOCK])
        numbers = torch.arange(start, start + len(features))[:, None].expand_as(features)
        values = torch.cat([best, features])
        best, chosen = values.topk(_CANDIDATES, dim=0)
        rows = torch.cat([rows, numbers]).gather(0, chosen)
    names = {}
    for feature in (best[0] > 0).nonzero()[:, 0].tolist():
        on = rows[best[:, feature] > 0, feature].tolist()
        words = dict.fromkeys(word for row in on if (word := tokens[row].strip()))
        if words:
            names[feature] = ", ".join(list(words)[:n_words])
    return replace(autoencoder, names=names)
