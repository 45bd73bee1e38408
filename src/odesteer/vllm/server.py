"""Start of vLLM's own server with steerers."""

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from odesteer.artifact import check_name
from odesteer.errors import InvalidInputError, MissingDependencyError

_MIDDLEWARE = "odesteer.vllm.middleware.SteeringFields"


def server_command(
    model: str,
    steerers: Mapping[str, str | os.PathLike[str]],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    arguments: Sequence[str] = (),
) -> tuple[list[str], dict[str, str]]:
    """The command that starts vLLM's OpenAI-compatible server, and its environment variables.

    Args:
        model: folder, or id on the Hugging Face hub.
        steerers: files, folders or ids on the hub, by the names that requests use.
        host, port: where it listens.
        arguments: further arguments of the server, such as ``("--tensor-parallel-size", "2")``.

    Raises `InvalidInputError` for names and paths that cannot be put into the environment variable.
    """
    for name, path in steerers.items():
        check_name(name)
        if "," in os.fspath(path):
            raise InvalidInputError(
                f"the path of the steerer {name!r} has a comma in it ({os.fspath(path)}), which"
                " separates steerers; rename it."
            )
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--host", host, "--port", str(port), "--middleware", _MIDDLEWARE, *arguments]
    paths = ",".join(f"{name}={os.fspath(path)}" for name, path in steerers.items())
    return command, {"ODESTEER_STEERERS": paths}


def serve(
    model: str,
    steerers: Mapping[str, str | os.PathLike[str]],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    arguments: Sequence[str] = (),
) -> NoReturn:
    """Replace this process by vLLM's server, so that signals reach it. See `server_command`.

    Raises `MissingDependencyError` without vLLM.
    """
    if not is_installed():
        raise MissingDependencyError(
            "vLLM is not installed in this environment; pip install 'odesteer[vllm]', or serve"
            " with the built-in engine."
        )
    command, environment = server_command(
        model, steerers, host=host, port=port, arguments=arguments
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, {**os.environ, **environment})


def is_installed() -> bool:
    """Whether vLLM is installed; a folder of that name in the path does not count."""
    spec = importlib.util.find_spec("vllm")
    return spec is not None and spec.origin is not None
