"""Tiny models in folders, of the kinds that judges open."""

from pathlib import Path
from typing import Any

import torch

import tiny_models


def make_item(item_key: str = "i", prompt: Any = "Q: a?\nA:", **reference: Any) -> Any:
    from odesteer.evaluation.item import Item

    return Item(item_key, prompt, item_key, reference)


def answering(folder: Path, answer: str) -> str:
    """A model that follows ``:`` by ``answer``, whatever was make_item, one byte after another.

    Each token points at the next one: the layers add nothing, and the output for a token's
    embedding is the token that follows it.
    """
    tokenizer, model = tiny_models.tokenizer(), tiny_models.llama(tie_word_embeddings=False)
    chain = [tokenizer(":", add_special_tokens=False)["input_ids"][-1]]
    chain += tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.zero_()
        head.zero_()
        for i, token in enumerate(chain):
            embedding[token, i] = 1.0
        for i, token in enumerate([*chain[1:], tokenizer.eos_token_id]):
            head[token, i] = 1.0
    return saved(folder, model, tokenizer)


def classifier(folder: Path, labels: dict[int, str], **changes: Any) -> str:
    """A sequence classification model with these outputs and random weights."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tiny_models.VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
        pad_token_id=0,
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
        initializer_range=0.5,
        **changes,
    )
    return saved(folder, BertForSequenceClassification(config), tiny_models.tokenizer(chats=False))


def reward(folder: Path, *, chats: bool, pads: bool = True) -> str:
    """A decoder with a single output and random weights."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny_models.VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=60,
        pad_token_id=0 if pads else None,
        num_labels=1,
        initializer_range=0.5,
    )
    model = LlamaForSequenceClassification(config)
    return saved(folder, model, tiny_models.tokenizer(chats=chats))


def saved(folder: Path, model: Any, tokenizer: Any) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
