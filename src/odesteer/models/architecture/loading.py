"""Loading a model and its tokenizer from the hub, a folder or a GGUF file."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from odesteer.errors import InvalidInputError, MissingDependencyError, ModelError

# Options of `from_pretrained` that say which files are meant and how to get them.
_FILE_OPTIONS = (
    "cache_dir",
    "code_revision",
    "force_download",
    "local_files_only",
    "proxies",
    "subfolder",
    "token",
    "trust_remote_code",
)
_FILE_ON_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/([\w./-]+)")


@dataclass(frozen=True)
class ModelFiles:
    """Where transformers finds a model and its tokenizer.

    Attributes:
        name: id on the hub, or a folder.
        gguf_file: the GGUF file with all of it, if it is in one: the absolute path of a file here,
            or its path in the repository.
    """

    name: str
    gguf_file: str | None = None

    @classmethod
    def of(cls, source: str, gguf_file: str | None = None) -> "ModelFiles":
        """The files of an id, a folder, or a GGUF file (here, or as owner/name/file.gguf).

        Raises `ModelError` where a GGUF file is named that does not exist or is none.
        """
        path = Path(source)
        if gguf_file is not None:
            if path.is_file():
                raise InvalidInputError(
                    f"{source!r} is a file; with gguf_file={gguf_file!r} give the folder or hub id"
                    " that holds it."
                )
            return cls._in_folder(path, gguf_file) if path.is_dir() else cls(source, gguf_file)
        if not source.lower().endswith(".gguf") or path.is_dir():
            return cls(source)
        if path.is_file():
            return cls._in_folder(path.absolute().parent, path.name)
        on_hub = _FILE_ON_HUB.fullmatch(source)
        if on_hub is not None:
            return cls(*on_hub.groups())
        if source.count("/") == 1 and source[0].isalnum():
            return cls(source)
        raise ModelError(f"there is no file {source}.")

    @classmethod
    def _in_folder(cls, folder: Path, gguf_file: str) -> "ModelFiles":
        path = (folder / gguf_file).absolute()
        if not path.is_file():
            others = ", ".join(_gguf_files(folder)) or "no GGUF file"
            raise ModelError(f"there is no file {gguf_file!r} in {str(folder)!r}; it has {others}.")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{str(path)!r} is not a GGUF file: it does not begin with GGUF.")
        # The absolute path: transformers prefers a file of the same name in the current folder.
        return cls(str(folder), str(path))

    @property
    def options(self) -> dict[str, Any]:
        """``gguf_file``, where there is one, for ``from_pretrained``.

        Raises `MissingDependencyError` without the packages that read such files.
        """
        if self.gguf_file is None:
            return {}
        from transformers import utils

        if not (utils.is_gguf_available() and utils.is_accelerate_available()):
            raise MissingDependencyError(
                f"opening the GGUF file {self.gguf_file!r} needs gguf and accelerate; install them"
                " with: pip install 'odesteer[gguf]'"
            )
        return {"gguf_file": self.gguf_file}

    def label(self, config: Any) -> None:
        """Let a configuration name the file, not the folder it lies in."""
        if self.gguf_file is not None and Path(self.gguf_file).is_absolute():
            config._name_or_path = self.gguf_file


def load_model(
    id_or_folder: str,
    *,
    revision: str | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype,
    gguf_file: str | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """A causal or vision-language model, ready for inference, and its tokenizer.

    ``options`` go to `from_pretrained` of the model, those that concern files (``subfolder``,
    ``token``…) to that of the tokenizer too. Weights of a GGUF file are dequantised, unless a
    ``quantization_config`` says otherwise. Raises `ModelError` where either cannot be loaded.
    """
    from transformers import AutoTokenizer

    if device is not None and options.get("device_map") is not None:
        raise InvalidInputError(
            f"give device={device!r} or device_map={options['device_map']!r}, not both."
        )
    if device is None and options.get("device_map") is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if gguf_file is not None and options.get("subfolder"):
        gguf_file = f"{options.pop('subfolder')}/{gguf_file}"
    files = ModelFiles.of(id_or_folder, gguf_file)
    options |= files.options
    shared = {name: options[name] for name in (*_FILE_OPTIONS, "gguf_file") if name in options}
    if files.gguf_file is not None:
        _dequantise(options)
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.name, revision=revision, **shared)
        with _without_bar() if files.gguf_file is not None else nullcontext():
            model, report = _language_model(
                "from_pretrained",
                files.name,
                revision=revision,
                dtype=dtype,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError) as error:
        raise ModelError(_load_error_message(files, revision, error)) from error
    except Exception as error:
        if files.gguf_file is None:
            raise
        # Readers of damaged files fail in many ways.
        raise ModelError(_load_error_message(files, revision, error)) from error
    _check_weights(files, report)
    if files.gguf_file is not None:
        _forget_quantisation(model)
        files.label(model.config)
    if device is not None:
        model = model.to(device)
    return model.eval(), tokenizer


def _check_weights(files: ModelFiles, report: Mapping[str, Any]) -> None:
    """Raise `ModelError` where transformers has filled in random numbers for missing weights."""
    missing = sorted({str(name) for name in report.get("missing_keys") or ()})
    wrong = sorted({str(entry[0]) for entry in report.get("mismatched_keys") or ()})
    for what, names in (("lacks", missing), ("has in other shapes", wrong)):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            raise ModelError(
                f"the checkpoint {files.name!r} {what} weights that the model needs, which would be"
                f" random: {shown}. Get it again, or check that its config.json belongs to it."
            )


@contextmanager
def _without_bar() -> Iterator[None]:
    """Without the bar that the reader of GGUF files draws whatever the settings are."""
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = getattr(reader, "tqdm", None)
    if bar is None:
        yield
        return
    reader.tqdm = lambda items, *args, **kwargs: items
    try:
        yield
    finally:
        reader.tqdm = bar


def load_config(id_or_folder: str, *, revision: str | None) -> Any:
    """The configuration of a model, without its weights. Raises what `AutoConfig` does."""
    from transformers import AutoConfig

    files = ModelFiles.of(id_or_folder)
    config = AutoConfig.from_pretrained(files.name, revision=revision, **files.options)
    files.label(config)
    return config


def load_tokenizer(id_or_folder: str, *, revision: str | None) -> Any:
    """The tokenizer of a model, without its weights. Raises what `AutoTokenizer` does."""
    from transformers import AutoTokenizer

    files = ModelFiles.of(id_or_folder)
    return AutoTokenizer.from_pretrained(files.name, revision=revision, **files.options)


def load_outline(id_or_folder: str, *, revision: str | None) -> tuple[Any, Any]:
    """The structure of a model without its weights, on torch's meta device, and its tokenizer.

    Raises `ModelError` where there is no such model.
    """
    try:
        tokenizer = load_tokenizer(id_or_folder, revision=revision)
        config = load_config(id_or_folder, revision=revision)
        with torch.device("meta"):
            model = _language_model("from_config", config)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot look up the model {id_or_folder!r}: it is no folder here with a model and"
            f" its tokenizer, and could not be had from the Hugging Face hub."
            f" ({' '.join(str(error).split()):.300})"
        ) from error
    return model.eval(), tokenizer


def _language_model(constructor: str, source: Any, **options: Any) -> Any:
    """A model by that method of `AutoModelForCausalLM`, or of `AutoModelForImageTextToText` for
    vision-language models, most of which the former does not know."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        return getattr(AutoModelForCausalLM, constructor)(source, **options)
    except ValueError as error:
        try:
            return getattr(AutoModelForImageTextToText, constructor)(source, **options)
        except ValueError:
            raise error from None


def _dequantise(options: dict[str, Any]) -> None:
    """Ask for plain weights, where this version of transformers can leave them packed."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    if config is not None and options.get("quantization_config") is None:
        options["quantization_config"] = config(dequantize=True)


def _forget_quantisation(model: Any) -> None:
    """Let a dequantised model be an ordinary one, which `save_pretrained` saves."""
    quantizer = getattr(model, "hf_quantizer", None)
    if getattr(quantizer, "packed_modules", None):
        return
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _gguf_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")


def _load_error_message(files: ModelFiles, revision: str | None, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if files.gguf_file is not None and Path(files.gguf_file).is_file():
        return (
            f"cannot load the GGUF file {files.gguf_file!r}: it is damaged, or of an architecture"
            f" that transformers does not read from such files. ({text:.300})"
        )
    if Path(files.name).is_dir():
        found = sorted(path.name for path in Path(files.name).iterdir())
        packed = _gguf_files(Path(files.name))
        hint = f" To open a GGUF file, name it: {files.name}/{packed[0]}." if packed else ""
        return (
            f"the folder {files.name!r} holds no causal language model with its tokenizer that"
            f" transformers can load. It has {', '.join(found[:8]) or 'no files'}; it needs"
            " config.json, the weights and the tokenizer, as model.save_pretrained(folder) and"
            f" tokenizer.save_pretrained(folder) write them.{hint} ({text:.300})"
        )
    at = "" if revision is None else f" at revision {revision!r}"
    what = "" if files.gguf_file is None else f", with the file {files.gguf_file!r},"
    return (
        f"cannot load the model {files.name!r}{at}: it is no folder here, and could not be had"
        f" from the Hugging Face hub{what}. Check the spelling (owner/name, as in"
        " 'Qwen/Qwen2.5-0.5B-Instruct') and the connection; for a gated or private model run"
        f" `hf auth login`. ({text:.300})"
    )
