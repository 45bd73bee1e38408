"""The Hugging Face hub: upload and download of steerers, and folders with the same files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from odesteer.artifact.card import HUB_ID, MARK
from odesteer.errors import ArtifactError, InvalidInputError, MissingDependencyError
from odesteer.files import write_file

FILE_NAME = "steerer.safetensors"
CARD_NAME = "README.md"


def write_folder(folder: str | os.PathLike[str], artifact: bytes, card: str) -> None:
    """Write ``steerer.safetensors`` and ``README.md`` to a folder, which is made if needed.

    Raises `ArtifactError` if it cannot, or if the folder has a README that is no card of a steerer.
    """
    folder = Path(folder)
    readme = folder / CARD_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if readme.exists() and MARK not in readme.read_text(encoding="utf-8", errors="replace"):
            raise ArtifactError(
                f"{readme} was not written by odesteer and would be overwritten; choose another"
                " folder."
            )
    except OSError as error:
        raise ArtifactError(f"cannot write to {folder}: {error.strerror or error}.") from error
    write_file(folder / FILE_NAME, artifact)
    write_file(readme, card.encode())


def upload(
    repo_id: str,
    artifact: bytes,
    card: str,
    *,
    private: bool | None,
    token: str | None,
    revision: str | None,
    commit_message: str,
) -> str:
    """See `Artifact.push_to_hub`."""
    api = _library().HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(folder, artifact, card)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
            )
        # Names that are no ids, the network, rights: each has its own class in the library.
        except Exception as error:
            raise ArtifactError(
                f"cannot upload to {repo_id!r}: {type(error).__name__}: {error}"
            ) from error
    return str(getattr(commit, "commit_url", None) or commit)


def find_file(source: str | os.PathLike[str], *, revision: str | None, token: str | None) -> Path:
    """The file of a steerer: a local one, the one in a local folder, or one fetched from the hub.

    A name that ends in ``.safetensors`` is never looked for on the hub. Raises `ArtifactError`, and
    `InvalidInputError` for a revision of something local.
    """
    path = Path(source)
    if path.exists():
        if revision is not None:
            raise InvalidInputError(
                f"revision={revision!r} is for the hub, but {path} is on this computer."
            )
        if path.is_file():
            return path
        if not (path / FILE_NAME).is_file():
            inside = sorted(file.name for file in path.glob("*.safetensors"))[:5]
            raise ArtifactError(
                f"the folder {path} has no {FILE_NAME}"
                f"{f'; it has {inside}, which can be named' if inside else ''}."
            )
        return path / FILE_NAME
    name = os.fspath(source)
    if name.endswith(".safetensors"):
        return path  # A file is meant; reading it names the files beside it.
    if not HUB_ID.fullmatch(name):
        raise ArtifactError(
            f"there is no file or folder {name!r}, and it is no name of the form owner/name on the"
            " hub."
        )
    library = _library()
    try:
        return Path(library.hf_hub_download(name, FILE_NAME, revision=revision, token=token))
    except Exception as error:
        raise ArtifactError(
            f"there is no file or folder {name!r} here, and no {FILE_NAME} could be fetched from"
            f" the hub: {type(error).__name__}: {error}"
        ) from error


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingDependencyError(
            "the hub needs huggingface_hub; install it with: pip install 'odesteer[hub]'"
        ) from None
    return huggingface_hub
