"""Training of top-k sparse autoencoders on captured activations (Gao et al., arXiv 2406.04093)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odesteer.autoencoders.sparse_autoencoder import SparseAutoencoder
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.untrusted import is_integer

# A feature that was on in none of so many activations takes part in the auxiliary loss.
_DEAD_AFTER = 20_000
_AUXILIARY_WEIGHT = 1 / 32
_LARGEST_NORM = 10.0


@dataclass(frozen=True)
class TrainedAutoencoder:
    """A sparse autoencoder, and what it gives back of activations that it was not trained on.

    Attributes:
        autoencoder: the result.
        explained: share of the variance of held-out activations that it reconstructs.
        dead: share of the features that are on in no held-out activation.
        n_left_out: activations of outlying norm, which were not trained on.
    """

    autoencoder: SparseAutoencoder
    explained: float
    dead: float
    n_left_out: int


def train_top_k(
    states: Tensor,
    n_features: int,
    k: int = 32,
    *,
    epochs: int = 10,
    batch_size: int = 1024,
    learning_rate: float = 1e-3,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> TrainedAutoencoder:
    """Train on activations `[n, d]`; a tenth of them, at most 4,096, is held out.

    The loss is the squared error of the reconstruction from the k largest features, plus 1/32 of
    the error with which features that have not been on lately reconstruct what is left. Decoder
    rows have unit length in units of the activations' spread. Activations longer than ten median
    norms are left out: some tokens, mostly the first of a text, have norms that would be all that
    the features learn. ``progress`` gets each epoch and its mean loss. Raises `InvalidInputError`
    for settings that cannot be used, and `ConvergenceError` where the loss is not finite.
    """
    _check(states, n_features, k, epochs, batch_size, learning_rate)
    with torch.inference_mode(False), torch.enable_grad():
        norms = states.detach().float().norm(dim=1)
        usual = norms <= _LARGEST_NORM * norms.median()
        x = states.detach()[usual].float().clone()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(x), generator=generator)
        n_held_out = min(len(x) // 10, 4096)
        held_out, rows = x[order[:n_held_out]], order[n_held_out:]
        mean = x[rows].mean(dim=0)
        spread = float((x[rows] - mean).square().sum(dim=1).mean().sqrt())
        if not spread > 0:
            raise InvalidInputError("the activations do not vary; there are no features in them.")
        x = (x - mean) / spread
        network = _Network.drawn(x.shape[1], n_features, generator)
        optimiser = torch.optim.Adam(network.parameters, lr=learning_rate, betas=(0.9, 0.999))
        unused = torch.zeros(n_features)
        for epoch in range(1, epochs + 1):
            total, shuffled = 0.0, rows[torch.randperm(len(rows), generator=generator)]
            for batch in torch.split(shuffled, batch_size):
                loss, used = network.loss(x[batch], k, unused >= _DEAD_AFTER)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                network.normalise()
                unused = torch.where(used, 0.0, unused + len(batch))
                total += float(loss.detach()) * len(batch)
            if not math.isfinite(total):
                raise ConvergenceError(
                    f"training the autoencoder diverged in epoch {epoch}; use a learning rate"
                    f" below {learning_rate}."
                )
            if progress is not None:
                progress(epoch, total / len(rows))
    found = network.autoencoder(mean, spread, k, metadata or {})
    features = found.encode(held_out)
    error = (found.decode(features) - held_out).square().sum()
    variance = (held_out - held_out.mean(dim=0)).square().sum()
    dead = float((features > 0).any(dim=0).logical_not().float().mean())
    return TrainedAutoencoder(found, 1 - float(error / variance), dead, int((~usual).sum()))


@dataclass
class _Network:
    """The weights while they are trained, for inputs of mean 0 and mean square length 1."""

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor

    @classmethod
    def drawn(cls, d: int, m: int, generator: torch.Generator) -> "_Network":
        decoder = torch.nn.functional.normalize(torch.randn(m, d, generator=generator), dim=1)
        tensors = decoder.T.clone(), torch.zeros(m), decoder, torch.zeros(d)
        return cls(*(tensor.requires_grad_() for tensor in tensors))

    @property
    def parameters(self) -> list[Tensor]:
        return [self.encoder, self.encoder_bias, self.decoder, self.decoder_bias]

    def loss(self, x: Tensor, k: int, dead: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch `[n, d]`, and which features were on `[m]`."""
        u = (x - self.decoder_bias) @ self.encoder + self.encoder_bias
        kept = u.topk(k, dim=1)
        features = torch.zeros_like(u).scatter(1, kept.indices, kept.values.clamp_min(0.0))
        rest = x - features @ self.decoder - self.decoder_bias
        loss = rest.square().sum(dim=1).mean()
        n_dead = int(dead.sum())
        if n_dead:
            n_aux = min(n_dead, x.shape[1] // 2)
            candidates = u.masked_fill(~dead, -math.inf).topk(n_aux, dim=1)
            revived = torch.zeros_like(u).scatter(
                1, candidates.indices, candidates.values.clamp_min(0.0)
            )
            missed = (rest.detach() - revived @ self.decoder).square().sum(dim=1).mean()
            loss = loss + _AUXILIARY_WEIGHT * missed
        return loss, (features.detach() > 0).any(dim=0)

    def normalise(self) -> None:
        with torch.no_grad():
            self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp_min(1e-8))

    def autoencoder(
        self, mean: Tensor, spread: float, k: int, metadata: Mapping[str, Any]
    ) -> SparseAutoencoder:
        """The same for activations as they are: features in activation units."""
        encoder, bias, decoder, centre = (p.detach() for p in self.parameters)
        return SparseAutoencoder(
            encoder.clone(),
            spread * bias,
            decoder.clone(),
            mean + spread * centre,
            "topk",
            k=k,
            metadata=metadata,
        )


def _check(
    states: Tensor, n_features: int, k: int, epochs: int, batch_size: int, learning_rate: float
) -> None:
    counts = {"n_features": n_features, "k": k, "epochs": epochs, "batch_size": batch_size}
    for name, count in counts.items():
        if not is_integer(count, 1):
            raise InvalidInputError(f"{name} must be a positive integer, not {count!r}.")
    if k > n_features:
        raise InvalidInputError(f"k is {k}, more than the {n_features} features; use a smaller k.")
    if not 0 < learning_rate < math.inf:
        raise InvalidInputError(f"learning_rate must be positive, not {learning_rate!r}.")
    if states.ndim != 2 or len(states) < 100:
        raise InvalidInputError(
            f"an autoencoder is trained on at least 100 activations [n, d], not on"
            f" {tuple(states.shape)}; take more or longer texts."
        )
    if not bool(torch.isfinite(states).all()):
        raise InvalidInputError("the activations hold NaN or infinities.")
