"""Reading a forward pass from the arguments of the module that runs the decoder layers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from odesteer.errors import ModelError
from odesteer.models.architecture.kv_cache import CACHE_ARGUMENTS, cache_reference, cached_columns
from odesteer.models.architecture.layers import argument_names
from odesteer.models.steering.forward_pass import ForwardPass
from odesteer.models.steering.known_prompts import KnownPrompts
from odesteer.models.steering.positions import Ends


class ForwardPassReader:
    """Reads a `ForwardPass` from the arguments of the module that runs the decoder layers.

    Attributes:
        cache, inputs: of the pass read last; inputs are token ids or embeddings.
    """

    def __init__(self, owner: nn.Module, prompts: KnownPrompts | None = None) -> None:
        self._names = argument_names(owner)
        self._shows_cache = any(name in self._names for name in CACHE_ARGUMENTS)
        self._prompts = KnownPrompts() if prompts is None else prompts
        self.cache: Any = None
        self.inputs: Any = None
        self._cache: Any = None
        self._columns = 0

    def read(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], ends: Ends | None = None
    ) -> ForwardPass:
        """The pass that is about to run; ``ends`` are where the prompts end, if it is known."""
        arguments = {**dict(zip(self._names, args, strict=False)), **kwargs} if args else kwargs
        cache = None
        for name in CACHE_ARGUMENTS:
            if cache is None:
                cache = arguments.get(name)
        inputs = _inputs(arguments)
        self.cache, self.inputs = cache, inputs
        length = inputs.shape[1] if isinstance(inputs, Tensor) and inputs.ndim > 1 else 1
        past = self._past(cache, length)
        self._columns = past + length
        if ends is None:
            ends = (self._prompts.end_of(cache, past, length, inputs),)
        return ForwardPass(past, length, arguments.get("attention_mask"), ends)

    def read_traced(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], ends: Ends | None = None
    ) -> ForwardPass:
        """The same while a graph is traced: nothing is kept from pass to pass."""
        arguments = {**dict(zip(self._names, args, strict=False)), **kwargs}
        cache = arguments.get("past_key_values")
        inputs = _inputs(arguments)
        length = 1 if inputs is None else inputs.shape[1]
        self._cache = None
        past = 0 if cache is None else cache.get_seq_length()
        if isinstance(past, Tensor):
            known = (0,) if ends is None else ends  # in use, so behind the prompt
            return ForwardPass(0, length, None, known, past.clone())  # before the layers count on
        if ends is None:
            if past and length > 1:
                raise ModelError(
                    "a compiled graph cannot tell whether several tokens behind a cache are"
                    " prompt or generated; say where the prompt ends with prompt_width=."
                )
            ends = (past or length,)
        return ForwardPass(past, length, arguments.get("attention_mask"), ends)

    def continues_decoding(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a pass decodes one more token with the cache of the last pass; counts it."""
        inputs, cache = kwargs.get("input_ids"), kwargs.get("past_key_values")
        if args or inputs is None or cache is None or inputs.shape[-1] != 1:
            return False
        if self._cache is None or self._cache() is not cache:
            return False
        columns = cached_columns(cache)
        if not isinstance(columns, Tensor) and columns is not None and columns < self._columns:
            return False  # it was cropped
        self._columns += 1
        return True

    def _past(self, cache: Any, length: int) -> int:
        if cache is None:
            # A model that does not show its state continues where it is given one token.
            return 0 if self._shows_cache or length > 1 else self._columns
        known = self._cache is not None and self._cache() is cache
        self._cache = cache_reference(cache)
        columns = cached_columns(cache)
        # Static caches keep the number on the device, and recurrent ones keep none: count while
        # single tokens are decoded with one cache, instead of waiting for the device.
        if isinstance(columns, Tensor):
            return self._columns if known and length == 1 else int(columns)
        if columns is None:
            return max(self._columns, 1) if known or length == 1 else 0
        return columns


def _inputs(arguments: Mapping[str, Any]) -> Any:
    """What a pass reads: token ids, embeddings, or the states that an inner module is given."""
    for name in ("input_ids", "inputs_embeds", "hidden_states"):
        if arguments.get(name) is not None:
            return arguments[name]
    return None
