"""Whether the model of a judge can be had, before anything is loaded: configuration and weights."""

import hashlib
from pathlib import Path
from typing import Any

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def why_not_loadable(model: str) -> str | None:
    """Why ``model``, a folder or a hub id, cannot be loaded, with the remedy; None if it can.

    Reads the configuration and looks for weights, in the folder, the cache or on the hub.
    """
    _, reason = read_config(model)
    return reason


def read_config(model: str) -> tuple[Any, str | None]:
    """The configuration of a model, and why it cannot be loaded; one of both is None."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model)
    # Of a hub id: whatever the network, the cache and the parsers raise.
    except Exception as error:
        return None, (
            f"the model {model!r} is neither a folder with a model nor one that can be had from the"
            f" hub here ({' '.join(str(error).split()):.200}). Name a folder or another model with"
            " the judge's option model=."
        )
    if _has_weights(model):
        return config, None
    return None, (
        f"the model {model!r} has a configuration but no weights ({', '.join(_WEIGHTS[::2])}) here"
        " or on the hub that can be reached; get them, or name another model with model=."
    )


def read_classifier_config(model: str) -> tuple[Any, str | None]:
    """As `read_config`, of a sequence classification model; other models are a reason not to."""
    config, reason = read_config(model)
    names = getattr(config, "architectures", None) or []
    if reason is None and names and not any("SequenceClassification" in name for name in names):
        return config, (
            f"{model!r} is no sequence classification model but {', '.join(names)}, and would"
            " answer at random; name another model with model=."
        )
    return config, reason


def _has_weights(model: str) -> bool:
    folder = Path(model)
    if folder.is_dir():
        return any(folder.glob("*.safetensors")) or any((folder / n).is_file() for n in _WEIGHTS)
    from huggingface_hub import HfApi, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(model, name), str) for name in _WEIGHTS):
        return True
    try:
        return any(HfApi().file_exists(model, name) for name in _WEIGHTS)
    except Exception:  # the network
        return False


def model_identity(model: str) -> dict[str, Any]:
    """What tells the files of a model in a folder from others of that name; a hub id says it.

    The names and sizes of its files and the digest of its configuration: reading the weights of a
    large judge would take longer than judging.
    """
    folder = Path(model)
    if not folder.is_dir():
        return {}
    config = folder / "config.json"
    return {
        "config": hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else None,
        "files": {
            path.name: path.stat().st_size
            for path in sorted(folder.iterdir())
            if path.suffix in (".safetensors", ".bin", ".json")
        },
    }
