"""Models of the same function in a shape that vLLM runs on CPUs."""

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

_HEAD_WIDTH = 32
"""The least width of attention heads that vLLM's attention on CPUs has."""


def fit_for_cpu(source: Path, target: Path) -> None:
    """Write a Llama with wider heads, an even number of them, that computes the same as another.

    Heads are filled up with zeros, and more heads of zeros are added. Rotary frequencies are
    powers that depend on the width of a head: component i of a narrow head turns as component
    r*i of one that is r times as wide. Scores are divided by the root of the width, so queries
    grow by the root of r.
    """
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
    config = model.config
    width, n_kv = config.head_dim, config.num_key_value_heads
    wide = max(width, _HEAD_WIDTH)
    group = config.num_attention_heads // n_kv
    n_kv = next(n for n in range(n_kv, 99) if n % 2 == 0 and config.hidden_size % (n * group) == 0)
    half = torch.arange(width // 2) * (wide // width)
    places = torch.cat([half, wide // 2 + half])

    def widened(weight: Tensor, n_heads: int, scale: float = 1.0) -> nn.Parameter:
        heads = torch.zeros(n_heads, wide, weight.shape[1])
        heads[: len(weight) // width, places] = weight.detach().view(-1, width, weight.shape[1])
        return nn.Parameter(heads.flatten(0, 1) * scale)

    for layer in model.model.layers:
        attention = layer.self_attn
        n_heads = n_kv * group
        scale = (wide / width) ** 0.5
        attention.q_proj.weight = widened(attention.q_proj.weight, n_heads, scale)
        attention.k_proj.weight = widened(attention.k_proj.weight, n_kv)
        attention.v_proj.weight = widened(attention.v_proj.weight, n_kv)
        output = widened(attention.o_proj.weight.T, n_heads)
        attention.o_proj.weight = nn.Parameter(output.detach().T.contiguous())
    config.head_dim = wide
    config.num_key_value_heads, config.num_attention_heads = n_kv, n_kv * group
    model.save_pretrained(target)
    for file in source.glob("*token*"):
        shutil.copy(file, target)
