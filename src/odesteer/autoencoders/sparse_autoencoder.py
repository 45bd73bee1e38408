"""A sparse autoencoder and its files: sae-lens's ``cfg.json`` and ``sae_weights.safetensors``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import InvalidInputError
from odesteer.files import write_file
from odesteer.untrusted import brief, is_integer, parse_json

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
NAMES = "feature_names.json"

ACTIVATIONS = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}
"""The activation function of each architecture of sae-lens that is read here."""

_MATRICES = ("W_enc", "b_enc", "W_dec", "b_dec")
_BLOCK = 4096
_LONGEST_NAME = 80


@dataclass(frozen=True)
class SparseAutoencoder:
    """Features f(a) ≥ 0, few of them above 0, whose decoder gives the activation back.

    With u = W_encᵀ(a - b_dec) + b_enc, or without b_dec where ``subtracts_bias`` is False, feature
    j is max(u_j, 0) for ``relu``; u_j where it is above its threshold, else 0, for ``jumprelu``;
    and max(u_j, 0) where it is among the ``k`` largest, else 0, for ``topk``.

    Attributes:
        encoder: W_enc `[d, m]`; ``encoder_bias`` b_enc `[m]`.
        decoder: W_dec `[m, d]`; ``decoder_bias`` b_dec `[d]`.
        activation: ``relu``, ``jumprelu`` or ``topk``.
        thresholds: `[m]` of ``jumprelu``, otherwise None.
        k: of ``topk``, otherwise None.
        subtracts_bias: sae-lens's ``apply_b_dec_to_input``.
        metadata: of ``cfg.json``, such as the model and the hook.
        names: what features are known by, for those that have a name.
    """

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    activation: str = "relu"
    thresholds: Tensor | None = None
    k: int | None = None
    subtracts_bias: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.encoder.ndim != 2 or not self.encoder.numel():
            raise InvalidInputError(
                f"the encoder of a sparse autoencoder is a matrix [d, m], not"
                f" {tuple(self.encoder.shape)}."
            )
        d, m = self.encoder.shape
        shapes = {"W_dec": (m, d), "b_enc": (m,), "b_dec": (d,)}
        found = {"W_dec": self.decoder, "b_enc": self.encoder_bias, "b_dec": self.decoder_bias}
        if self.activation not in ACTIVATIONS.values():
            raise InvalidInputError(
                f"the activation of a sparse autoencoder is one of"
                f" {', '.join(ACTIVATIONS.values())}, not {self.activation!r}."
            )
        if (self.activation == "jumprelu") != (self.thresholds is not None):
            raise InvalidInputError("a JumpReLU autoencoder has thresholds, and no other has them.")
        if self.thresholds is not None:
            shapes["threshold"], found["threshold"] = (m,), self.thresholds
        if self.activation == "topk" and not (is_integer(self.k, 1) and self.k <= m):
            raise InvalidInputError(
                f"k of a top-k autoencoder is a number of its {m} features, not {self.k!r}."
            )
        for name, shape in shapes.items():
            if tuple(found[name].shape) != shape:
                raise InvalidInputError(
                    f"{name} has the shape {tuple(found[name].shape)}; beside W_enc {(d, m)} it"
                    f" should be {shape}."
                )
        for name, tensor in {**found, "W_enc": self.encoder}.items():
            if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
                raise InvalidInputError(f"{name} does not hold finite numbers.")

    @property
    def width(self) -> int:
        """d, the width of the activations."""
        return int(self.encoder.shape[0])

    @property
    def n_features(self) -> int:
        """m, the number of features."""
        return int(self.encoder.shape[1])

    def pre_activations(self, a: Tensor) -> Tensor:
        """u: `[..., d] -> [..., m]`. Raises `InvalidInputError` for another width."""
        if a.shape[-1] != self.width:
            raise InvalidInputError(
                f"the activations have width {a.shape[-1]}, and the sparse autoencoder was trained"
                f" on width {self.width}; take one of the same model and layer."
            )
        offset = self.encoder_bias
        if self.subtracts_bias:
            offset = offset - self.decoder_bias @ self.encoder
        return a.to(self.encoder) @ self.encoder + offset

    def encode(self, a: Tensor) -> Tensor:
        """f(a): `[..., d] -> [..., m]`."""
        return self._activated(self.pre_activations(a))

    def decode(self, features: Tensor) -> Tensor:
        """The activations that features stand for, `[..., m] -> [..., d]`."""
        return features @ self.decoder + self.decoder_bias

    def gate_thresholds(self, a: Tensor) -> Tensor:
        """What u_j has to exceed for feature j to be on, `[m]`, from activations `[n, d]`.

        For ``topk`` that differs by activation; it is the mean over ``a`` of the k-th largest u,
        if positive, for every feature.
        """
        if self.thresholds is not None:
            return self.thresholds.clamp_min(0.0)
        if self.activation == "relu":
            return torch.zeros_like(self.encoder_bias)
        total = 0.0
        for block in torch.split(a, _BLOCK):
            least = self.pre_activations(block).topk(int(self.k or 1), dim=-1).values[..., -1]
            total += float(least.clamp_min(0.0).double().sum())
        return torch.full_like(self.encoder_bias, total / len(a))

    def name(self, feature: int) -> str:
        """What a feature is known by: its name here, its address on Neuronpedia, or nothing."""
        page = self.metadata.get("neuronpedia_id")
        default = f"neuronpedia.org/{page}/{feature}" if isinstance(page, str) else ""
        return self.names.get(feature, default)[:_LONGEST_NAME]

    @classmethod
    def load(cls, folder: str | Path) -> "SparseAutoencoder":
        """Read a folder as sae-lens saves it, in float32.

        Nothing is unpickled. Raises `InvalidInputError` for a folder that holds no sparse
        autoencoder, for architectures other than ReLU, JumpReLU and top-k, and for inputs that are
        normalised.
        """
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise InvalidInputError(
                f"{folder} has no {CONFIG}: name the folder of a sparse autoencoder as sae-lens"
                " saves it, or train one with odesteer sae."
            )
        try:
            config = parse_json((folder / CONFIG).read_bytes(), f"{folder / CONFIG}")
        except OSError as error:
            raise InvalidInputError(f"cannot read {folder / CONFIG}: {error}") from None
        if not isinstance(config, dict):
            raise InvalidInputError(f"{folder / CONFIG} holds {brief(config)}, no JSON object.")
        activation, k = _activation(config, folder)
        tensors = _tensors(folder / WEIGHTS)
        wanted = {*_MATRICES, *(["threshold"] if activation == "jumprelu" else [])}
        if missing := sorted(wanted - tensors.keys()):
            raise InvalidInputError(f"{folder / WEIGHTS} has no tensor {missing[0]!r}.")
        metadata = config.get("metadata")
        try:
            return cls(
                tensors["W_enc"],
                tensors["b_enc"],
                tensors["W_dec"],
                tensors["b_dec"],
                activation,
                tensors["threshold"] if activation == "jumprelu" else None,
                k,
                bool(config.get("apply_b_dec_to_input", True)),
                {**config, **(metadata if isinstance(metadata, dict) else {})},
                _names(folder / NAMES),
            )
        except InvalidInputError as error:
            raise InvalidInputError(f"{folder} holds no sparse autoencoder: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Write the three files into a folder, which is made. Raises `InvalidInputError`."""
        from safetensors.torch import save

        folder = Path(folder)
        architecture = {kind: name for name, kind in ACTIVATIONS.items()}[self.activation]
        config = {
            "architecture": architecture,
            "d_in": self.width,
            "d_sae": self.n_features,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": self.subtracts_bias,
            "normalize_activations": "none",
            "reshape_activations": "none",
            **({} if self.k is None else {"k": self.k, "rescale_acts_by_decoder_norm": False}),
            "metadata": dict(self.metadata),
        }
        tensors = {
            "W_enc": self.encoder,
            "b_enc": self.encoder_bias,
            "W_dec": self.decoder,
            "b_dec": self.decoder_bias,
            **({} if self.thresholds is None else {"threshold": self.thresholds}),
        }
        # Copies, since safetensors refuses tensors that share memory.
        stored = {
            name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for name, tensor in tensors.items()
        }
        names = {str(feature): name for feature, name in sorted(self.names.items())}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInputError(f"cannot make {folder}: {error}") from None
        write_file(folder / WEIGHTS, save(stored), InvalidInputError)
        if names:
            written = json.dumps(names, ensure_ascii=False, indent=0).encode()
            write_file(folder / NAMES, written, InvalidInputError)
        # Last, since a folder without it is read as none.
        write_file(folder / CONFIG, json.dumps(config, indent=1).encode(), InvalidInputError)

    def _activated(self, u: Tensor) -> Tensor:
        if self.thresholds is not None:
            return u * (u > self.thresholds)
        if self.activation == "topk":
            kept = u.topk(int(self.k or 1), dim=-1)
            return torch.zeros_like(u).scatter(-1, kept.indices, kept.values.clamp_min(0.0))
        return u.clamp_min(0.0)


def _activation(config: Mapping[str, Any], folder: Path) -> tuple[str, int | None]:
    """The activation function and k. Raises `InvalidInputError` for what is not read here."""
    architecture = config.get("architecture", "standard")
    kind = ACTIVATIONS.get(architecture) if isinstance(architecture, str) else None
    # Versions before 6 of sae-lens name the function beside the architecture.
    function = config.get("activation_fn_str", config.get("activation_fn"))
    arguments = config.get("activation_fn_kwargs")
    if kind == "relu" and function == "topk":
        kind = "topk"
        config = {**config, **(arguments if isinstance(arguments, dict) else {})}
    if kind is None:
        raise InvalidInputError(
            f"{folder} holds an autoencoder of the architecture {brief(architecture)}; read are"
            f" {', '.join(ACTIVATIONS)}."
        )
    for name in ("normalize_activations", "reshape_activations"):
        if config.get(name, "none") not in ("none", None):
            raise InvalidInputError(
                f"{folder} has {name} {brief(config[name])}; only 'none' is read. sae-lens folds a"
                " constant scale into the weights with fold_activation_norm_scaling_factor."
            )
    if kind == "topk" and config.get("rescale_acts_by_decoder_norm"):
        raise InvalidInputError(
            f"{folder} rescales features by decoder norms; fold them into the weights first"
            " (fold_W_dec_norm of sae-lens)."
        )
    return kind, config.get("k") if kind == "topk" else None


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read {path}: {error}") from None


def _names(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    content = parse_json(path.read_bytes(), str(path))
    if not isinstance(content, dict) or not all(
        key.isdecimal() and isinstance(name, str) for key, name in content.items()
    ):
        raise InvalidInputError(f"{path} is no JSON object of names by the numbers of features.")
    return {int(key): name for key, name in content.items()}
