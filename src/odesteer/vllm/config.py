"""Configuration of a steered engine: patches of vLLM's, and what is refused."""

import logging
from functools import wraps
from typing import Any

from odesteer.errors import InvalidInputError, ModelError
from odesteer.version import __version__
from odesteer.vllm.compatibility import require_attributes, require_signature
from odesteer.vllm.custom_op import OP_NAME
from odesteer.vllm.steerers import ModelShape, PluginSteerers, plugin_steerers

_KEY = "odesteer"


def model_shape(config: Any) -> ModelShape:
    """What steerers must fit, in a configuration of vLLM."""
    model = config.model_config
    require_attributes(model, "get_hidden_size", "get_total_num_hidden_layers")
    require_attributes(model, "skip_tokenizer_init", "enable_prompt_embeds")
    return ModelShape(
        model.get_hidden_size(),
        model.get_total_num_hidden_layers(),
        has_texts=not (model.skip_tokenizer_init or model.enable_prompt_embeds),
    )


def patch_config() -> None:
    """Make the operation part of vLLM's configuration.

    vLLM finds compiled graphs in its cache by a hash of the configuration; without an entry for
    the operation it would load graphs that lack it. Graphs are split at the operation, so that
    CUDA graphs hold the pieces between and not the operation itself.
    """
    from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode
    from vllm.engine.arg_utils import EngineArgs

    create = require_signature(
        EngineArgs, "create_engine_config", ("self", "usage_context", "headless")
    )
    split = require_signature(
        CompilationConfig,
        "set_splitting_ops_for_v1",
        ("self", "all2all_backend", "data_parallel_size"),
    )

    @wraps(create)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        steerers = plugin_steerers()
        self.additional_config = {**(self.additional_config or {}), _KEY: config_entry(steerers)}
        config = create(self, *args, **kwargs)
        check_config(config, steerers)
        warn_of_incompatible_steerers(config)
        return config

    @wraps(split)
    def set_splitting_ops(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = split(self, *args, **kwargs)
        if self.mode == CompilationMode.VLLM_COMPILE and self.splitting_ops:
            if OP_NAME not in self.splitting_ops:
                self.splitting_ops.append(OP_NAME)
            if self.cudagraph_mode.has_full_cudagraphs():
                self.cudagraph_mode = CUDAGraphMode.PIECEWISE
        return result

    EngineArgs.create_engine_config = create_engine_config
    CompilationConfig.set_splitting_ops_for_v1 = set_splitting_ops


def config_entry(steerers: PluginSteerers) -> dict[str, Any]:
    """What changes the compiled graph: the operation and its layers, not the steerers."""
    return {"version": __version__, "op": OP_NAME, "layers": list(steerers.layers())}


def check_config(config: Any, steerers: PluginSteerers) -> None:
    """Raise `OdesteerError` for a configuration in which requests would be steered wrongly."""
    parallel, compilation = config.parallel_config, config.compilation_config
    require_attributes(parallel, "use_ubatching", "prefill_context_parallel_size")
    require_attributes(parallel, "decode_context_parallel_size")
    require_attributes(compilation, "cudagraph_mode")
    require_attributes(config, "kv_transfer_config", "ec_transfer_config", "speculative_config")
    require_attributes(config, "cache_config")
    require_attributes(config.cache_config, "kv_offloading_size")
    found = (config.additional_config or {}).get(_KEY)
    if found != config_entry(steerers):
        raise ModelError(
            f"the engine was configured for steering {found}, and this process has"
            f" {config_entry(steerers)}: set ODESTEER_STEERERS alike for all of its processes."
        )
    untested = {
        "KV transfer (--kv-transfer-config)": config.kv_transfer_config is not None,
        "encoder transfer (--ec-transfer-config)": config.ec_transfer_config is not None,
        "KV offloading (--kv-offloading-size)": bool(config.cache_config.kv_offloading_size),
        "decode context parallelism": parallel.decode_context_parallel_size > 1,
        "speculative decoding (--speculative-config)": config.speculative_config is not None,
    }
    for mode, is_on in untested.items():
        if is_on:
            raise InvalidInputError(
                f"steering has not been tested with {mode}, which moves or reorders cached keys and"
                " values; requests might read those of others. Turn it off, or unset"
                " ODESTEER_STEERERS."
            )
    refused = {
        "micro-batching (--enable-dbo, --ubatch-size)": parallel.use_ubatching,
        "prefill context parallelism": parallel.prefill_context_parallel_size > 1,
        "full CUDA graphs (set compilation_config.cudagraph_mode to PIECEWISE)": (
            compilation.cudagraph_mode.has_full_cudagraphs()
        ),
    }
    for mode, is_on in refused.items():
        if is_on:
            raise InvalidInputError(
                f"steering does not work with {mode}: the rows of a request are not where they"
                " are without it. Turn it off, or unset ODESTEER_STEERERS."
            )


def warn_of_incompatible_steerers(config: Any) -> None:
    """Log which steerers do not fit this model; requests for them will fail."""
    for name, reason in plugin_steerers().incompatible(model_shape(config)).items():
        logging.getLogger("vllm.odesteer").warning(
            "requests for the steerer %r will be refused: %s", name, reason
        )
