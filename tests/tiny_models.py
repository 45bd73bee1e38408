"""Tiny models with random weights, and a tokenizer, built in the process without a download."""

from collections.abc import Callable
from typing import Any

import torch

WIDTH = 32
N_LAYERS = 4
VOCABULARY = 269
CONTEXT = 96

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if not (loop.last and continue_final_message) %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")


def tokenizer(*, adds_bos: bool = True, chats: bool = True) -> Any:
    """A byte-level tokenizer: seven special tokens, then the 256 bytes, then a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n"), ("an", "d"), ("Ġ", "and")]
    pieces = [*SPECIAL, *alphabet, *("".join(merge) for merge in merges)]
    inner = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if adds_bos:
        inner.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]),
            ]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(SPECIAL[3:]),
    )
    if chats:
        made.chat_template = CHAT_TEMPLATE
    return made


def _build(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    # Random weights as they come give nearly the same logits to every token: spread them.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    return model


_TOKENS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZES: dict[str, Any] = {
    **_TOKENS,
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
_GROUPED: dict[str, Any] = {**_SIZES, "intermediate_size": 48, "num_key_value_heads": 2}


def llama(**changes: Any) -> Any:
    from transformers import LlamaConfig

    return _build(LlamaConfig(**{**_GROUPED, **changes}))


def mistral() -> Any:
    from transformers import MistralConfig

    return _build(MistralConfig(**_GROUPED, sliding_window=8))


def qwen2() -> Any:
    from transformers import Qwen2Config

    return _build(Qwen2Config(**_GROUPED))


def qwen3() -> Any:
    from transformers import Qwen3Config

    return _build(Qwen3Config(**_GROUPED, head_dim=8))


def gemma2() -> Any:
    from transformers import Gemma2Config

    return _build(Gemma2Config(**_GROUPED, head_dim=8, sliding_window=8))


def gemma3() -> Any:
    from transformers import Gemma3TextConfig

    return _build(Gemma3TextConfig(**_GROUPED, head_dim=8, sliding_window=8))


def phi3() -> Any:
    from transformers import Phi3Config

    return _build(Phi3Config(**_GROUPED))


def falcon() -> Any:
    from transformers import FalconConfig

    return _build(FalconConfig(**_SIZES, alibi=True))


def falcon_new() -> Any:
    from transformers import FalconConfig

    return _build(FalconConfig(**_SIZES, new_decoder_architecture=True, num_kv_heads=2))


def gpt2() -> Any:
    from transformers import GPT2Config

    return _build(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_layer=N_LAYERS,
            n_head=4,
            n_positions=CONTEXT,
            **_TOKENS,
        )
    )


def gpt_neox() -> Any:
    from transformers import GPTNeoXConfig

    return _build(GPTNeoXConfig(**_SIZES, intermediate_size=48))


def opt() -> Any:
    from transformers import OPTConfig

    return _build(OPTConfig(**_SIZES, ffn_dim=48, word_embed_proj_dim=WIDTH))


def bloom() -> Any:
    from transformers import BloomConfig

    return _build(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=N_LAYERS, n_head=4, **_TOKENS)
    )


def mpt() -> Any:
    from transformers import MptConfig

    return _build(
        MptConfig(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            n_layers=N_LAYERS,
            n_heads=4,
            max_seq_len=CONTEXT,
            **_TOKENS,
        )
    )


def stablelm() -> Any:
    from transformers import StableLmConfig

    return _build(StableLmConfig(**_GROUPED))


def mixtral() -> Any:
    from transformers import MixtralConfig

    return _build(MixtralConfig(**_GROUPED, num_local_experts=3, num_experts_per_tok=2))


def olmo2() -> Any:
    from transformers import Olmo2Config

    return _build(Olmo2Config(**_GROUPED))


def mamba() -> Any:
    from transformers import MambaConfig

    return _build(
        MambaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=N_LAYERS,
            state_size=4,
            **_TOKENS,
        )
    )


def jamba() -> Any:
    from transformers import JambaConfig

    return _build(
        JambaConfig(
            **_GROUPED,
            num_experts=2,
            attn_layer_period=2,
            attn_layer_offset=1,
            mamba_d_state=4,
        )
    )


def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **sizes)).eval()


_SIGHT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
_IMAGE_TOKENS: dict[str, Any] = {
    "image_token_id": 263,
    "video_token_id": 264,
    "vision_start_token_id": 265,
    "vision_end_token_id": 266,
}
_IMAGE_ROPE: dict[str, Any] = {
    "rope_type": "default",
    "rope_theta": 10_000.0,
    "mrope_section": [2, 1, 1],
}


def qwen2_vl() -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    sight = {"depth": 2, "embed_dim": 16, "hidden_size": WIDTH, "num_heads": 2, "patch_size": 4}
    text = {**_GROUPED, "rope_parameters": _IMAGE_ROPE}
    torch.manual_seed(0)
    config = Qwen2VLConfig(text_config=text, vision_config=sight, **_IMAGE_TOKENS)
    return Qwen2VLForConditionalGeneration(config).eval()


def qwen3_vl() -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    sight = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    text = {**_GROUPED, "head_dim": 8, "rope_parameters": _IMAGE_ROPE}
    torch.manual_seed(0)
    config = Qwen3VLConfig(text_config=text, vision_config=sight, **_IMAGE_TOKENS)
    return Qwen3VLForConditionalGeneration(config).eval()


def mistral3() -> Any:
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        MistralConfig,
        PixtralVisionConfig,
    )

    torch.manual_seed(0)
    config = Mistral3Config(
        text_config=MistralConfig(**_GROUPED, head_dim=8),
        vision_config=PixtralVisionConfig(**_SIGHT),
        image_token_index=263,
        tie_word_embeddings=False,
    )
    return Mistral3ForConditionalGeneration(config).eval()


def gemma3_vl() -> Any:
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )

    torch.manual_seed(0)
    config = Gemma3Config(
        text_config=Gemma3TextConfig(**_GROUPED, head_dim=8, sliding_window=8),
        vision_config=SiglipVisionConfig(**_SIGHT, vision_use_head=False),
        mm_tokens_per_image=4,
        boi_token_index=265,
        eoi_token_index=266,
        image_token_index=263,
    )
    return Gemma3ForConditionalGeneration(config).eval()


def llava() -> Any:
    """A multimodal model whose vision tower has as many layers as its language model."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    text = LlamaConfig(**_GROUPED)
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=VOCABULARY - 1)
    return LlavaForConditionalGeneration(config).eval()


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    build.__name__: build
    for build in (
        llama,
        mistral,
        qwen2,
        qwen3,
        gemma2,
        gemma3,
        phi3,
        falcon,
        falcon_new,
        gpt2,
        gpt_neox,
        opt,
        bloom,
        mpt,
        stablelm,
        mixtral,
        olmo2,
        mamba,
        jamba,
    )
}

VISION_LANGUAGE: dict[str, Callable[[], Any]] = {
    build.__name__: build for build in (llava, qwen2_vl, qwen3_vl, mistral3, gemma3_vl)
}
