"""A fitted method with the place it acts at and its origin."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from odesteer import __version__
from odesteer.artifact import hub
from odesteer.artifact.atomic import write_whole
from odesteer.artifact.card import write_card
from odesteer.artifact.format import Content
from odesteer.artifact.provenance import Provenance
from odesteer.artifact.site import Site
from odesteer.artifact.state import decode, encode
from odesteer.errors import (
    ArtifactError,
    ConvergenceError,
    InvalidInputError,
    ModelError,
    OdesteerError,
)
from odesteer.estimator import Estimator
from odesteer.flows import Solution
from odesteer.methods import Amount, Method


@dataclass(frozen=True)
class Steerer:
    """A fitted method, where it acts (None: not bound to a model) and what it was fitted on.

    Raises `NotFittedError` for a method that is not fitted, and `InvalidInputError` if its width
    is not that of the model in the provenance, or its site not one of that model's layers.
    """

    method: Method
    site: Site | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise InvalidInputError(f"a steerer holds a fitted Method, not {self.method!r:.80}.")
        self.method.check_fitted()
        width, n_layers = self.provenance.model_width, self.provenance.n_layers
        if width is not None and width != self.width:
            raise InvalidInputError(
                f"the method was fitted on width {self.width}, but the model in its provenance has"
                f" width {width}."
            )
        if self.site is not None and n_layers is not None and self.site.layer >= n_layers:
            raise InvalidInputError(
                f"the site is layer {self.site.layer}, but the model in the provenance has"
                f" {n_layers} layers, counted from 0."
            )

    @property
    def width(self) -> int:
        """d, the width of the activations that the method steers."""
        return self.method.width_

    @property
    def barrier(self) -> Any:
        """The method's barrier; with methods that have none, no such attribute."""
        return self.method.barrier  # type: ignore[attr-defined]

    def steer(
        self,
        a: Tensor,
        *,
        level: float | Tensor | None = None,
        T: float | Tensor | None = None,
        strength: float | Tensor | None = None,
        interpolation: float | Tensor | None = None,
    ) -> Tensor:
        """As `Method.steer`: `[..., d] -> [..., d]`."""
        return self.method.steer(
            a, level=level, T=T, strength=strength, interpolation=interpolation
        )

    def solve(self, a: Tensor, amount: Amount | None = None) -> Solution:
        """As `Method.solve`: also tells what happened to each activation."""
        return self.method.solve(a, amount)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Steerer":
        """A copy whose floating-point tensors are on ``device`` in ``dtype``."""
        return replace(self, method=self.method.to(device, dtype))

    def check_width(self, width: int) -> None:
        """Raise `ModelError` unless activations of this width can be steered."""
        if width != self.width:
            fitted_on = self.provenance.model_id
            raise ModelError(
                f"this steerer was fitted on activations of width {self.width}"
                f"{f' (model {fitted_on!r})' if fitted_on else ''}, and the model has width"
                f" {width}; fit a steerer on this model."
            )

    def digest(self) -> str:
        """sha256 (hexadecimal) of the fitted method and its site; the origin is not part of it."""
        return self._content().digest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the steerer to one safetensors file, whole or not at all.

        Equal steerers give equal files. Raises `ArtifactError` if the file cannot be written, and
        `InvalidInputError` if the method holds what cannot be saved.
        """
        write_whole(Path(path), self._content().to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Steerer":
        """The steerer in a file, on the CPU, the same to the bit; nothing is fitted or unpickled.

        Raises `ArtifactError`, with the reason, for anything that is not a whole steerer.
        """
        path = Path(path)
        try:
            return cls._restored(Content.read(path))
        except ArtifactError as error:
            raise ArtifactError(f"cannot load {path}: {error}") from error.__cause__
        except OSError as error:
            raise ArtifactError(f"cannot load {path}: {_reason(path, error)}") from None

    def card(self) -> str:
        """A model card in Markdown."""
        return write_card(self)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the steerer and its card to a folder, as `push_to_hub` uploads them."""
        hub.save_pretrained(self, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload steerer",
    ) -> str:
        """Upload the steerer and its card to the Hugging Face hub; the address of the commit.

        The repository is made if there is none. Raises `MissingDependencyError` without
        huggingface_hub, and `ArtifactError` if the upload fails.
        """
        return hub.push_to_hub(
            self,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
    ) -> "Steerer":
        """The steerer in a folder, in a file, or in a repository of the Hugging Face hub.

        Raises `ArtifactError`, and `MissingDependencyError` without huggingface_hub.
        """
        return cls.load(hub.find_file(source, revision=revision, token=token))

    def _content(self) -> Content:
        spec, tensors = encode(self.method)
        provenance = self.provenance
        if provenance.odesteer_version is None:
            provenance = replace(provenance, odesteer_version=__version__)
        return Content(spec, tensors, self.site, provenance)

    @classmethod
    def _restored(cls, content: Content) -> "Steerer":
        method = cast(Method, decode(content.method, content.tensors, "method"))
        if not isinstance(method, Method):
            raise ArtifactError(f"its method is {type(method).__name__}, which is no Method.")
        _check_state(method, content)
        try:
            steerer = cls(method, content.site, content.provenance)
        except OdesteerError as error:
            raise ArtifactError(str(error)) from None
        _try_out(method)
        return steerer


def _check_state(method: Method, content: Content) -> None:
    """Check what every fitted method has learned."""
    width, norm = getattr(method, "width_", None), getattr(method, "mean_norm_", None)
    if type(width) is not int or width < 1 or type(norm) is not float or not norm >= 0:
        raise ArtifactError(f"its method has width {width!r} and mean norm {norm!r}.")
    # A width beyond all tensors would make the first call allocate whatever a file asks for.
    if not any(width <= tensor.numel() for tensor in content.tensors.values()):
        raise ArtifactError(f"its method has width {width}, but no tensor is as long.")
    for part in _parts(method):
        if getattr(part, "width_", width) != width:
            raise ArtifactError(
                f"its method has width {width}, but its {part.family} has width {part.width_}."  # type: ignore[attr-defined]
            )


def _parts(estimator: Estimator) -> list[Estimator]:
    values = [*estimator.get_params().values(), *estimator.learned().values()]
    parts = [value for value in values if isinstance(value, Estimator)]
    return [estimator, *(deeper for part in parts for deeper in _parts(part))]


def _try_out(method: Method) -> None:
    """Steer one activation: parameters and tensors that do not fit each other come to light."""
    a = torch.ones(1, method.width_)
    try:
        # A level may have no meaning where the barrier does not tell the classes apart; that is
        # no fault of the file, if there is another way to steer.
        amounts = [method.default_amount, *(Amount(name, 1.0) for name in method.quantities)]
        for amount in amounts:
            try:
                state = method.solve(a, amount).state
            except InvalidInputError:
                if amount is amounts[-1]:
                    raise
                continue
            if state.shape != a.shape:
                raise ArtifactError(f"it turns {tuple(a.shape)} into {tuple(state.shape)}.")
            return
    except ArtifactError:
        raise
    except ConvergenceError:
        return
    except Exception as error:
        raise ArtifactError(f"its parts do not fit together: {error}") from error


def _reason(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "it is a folder; name a file, or use Steerer.from_pretrained."
    if isinstance(error, FileNotFoundError):
        near = sorted(file.name for file in path.parent.glob("*.safetensors"))[:5]
        return f"there is no such file.{f' Steerers near it: {near}.' if near else ''}"
    return f"{error.strerror or error}."
