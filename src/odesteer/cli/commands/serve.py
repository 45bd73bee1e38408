"""``odesteer serve``: a steered model behind OpenAI's API, and the playground page."""

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from odesteer.cli.arguments.options import (
    ChatTemplateKwargs,
    Debug,
    Device,
    Dtype,
    Json,
    ModelArgument,
    Revision,
)
from odesteer.cli.errors import UsageError, checking_usage
from odesteer.cli.help import LIMITS, MACHINE, NETWORK, STEERING
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.screen import Screen
from odesteer.errors import MissingDependencyError

if TYPE_CHECKING:
    from odesteer.serving import Engine

EngineName = Literal["hf", "vllm"]


def serve(
    model: ModelArgument = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A steerer, and what requests call it; repeat it for several. The bundled model"
            " has some for its worlds if none are named.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen; others need a --token.",
            rich_help_panel=NETWORK,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", help="0 takes any that is free.", rich_help_panel=NETWORK
        ),
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ODESTEER_TOKEN",
            metavar="WORD",
            help="What requests must bring along, as the API key of a client.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A page that may use the server from a browser, as in https://chat.example;"
            " repeat it.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which requests may call the server, behind a proxy; repeat it."
            "  [default: this machine's or, with a token, any]",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Refuse fields that change nothing and max_tokens above the limit.",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What requests call the model.  [default: its id, or bundled]",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    allow_upload: Annotated[
        bool,
        typer.Option(
            "--allow-upload", help="Let requests upload steerers.", rich_help_panel=STEERING
        ),
    ] = False,
    max_batch: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="The most texts that are written at a time.",
            rich_help_panel=LIMITS,
        ),
    ] = 64,
    max_batch_tokens: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="The most tokens, of prompts and texts, that are in memory at a time.",
            rich_help_panel=LIMITS,
        ),
    ] = 65536,
    prefill_chunk: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The most tokens of prompts between two tokens of the running texts."
            "  [default: 64 on a CPU, else 512]",
            rich_help_panel=LIMITS,
            show_default=False,
        ),
    ] = None,
    max_queue: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="The most texts that wait.", rich_help_panel=LIMITS),
    ] = 256,
    max_new_tokens: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="The most tokens of one text.", rich_help_panel=LIMITS
        ),
    ] = 4096,
    # The earlier name of --max-new-tokens.
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", hidden=True)] = None,
    max_prompt: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="The most tokens of a prompt.", rich_help_panel=LIMITS
        ),
    ] = 32768,
    max_body: Annotated[
        int,
        typer.Option(min=1, metavar="BYTES", help="The largest request.", rich_help_panel=LIMITS),
    ] = 2**20,
    max_upload: Annotated[
        int,
        typer.Option(
            min=1, metavar="BYTES", help="The largest steerer to upload.", rich_help_panel=LIMITS
        ),
    ] = 2**26,
    request_timeout: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="In what time a request must have arrived.",
            rich_help_panel=LIMITS,
        ),
    ] = 60,
    max_connections: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="The most connections.", rich_help_panel=LIMITS),
    ] = 1024,
    grace: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="How long texts may be finished when it is to end.",
            rich_help_panel=LIMITS,
        ),
    ] = 60,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="What runs the model: transformers, or vLLM for scale.", rich_help_panel=MACHINE
        ),
    ] = "hf",
    vllm_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="A word for the command line of vLLM's server; repeat it.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a steered model over OpenAI's API.

    At / is a page to play with. Requests choose the steering: with a model name such as
    bundled+truth@1.5, or with the field steering. Examples:

    odesteer serve

    odesteer serve Qwen/Qwen2.5-0.5B-Instruct --steer truthful=truthful.safetensors
    """
    with Screen(json=json, debug=debug) as screen:
        files = _named_files(steer or [])
        choice = ModelChoice(model, revision, device, dtype, chat_template_kwargs)
        if engine == "vllm":
            if json:
                raise UsageError("--json is not for --engine vllm; leave it out.")
            _serve_vllm(choice, files, host, port, token, vllm_arg or [])
            return
        if vllm_arg:
            raise UsageError("--vllm-arg is for --engine vllm; leave it out.")
        try:
            from odesteer.serving import (
                BUNDLED,
                Engine,
                Settings,
                fitted_worlds,
                listening_socket,
                run,
            )
        except ImportError as error:
            raise MissingDependencyError(
                f"serving needs {error.name}; pip install 'odesteer[serve]'."
            ) from error

        from odesteer.artifact import load

        with checking_usage():
            settings = Settings(
                host=host,
                port=port,
                token=token,
                cors_origins=tuple(cors_origin or ()),
                allowed_hosts=None if allowed_host is None else tuple(allowed_host),
                strict=strict,
                request_timeout=request_timeout,
                max_connections=max_connections,
                allow_upload=allow_upload,
                max_tokens=max_new_tokens if max_tokens is None else max_tokens,
                max_prompt=max_prompt,
                max_body=max_body,
                max_upload=max_upload,
                grace=grace,
            )
        steerers = {called: load(file) for called, file in files.items()}
        screen.note(f"loading {model or 'the bundled model'} …")
        with listening_socket(settings) as listener, choice.opened(screen) as lm:
            called = name or (BUNDLED if model is None else lm.model_id) or "model"
            served = Engine(
                lm,
                called,
                max_batch=max_batch,
                max_queue=max_queue,
                max_batch_tokens=max_batch_tokens,
                prefill_chunk=prefill_chunk,
            )
            for each, steerer in steerers.items():
                served.steerers.add(each, steerer)
            if model is None and not steerers:
                for each, fitted in fitted_worlds(lm):
                    served.steerers.add(each, fitted)
                    screen.note(f"fitted {each}")
            run(served, settings, listener, lambda address: _announce(screen, address, served))
        screen.note("ended.")


def _announce(screen: Screen, address: str, engine: "Engine") -> None:
    """Print the addresses and names of a server that has started."""
    names = ", ".join(engine.steerers) or "none"
    screen.rows(
        {
            "page": f"{address}/",
            "API": f"{address}/v1",
            "model": engine.model_id,
            "steerers": names,
        }
    )
    first = next(iter(engine.steerers), None)
    if first is not None:
        screen.write(f"\nSteer with a model name such as {engine.model_id}+{first}@1.5")
    screen.document({"url": address, "model": engine.model_id, "steerers": list(engine.steerers)})
    screen.note("Ctrl-C ends it and finishes what runs.")


def _named_files(values: list[str]) -> dict[str, str]:
    """Files of steerers by name. Raises `UsageError` for values that are not NAME=FILE."""
    from odesteer.artifact import check_name

    files: dict[str, str] = {}
    for value in values:
        name, equals, file = value.partition("=")
        if not equals or not file:
            raise UsageError(f"--steer {value!r}: write NAME=FILE, as in truth=truth.safetensors.")
        with checking_usage():
            check_name(name)
        if name in files:
            raise UsageError(f"--steer names {name!r} twice; choose another name for one.")
        files[name] = file
    return files


def _serve_vllm(
    choice: ModelChoice,
    files: dict[str, str],
    host: str,
    port: int,
    token: str | None,
    vllm_arguments: list[str],
) -> None:
    """Replace this process by vLLM's server."""
    from odesteer.serving.settings import Settings
    from odesteer.vllm import serve as become_server

    with checking_usage():
        Settings(host=host, port=port, token=token)
        arguments = list(vllm_arguments)
        for option, value in (
            ("--revision", choice.revision),
            ("--dtype", choice.dtype),
            ("--default-chat-template-kwargs", choice.chat_template_kwargs),
        ):
            if value is not None:
                arguments += [option, value]
        if token is not None:
            os.environ["VLLM_API_KEY"] = (
                token  # not on the command line, which other users can read
            )
        if choice.device is not None:
            raise UsageError("--device is not for --engine vllm; set CUDA_VISIBLE_DEVICES.")
    become_server(str(choice.source), files, host=host, port=port, arguments=arguments)
