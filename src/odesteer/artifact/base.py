"""Artifact: abstract base class of Steerer and SteererSet, with saving, loading and sharing."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from typing_extensions import Self

from odesteer.artifact import hub
from odesteer.artifact.card import Member, write_card
from odesteer.artifact.format import Content
from odesteer.artifact.limits import DEFAULT_LIMITS, NO_LIMITS, FileLimits
from odesteer.errors import ArtifactError
from odesteer.files import write_file
from odesteer.methods import Amount

T = TypeVar("T")


class Artifact(ABC):
    """A `Steerer` or a `SteererSet`: one file, one card, one repository."""

    @property
    @abstractmethod
    def members(self) -> tuple[Member, ...]:
        """Each of the steerers."""

    @property
    @abstractmethod
    def quantities(self) -> tuple[str, ...]:
        """The quantities of an amount that all its methods have, the default one first."""

    def check_amount(self, amount: Amount) -> None:
        """Raise `InvalidInputError` if a method has no such quantity."""
        for steerer in self.members:
            steerer.method.check_amount(amount)

    @abstractmethod
    def content(self) -> Content:
        """Its content as plain data."""

    @classmethod
    @abstractmethod
    def restored(cls, content: Content) -> Self:
        """The object that plain data describe. Raises `ArtifactError` for other data."""

    def digest(self) -> str:
        """sha256 (hexadecimal) of fitted methods, sites and gates; origins are not part of it."""
        return self.content().digest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to one safetensors file, whole or not at all.

        Equal steerers give equal files. Raises `ArtifactError` if the file cannot be written, and
        `InvalidInputError` if a method holds what cannot be saved.
        """
        write_file(Path(path), self.content().to_bytes())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, limits: FileLimits | None = DEFAULT_LIMITS
    ) -> Self:
        """Load a file onto the CPU, the same to the bit; nothing is fitted or unpickled.

        ``limits`` bounds what reading and applying it may cost; None, for files that you trust,
        bounds nothing. Raises `ArtifactError`, with the reason, for any other file.
        """
        return read(path, cls.restored, limits)

    def card(self) -> str:
        """A model card in Markdown."""
        return write_card(self)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the file and the card to a folder, as `push_to_hub` uploads them."""
        hub.write_folder(folder, self.content().to_bytes(), self.card())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload steerer",
    ) -> str:
        """Upload the file and the card to the Hugging Face hub; the address of the commit.

        The repository is made if there is none. Raises `MissingDependencyError` without
        huggingface_hub, and `ArtifactError` if the upload fails.
        """
        return hub.upload(
            repo_id,
            self.content().to_bytes(),
            write_card(self, repo_id),
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
        limits: FileLimits | None = DEFAULT_LIMITS,
    ) -> Self:
        """Load from a folder, a file, or a repository on the Hugging Face hub; see `load`.

        Raises `ArtifactError`, and `MissingDependencyError` without huggingface_hub.
        """
        return cls.load(hub.find_file(source, revision=revision, token=token), limits=limits)


def read(
    path: str | os.PathLike[str], restore: Callable[[Content], T], limits: FileLimits | None
) -> T:
    """Apply ``restore`` to the content of a file. Raises `ArtifactError` with the reason."""
    path = Path(path)
    try:
        return restore(Content.read(path, NO_LIMITS if limits is None else limits))
    except ArtifactError as error:
        raise ArtifactError(f"cannot load {path}: {error}") from error.__cause__
    except OSError as error:
        raise ArtifactError(f"cannot load {path}: {_reason(path, error)}") from None


def _reason(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "it is a folder; name a file, or use from_pretrained."
    if isinstance(error, FileNotFoundError):
        near = sorted(file.name for file in path.parent.glob("*.safetensors"))[:5]
        return f"there is no such file.{f' Steerers near it: {near}.' if near else ''}"
    return f"{error.strerror or error}."
