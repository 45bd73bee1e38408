"""Models that speed is measured on: random, bundled, and of the shape of Llama-3.1-8B."""

from dataclasses import dataclass
from typing import Any

import torch

from odesteer import SteeredModel


@dataclass(frozen=True)
class Subject:
    """A model to decode with.

    Attributes:
        name: as in the table.
        model: the model, on its device.
        layer: where steering acts.
        batches: sizes of batches.
        compiled: whether the forward pass is compiled, with a static cache.
        rounds: how often each form generates some tokens.
        tokens: how many in a round, after one that is not timed.
    """

    name: str
    model: Any
    layer: int
    batches: tuple[int, ...]
    compiled: bool = False
    rounds: int = 12
    tokens: int = 4

    @property
    def vocabulary(self) -> int:
        return int(self.model.config.vocab_size)


def small_llama() -> Subject:
    """Random weights, 12 layers x 1024."""
    return Subject(
        "Llama 12 x 1024", random_llama(1024, 12, 16, 16, 2816, 32000).eval(), 6, (1, 16)
    )


def bundled() -> Subject:
    """The model that ships with the package."""
    from odesteer.terrarium import model_path

    model = SteeredModel.from_pretrained(str(model_path())).model
    return Subject("bundled", model, 4, (1, 16), rounds=26, tokens=16)  # its context is short


def large_llama(*, compiled: bool) -> Subject:
    """The shape of Llama-3.1-8B with random weights in bfloat16, on the GPU."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = random_llama(4096, 32, 32, 8, 14336, 128256).eval()
    finally:
        torch.set_default_dtype(before)
    if compiled:
        # Graphs have to see the plain hooks come and go; ours make themselves seen.
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        torch._dynamo.config.recompile_limit = 64  # a graph for each form and cache
    name = "Llama-3.1-8B shape, bfloat16" + (", compiled" if compiled else "")
    return Subject(name, model, 13, (1, 16, 64), compiled)


def random_llama(
    width: int, layers: int, heads: int, kv_heads: int, inner: int, words: int, **more: Any
) -> Any:
    """A Llama of these sizes with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            intermediate_size=inner,
            max_position_embeddings=4096,
            **more,
        )
    )
