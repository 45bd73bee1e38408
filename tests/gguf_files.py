"""A tiny Llama in a GGUF file, as llama.cpp's converter writes it."""

from pathlib import Path
from typing import Any

import torch

import tiny_models


def save_gguf(path: Path) -> Any:
    """Write a tiny Llama and its tokenizer to ``path``; returns the model. Needs gguf."""
    import gguf

    model, tokenizer = tiny_models.llama(), tiny_models.tokenizer()
    config, n_special = model.config, len(tiny_models.SPECIAL)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(range(config.vocab_size))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * n_special + [1] * (len(tokens) - n_special))  # control, normal
    writer.add_token_merges(["t h", "th e", "Ġ the", "a n", "an d", "Ġ and"])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(tiny_models.CHAT_TEMPLATE)
    for name, weights in model.state_dict().items():
        writer.add_tensor(_gguf_name(name), _permuted(name, weights, config).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _gguf_name(name: str) -> str:
    for hf, gguf in _NAMES.items():
        name = name.replace(hf, gguf)
    return name


def _permuted(name: str, weights: torch.Tensor, config: Any) -> torch.Tensor:
    """Rows of queries and keys in the order of llama.cpp's rotary embedding."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, n_heads in heads.items():
        if part in name:
            halves = weights.reshape(n_heads, 2, -1, weights.shape[1])
            return halves.transpose(1, 2).reshape(weights.shape)
    return weights
