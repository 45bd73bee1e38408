"""The configuration of an engine that steers."""

import logging
from functools import wraps
from typing import Any

from odesteer.errors import InvalidInputError, ModelError
from odesteer.version import __version__
from odesteer.vllm.compatibility import require
from odesteer.vllm.custom_op import NAME
from odesteer.vllm.steerers import ModelShape, PluginSteerers, plugin_steerers

_KEY = "odesteer"


def model_shape(config: Any) -> ModelShape:
    """What steerers must fit."""
    require(config.model_config, "get_hidden_size", "get_total_num_hidden_layers")
    return ModelShape(
        config.model_config.get_hidden_size(), config.model_config.get_total_num_hidden_layers()
    )


def patch_config() -> None:
    """Let configurations say that the graph has the operation in it.

    vLLM finds compiled graphs again by a hash of the configuration, and would otherwise take one
    that was compiled without. Around the operation graphs are cut, so that CUDA graphs hold the
    pieces between and not the operation itself.
    """
    from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode
    from vllm.engine.arg_utils import EngineArgs

    require(EngineArgs, "create_engine_config")
    require(CompilationConfig, "set_splitting_ops_for_v1")
    create = EngineArgs.create_engine_config
    split = CompilationConfig.set_splitting_ops_for_v1

    @wraps(create)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.additional_config = {
            **(self.additional_config or {}),
            _KEY: described(plugin_steerers()),
        }
        config = create(self, *args, **kwargs)
        check_config(config, plugin_steerers())
        warn_of_misfits(config)
        return config

    @wraps(split)
    def set_splitting_ops(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = split(self, *args, **kwargs)
        if self.mode == CompilationMode.VLLM_COMPILE and self.splitting_ops:
            if NAME not in self.splitting_ops:
                self.splitting_ops.append(NAME)
            if self.cudagraph_mode.has_full_cudagraphs():
                self.cudagraph_mode = CUDAGraphMode.PIECEWISE
        return result

    EngineArgs.create_engine_config = create_engine_config
    CompilationConfig.set_splitting_ops_for_v1 = set_splitting_ops


def described(known: PluginSteerers) -> dict[str, Any]:
    """What decides about the graph: the operation and where it stands, not the steerers."""
    return {"version": __version__, "op": NAME, "layers": list(known.layers())}


def check_config(config: Any, known: PluginSteerers) -> None:
    """Raise `OdesteerError` for a configuration in which requests would be steered wrongly."""
    parallel, compilation = config.parallel_config, config.compilation_config
    require(parallel, "use_ubatching", "prefill_context_parallel_size")
    require(compilation, "cudagraph_mode")
    found = (config.additional_config or {}).get(_KEY)
    if found != described(known):
        raise ModelError(
            f"the engine was configured for steering {found}, and this process has"
            f" {described(known)}: set ODESTEER_STEERERS alike for all of its processes."
        )
    refused = {
        "micro-batching (--enable-dbo, --ubatch-size)": parallel.use_ubatching,
        "prefill context parallelism": parallel.prefill_context_parallel_size > 1,
        "full CUDA graphs (set compilation_config.cudagraph_mode to PIECEWISE)": (
            compilation.cudagraph_mode.has_full_cudagraphs()
        ),
    }
    for what, is_on in refused.items():
        if is_on:
            raise InvalidInputError(
                f"steering does not work with {what}: the rows of a request are not where they"
                " are without it. Turn it off, or unset ODESTEER_STEERERS."
            )


def warn_of_misfits(config: Any) -> None:
    """Tell which steerers are of no use for this model; requests for them will fail."""
    for name, reason in plugin_steerers().misfits(model_shape(config)).items():
        logging.getLogger("vllm.odesteer").warning(
            "requests for the steerer %r will be refused: %s", name, reason
        )
