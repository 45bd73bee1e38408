"""Provenance: comparing the model a steerer was fitted on with the one it is used on."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odesteer.artifact import Provenance


class ProvenanceWarning(UserWarning):
    """A steerer is used on another model or revision, or with other template arguments, than it was
    fitted with."""


def model_name(id_or_folder: str) -> str | None:
    """A hub id as it is; of a folder or file only its own name, which means something elsewhere
    too."""
    if id_or_folder and Path(id_or_folder).is_dir():
        return Path(id_or_folder).resolve().name
    if id_or_folder and Path(id_or_folder).is_file():
        return Path(id_or_folder).name
    return id_or_folder or None


def warn_of_other_model(
    provenance: Provenance, model_id: str | None, revision: str | None, stacklevel: int
) -> None:
    """Issue a `ProvenanceWarning` where both sides are known and differ."""
    fitted, fitted_revision = provenance.model_id, provenance.model_revision
    if fitted and model_id and not _same(fitted, model_id):
        warnings.warn(
            f"this steerer was fitted on {fitted!r} and is used on {model_id!r};"
            " activations of different models rarely mean the same.",
            ProvenanceWarning,
            stacklevel=stacklevel + 1,
        )
    elif fitted_revision and revision and fitted_revision != revision:
        warnings.warn(
            f"this steerer was fitted on revision {fitted_revision} of {fitted!r} and is used on"
            f" revision {revision}.",
            ProvenanceWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_other_template(
    provenance: Provenance, arguments: Mapping[str, Any], stacklevel: int
) -> None:
    """Issue a `ProvenanceWarning` where chats were rendered with other template arguments."""
    fitted = dict(provenance.chat_template_kwargs)
    if provenance.chat_template_hash is not None and fitted != dict(arguments):
        warnings.warn(
            f"this steerer was fitted on chats with chat_template_kwargs={fitted} and is used with"
            f" {dict(arguments)}; give SteeredModel the same.",
            ProvenanceWarning,
            stacklevel=stacklevel + 1,
        )


def template_hash(tokenizer: Any) -> str | None:
    """sha256 of a tokenizer's chat template; None without one."""
    template = getattr(tokenizer, "chat_template", None)
    if template is None:
        return None
    return hashlib.sha256(str(template).encode()).hexdigest()


def _same(a: str, b: str) -> bool:
    """Whether two names agree; of a folder only the last part is known."""
    if "/" in a and "/" in b:
        return a == b
    return a.rpartition("/")[2] == b.rpartition("/")[2]
