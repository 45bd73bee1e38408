"""Loading a model and its tokenizer from the hub or a folder."""

from pathlib import Path
from typing import Any

import torch

from odesteer.errors import InvalidInputError, ModelError


def load_model(
    id_or_folder: str,
    *,
    revision: str | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype,
    **options: Any,
) -> tuple[Any, Any]:
    """A causal language model, ready for inference, and its tokenizer.

    ``options`` go to `AutoModelForCausalLM.from_pretrained`. Raises `ModelError` where either
    cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if device is not None and options.get("device_map") is not None:
        raise InvalidInputError(
            f"give device={device!r} or device_map={options['device_map']!r}, not both."
        )
    if device is None and options.get("device_map") is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    shared = {
        name: options[name]
        for name in ("trust_remote_code", "cache_dir", "token", "local_files_only")
        if name in options
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(id_or_folder, revision=revision, **shared)
        model = AutoModelForCausalLM.from_pretrained(
            id_or_folder, revision=revision, dtype=dtype, **options
        )
    except (OSError, ValueError) as error:
        raise ModelError(_load_error_message(id_or_folder, revision, error)) from error
    if device is not None:
        model = model.to(device)
    return model.eval(), tokenizer


def _load_error_message(id_or_folder: str, revision: str | None, error: Exception) -> str:
    text = " ".join(str(error).split())
    if Path(id_or_folder).is_dir():
        files = sorted(path.name for path in Path(id_or_folder).iterdir())
        return (
            f"the folder {id_or_folder!r} holds no causal language model with its tokenizer that"
            f" transformers can load. It has {', '.join(files[:8]) or 'no files'}; it needs"
            " config.json, the weights and the tokenizer, as model.save_pretrained(folder) and"
            f" tokenizer.save_pretrained(folder) write them. ({text:.300})"
        )
    at = "" if revision is None else f" at revision {revision!r}"
    return (
        f"cannot load the model {id_or_folder!r}{at}: it is no folder here, and could not be had"
        " from the Hugging Face hub. Check the spelling (owner/name, as in"
        " 'Qwen/Qwen2.5-0.5B-Instruct') and the connection; for a gated or private model run"
        f" `hf auth login`. ({text:.300})"
    )
