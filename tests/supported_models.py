"""Writes docs/supported-models.md: every causal language model of transformers, as a tiny one.

``python tests/supported_models.py`` tries them all (minutes) and writes the page;
`tests/models/test_supported_models.py` checks rows of it.
"""

import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).parents[1] / "docs" / "supported-models.md"
MOST_PARAMETERS = 30_000_000
WIDTH, N_LAYERS, VOCABULARY = 32, 4, 269

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Names that other configurations have; those that one does not know, it ignores.
_OTHERS: dict[str, Any] = {
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "ffn_dim": 48,
    "word_embed_proj_dim": WIDTH,
    "sliding_window": 8,
    "state_size": 4,
    "mamba_d_state": 4,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "lru_width": WIDTH,
    "attention_head_dim": 8,
    "is_decoder": True,
    "layer_types": None,
    "num_kv_shared_layers": 0,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


@dataclass(frozen=True)
class Row:
    """What was found of one architecture.

    Attributes:
        name: its model type in transformers.
        steers: whether a steered pass differs, and generating token by token with a cache gives
            what one pass over the whole text gives.
        heads: whether its attention heads can be steered.
        note: why not.
    """

    name: str
    steers: bool
    heads: bool
    note: str = ""

    def line(self) -> str:
        marks = ("yes" if found else "no" for found in (self.steers, self.heads))
        return f"| {' | '.join((f'`{self.name}`', *marks, self.note))} |"


def names() -> list[str]:
    """The model types of transformers that have a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny(name: str) -> Any:
    """A tiny model of random weights that reads tokens; None if none could be made here."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    import tiny_models

    if name in tiny_models.ARCHITECTURES:
        return tiny_models.ARCHITECTURES[name]()
    cls = CONFIG_MAPPING[name]
    whole = {"num_key_value_heads": 4}
    for more in (_OTHERS, {**_OTHERS, **whole}, {"layer_types": None}, whole, {}):
        given = {**_SIZES, **more}
        if "text_config" in getattr(cls, "sub_configs", {}):
            given = {"text_config": given}
        try:
            config = cls(**given)
            with torch.device("meta"):
                outline = AutoModelForCausalLM.from_config(config)
            if sum(weight.numel() for weight in outline.parameters()) > MOST_PARAMETERS:
                continue
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).eval()
            with torch.no_grad():
                model(torch.tensor([[1, 20, 30]]))
        except Exception:  # whatever configurations raise for sizes that they do not take
            continue
        return model
    return None


def tried(name: str) -> Row | None:
    """The row of an architecture; None if no tiny model of it could be made here."""
    import tiny_models
    from odesteer.artifact import Site, Steerer
    from odesteer.methods import CAA
    from odesteer.models import SteeredModel

    model, ids = tiny(name), torch.tensor([[1, 20, 30, 40, 50]])
    if model is None:
        return None
    try:
        lm = SteeredModel(model, tiny_models.tokenizer())
        generator = torch.Generator().manual_seed(0)
        clouds = [torch.randn(24, lm.width, generator=generator) + s for s in (0.5, -0.5)]
        steerer = Steerer(CAA(T=20.0).fit(*clouds), Site(lm.n_layers // 2))
        with torch.no_grad():
            base = model(ids).logits
            with lm.steering(steerer):
                steered = model(ids).logits
            if not _is_causal(lm, ids, []):
                return Row(name, False, False, "no decoder: a cache changes its logits, unsteered")
            same = _is_causal(lm, ids, [steerer])
        moved = not torch.allclose(steered[:, -1], base[:, -1], atol=1e-5)
        note = "" if moved and same else "unsteered" if not moved else "with a cache otherwise"
    except Exception as error:
        return Row(name, False, False, " ".join(str(error).split())[:80].replace("|", "/"))
    return Row(name, moved and same, _has_heads(lm, ids), note)


def _is_causal(lm: Any, ids: torch.Tensor, steerers: list[Any]) -> bool:
    """Whether token by token with a cache its logits are those of one pass over all tokens."""
    with lm.steering(*steerers):
        written = lm.model.generate(
            ids,
            max_new_tokens=3,
            min_new_tokens=3,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    with lm.steering(*steerers, prompt_width=ids.shape[1]):
        whole = lm.model(written.sequences[:, :-1]).logits[:, ids.shape[1] - 1 :]
    by_token = torch.stack([each.float() for each in written.logits], dim=1)
    return torch.allclose(by_token, whole.float(), rtol=1e-2, atol=1e-3)


def _has_heads(lm: Any, ids: torch.Tensor) -> bool:
    """Whether the heads of some layer are found, and steering them changes what it writes."""
    from odesteer.artifact import Site, Steerer
    from odesteer.methods import CAA

    for layer in range(lm.n_layers):
        try:
            width = lm._sites.at(layer, "heads").width
            clouds = [torch.randn(24, width) + s for s in (0.5, -0.5)]
            steerer = Steerer(CAA(T=20.0).fit(*clouds), Site(layer, part="heads"))
            with torch.no_grad():
                base = lm.model(ids).logits
                with lm.steering(steerer):
                    if not torch.allclose(lm.model(ids).logits, base, atol=1e-5):
                        return True
        except Exception:  # a layer without attention
            continue
    return False


FORMATS: dict[str, tuple[str, str]] = {
    "float32, bfloat16 and float16 in safetensors": ("torch", "dtype"),
    "GGUF, dequantised": ("gguf", "gguf"),
    "bitsandbytes, 8 bits": ("bitsandbytes", "BitsAndBytesConfig(load_in_8bit=True)"),
    "bitsandbytes, 4 bits": ("bitsandbytes", "BitsAndBytesConfig(load_in_4bit=True)"),
    "torchao, 8 bits": ("torchao", "TorchAoConfig(Int8WeightOnlyConfig())"),
    "torchao, 4 bits": ("torchao", "TorchAoConfig(Int4WeightOnlyConfig(group_size=32))"),
    "GPTQ, 4 bits": ("gptqmodel", "GPTQConfig(bits=4, dataset=texts, tokenizer=tokenizer)"),
}
"""Formats of weights: the package that reads them, and how they are asked for."""


def tried_format(name: str, folder: Path) -> str:
    """What fitting and steering a tiny model in a format gives: "yes", or why not.

    Raises `ImportError` without the package.
    """
    import importlib

    import gguf_files
    import tiny_models
    from odesteer.data import ContrastData
    from odesteer.methods import CAA
    from odesteer.models import SteeredModel

    package, how = FORMATS[name]
    importlib.import_module(package)
    options: list[dict[str, Any]] = [{}]
    source = folder
    if how == "gguf":
        source = folder / "tiny.gguf"
        gguf_files.save_gguf(source)
    else:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4}
        tiny_models.llama(**sizes).save_pretrained(folder)
        tiny_models.tokenizer().save_pretrained(folder)
        if how == "dtype":
            options = [{"dtype": dtype} for dtype in ("float32", "bfloat16", "float16")]
        else:
            options = [{"quantization_config": _quantised(how), "dtype": torch.float32}]
    data = ContrastData.from_texts(*([f"{word} {c}" for c in "abcdefgh"] for word in ("x", "y")))
    for each in options:
        try:
            device = None if package == "bitsandbytes" else "cpu"
            lm = SteeredModel.from_pretrained(str(source), device=device, **each)
            steerer, ids = lm.fit(CAA(), data, 2), torch.tensor([[1, 20, 30, 40]])
            with torch.no_grad():
                base = lm.model(ids).logits
                with lm.steering(steerer, strength=3.0):
                    steered = lm.model(ids).logits
                after = lm.model(ids).logits
        except Exception as error:
            return "no: " + " ".join(str(error).split())[:100].replace("|", "/")
        if torch.allclose(steered, base) or not torch.equal(base, after):
            return "no: unsteered, or changed afterwards"
    return "yes"


def _quantised(how: str) -> Any:
    """The configuration that an expression of `FORMATS` stands for."""
    import transformers

    import tiny_models

    names: dict[str, Any] = {
        "texts": ["the dog and the cat"] * 4,
        "tokenizer": tiny_models.tokenizer(),
    }
    names |= {name: getattr(transformers, name) for name in re.findall(r"\w+Config", how)[:1]}
    if "TorchAo" in how:
        from torchao import quantization

        names |= vars(quantization)
    return eval(how, names)


def rows() -> Iterator[Row]:
    for name in names():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = tried(name)
        print(name, "not made" if row is None else row, file=sys.stderr, flush=True)
        if row is not None:
            yield row


def table(found: list[Row]) -> str:
    lines = [row.line() for row in sorted(found, key=lambda row: row.name)]
    return "\n".join(["| model type | steers | heads | |", "|---|---|---|---|", *lines])


def format_table() -> str:
    """Formats, as far as their packages are there."""
    import tempfile

    lines = ["| format | package | steers on a CPU |", "|---|---|---|"]
    for name, (package, _) in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = tried_format(name, Path(folder))
            except ImportError as error:
                found = f"not tried: {' '.join(str(error).split()):.100}"
        lines.append(f"| {name} | `{package}` | {found} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    import transformers

    transformers.logging.set_verbosity_error()
    formats = format_table()
    found = list(rows())
    before, _, rest = PAGE.read_text().partition("<!-- generated -->\n")
    after = rest.partition("<!-- end -->")[2]
    PAGE.write_text(
        f"{before}<!-- generated -->\n## Architectures\n\n"
        f"{sum(row.steers for row in found)} of {len(found)} steer, with transformers"
        f" {transformers.__version__}.\n\n{table(found)}\n\n## Formats of weights\n\n{formats}\n"
        f"<!-- end -->{after}"
    )
