"""Which model the workers load: a name that is valid on every machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odesteer.errors import ModelError
from odesteer.models import SteeredModel
from odesteer.models.architecture.loading import load_outline
from odesteer.models.tokens.chat_template import checked_template_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelSource:
    """The name and loading options of a model.

    Attributes:
        name: id on the hub, or the absolute path of a folder or GGUF file; None for the bundled
            model.
        revision: of a model on the hub.
        device: where a worker runs it; None for the worker's GPU if it has one.
        dtype: its floating-point type.
        chat_template_kwargs: arguments of the chat template, as JSON.
    """

    name: str | None
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    chat_template_kwargs: str = "{}"

    @classmethod
    def of(
        cls,
        id_or_folder: str | Path | None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> "ModelSource":
        """As for `SteeredModel.from_pretrained`; a folder or file is made absolute."""
        name = None if id_or_folder is None else str(id_or_folder)
        if name is not None and Path(name).is_dir():
            name = str(Path(name).resolve())
        elif name is not None and Path(name).is_file():
            name = str(Path(name).absolute())
        arguments = json.dumps(checked_template_arguments(chat_template_kwargs))
        return cls(name, revision, device, dtype or "auto", arguments)

    def load(self, device: str) -> SteeredModel:
        """The model with its weights. Raises `ModelError` where there is none."""
        if self.name is not None and Path(self.name).is_absolute() and not Path(self.name).exists():
            raise ModelError(
                f"there is no folder or file {self.name} on this machine. Every worker loads the"
                " model itself: put it at the same path on all of them (a shared file system), or"
                " name a model on the hub."
            )
        return SteeredModel.from_pretrained(
            self._path(),
            revision=self.revision,
            device=device,
            dtype=self.dtype,
            chat_template_kwargs=json.loads(self.chat_template_kwargs),
        )

    def outline(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """The structure of the model without its weights, on torch's meta device, and its
        tokenizer. Raises `ModelError` where there is no such model."""
        return load_outline(self._path(), revision=self.revision)

    def _path(self) -> str:
        if self.name is not None:
            return self.name
        from odesteer.terrarium import model_path

        return str(model_path())
