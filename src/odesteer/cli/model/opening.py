"""Choose and open the model that a command works on."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from odesteer.cli.errors import UsageError, checking_usage
from odesteer.cli.output.screen import Screen
from odesteer.errors import ModelError
from odesteer.untrusted import parse_json

if TYPE_CHECKING:
    from odesteer.cluster import Cluster, ModelSource
    from odesteer.data import ContrastData
    from odesteer.models import SteeredModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PATH = re.compile(r"(\.{0,2}|~[\w.-]*)/\S*")
_GGUF_FILE = re.compile(r"\S+\.gguf", re.IGNORECASE)
_DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def looks_like_model(word: str) -> bool:
    """Whether an argument is a folder or GGUF file, has the form of a path, or is a hub id.

    Words such as "and/or" have the form of a hub id too. Unless a digit or a hyphen beside letters
    tells them apart, as in owner/name-7b, the model has to be in the local cache or on the hub.
    """
    if not word or "\n" in word:
        return False
    if _PATH.fullmatch(word) or _GGUF_FILE.fullmatch(word):
        return True
    path = Path(word)
    if len(word) < 256 and (path.is_dir() or (path.suffix == ".gguf" and path.is_file())):
        return True
    return has_form_of_hub_id(word) and (_is_distinctive(word) or _is_on_hub(word))


def has_form_of_hub_id(word: str) -> bool:
    """Whether an argument has the form owner/name."""
    return _HUB_ID.fullmatch(word) is not None


def _is_distinctive(hub_id: str) -> bool:
    """Whether an owner/name has what two words with a slash between them do not have."""
    owner, _, name = hub_id.partition("/")
    has_letters = all(re.search(r"[A-Za-z]", part) for part in (owner, name))
    return has_letters and re.search(r"[\d_-]", name) is not None


def _is_on_hub(hub_id: str) -> bool:
    """Whether a model is in the local cache, or on the hub as far as that can be reached."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(hub_id, "config.json"), str):
            return True
        return bool(HfApi().repo_exists(hub_id))
    # Whatever the connection raises: a model that cannot be had could not be loaded either.
    except Exception:
        return False


@dataclass(frozen=True)
class ModelChoice:
    """The options of the command line that choose the model.

    Attributes:
        name: id on the hub, folder or GGUF file; None for the bundled model.
        revision: of a model on the hub.
        device: of torch.
        dtype: its floating-point type.
        chat_template_kwargs: arguments of the chat template, as a JSON object.

    Raises `UsageError` for devices and types that do not exist.
    """

    name: str | None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    chat_template_kwargs: str | None = None

    def __post_init__(self) -> None:
        _ = self.template_arguments
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise UsageError(f"--dtype {self.dtype!r} is not one of {', '.join(_DTYPES)}.")
        if self.device is not None:
            _check_device(self.device)
        if self.revision is not None and (self.name is None or Path(self.name).exists()):
            what = "the bundled model"
            if self.name is not None:
                what = f"the {'folder' if Path(self.name).is_dir() else 'file'} {self.name}"
            raise UsageError(f"--revision is for models on the hub; {what} has none.")

    @property
    def source(self) -> str:
        """Id, folder or file, for ``from_pretrained``."""
        if self.name is not None:
            return self.name
        from odesteer.terrarium import model_path

        return str(model_path())

    @property
    def template_arguments(self) -> dict[str, Any]:
        """The arguments of the chat template. Raises `UsageError` for what is no JSON object."""
        if self.chat_template_kwargs is None:
            return {}
        from odesteer.models.tokens.chat_template import checked_template_arguments

        what = f"--chat-template-kwargs {self.chat_template_kwargs!r:.80}"
        given = parse_json(self.chat_template_kwargs, what, UsageError)
        with checking_usage():
            return checked_template_arguments({} if given is None else given)

    @property
    def argument(self) -> str:
        """The MODEL argument for a suggested command, with a trailing space; empty if bundled."""
        return "" if self.name is None else f"{quote(self.name)} "

    def worker_source(self) -> "ModelSource":
        """The model as workers load it."""
        from odesteer.cluster import ModelSource

        return ModelSource.of(
            self.name,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            chat_template_kwargs=self.template_arguments,
        )

    def config(self, screen: Screen) -> Any:
        """The configuration of the (text) model, without loading weights.

        None where loading the model gives a better error. Raises `ModelError` if there is no such
        model.
        """
        from odesteer.models.architecture.loading import load_config

        on_hub = self.name is not None and not Path(self.name).exists()
        if on_hub and _PATH.fullmatch(str(self.name)):
            kind = "file" if _GGUF_FILE.fullmatch(str(self.name)) else "folder"
            raise ModelError(f"there is no {kind} {self.name}.")
        if on_hub:
            screen.note(f"looking for {self.name} on the Hugging Face hub …")
        try:
            with quiet_libraries(bars=False):
                config: Any = load_config(self.source, revision=self.revision)
        except ModelError:
            raise
        except (OSError, ValueError) as error:
            if not on_hub or isinstance(error, ValueError):
                return None
            # Loading would repeat all attempts to connect.
            at = "" if self.revision is None else f" at revision {self.revision!r}"
            raise ModelError(
                f"there is no model {self.name!r}{at}: it is no folder here, and could not be had"
                " from the Hugging Face hub. Check the spelling (a folder, or owner/name) and the"
                f" connection. ({' '.join(str(error).split()):.200})"
            ) from error
        return getattr(config, "get_text_config", lambda decoder: config)(decoder=True)

    def n_layers(self, screen: Screen) -> int | None:
        """Number of decoder layers by the configuration, without loading weights.

        None where the configuration lacks it. Raises `ModelError` if there is no such model.
        """
        number = getattr(self.config(screen), "num_hidden_layers", None)
        return number if isinstance(number, int) else None

    def check_layers(self, layers: Sequence[int], screen: Screen) -> None:
        """Raise `UsageError` for layers that the model does not have, where its number is known."""
        for layer in layers:
            if layer < 0:
                raise UsageError(f"--layer {layer}: layers count from zero.")
            if layers.count(layer) > 1:
                raise UsageError(f"--layer {layer} is given twice; leave one out.")
        n_layers = self.n_layers(screen)
        if n_layers is not None and max(layers) >= n_layers:
            raise UsageError(
                f"--layer {max(layers)}: {self.name or 'the bundled model'} has {n_layers} decoder"
                f" layers, counted from zero: 0 to {n_layers - 1}."
            )

    def check_chats(self, data: "ContrastData") -> None:
        """Raise `InvalidInputError` for chats that the template refuses, before weights are loaded.

        The tokenizer alone is read, except from a GGUF file, where that takes as long as all of it.
        """
        examples = (*data.positive, *data.negative)
        packed = self.name is not None and _GGUF_FILE.fullmatch(self.name)
        if packed or not any(example.is_chat for example in examples):
            return
        from odesteer.models.architecture.loading import load_tokenizer
        from odesteer.models.tokens.chat_template import ChatTemplate

        try:
            with quiet_libraries(bars=False):
                tokenizer = load_tokenizer(self.source, revision=self.revision)
        except (OSError, ValueError):
            return  # loading the model gives the better error
        template = ChatTemplate(tokenizer, self.template_arguments)
        for i, example in enumerate(examples):
            if not isinstance(example.prompt, str):
                template.answered(example.prompt, example.response, f"example {i}")

    @contextmanager
    def opened(self, screen: Screen, cluster: "Cluster | None" = None) -> "Iterator[SteeredModel]":
        """The model, with logs of transformers and the hub off; raises `ModelError`.

        With a cluster, a `ClusterModel`: the workers load the weights, this process none.
        """
        from odesteer.models import SteeredModel

        bundled = self.name is None
        with (
            quiet_libraries(bars=screen.is_interactive and not bundled),
            _one_thread() if bundled else nullcontext(),
        ):
            if cluster is not None:
                from odesteer.cluster import ClusterModel

                source = self.worker_source()
                yield ClusterModel(*source.outline(), cluster, source)
                return
            yield SteeredModel.from_pretrained(
                self.source,
                revision=self.revision,
                device=self.device,
                dtype=self.dtype or "auto",
                chat_template_kwargs=self.template_arguments,
            )


@contextmanager
def quiet_libraries(*, bars: bool) -> Iterator[None]:
    """Turn off logs of transformers and the hub, and their progress bars unless ``bars``."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if had_bars:
            logging.enable_progress_bar()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread of torch.

    The bundled model is so small that more threads slow it down, many times on a busy machine.
    Results then do not depend on the number of cores either.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_device(device: str) -> None:
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UsageError(
            f"--device {device!r} is no device; use cpu, cuda, cuda:1, mps …"
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: there is no GPU that torch can use; try cpu.")
