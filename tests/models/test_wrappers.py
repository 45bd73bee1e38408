"""Models inside wrappers: adapters, compiled modules, models spread over devices."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from steerers import Watch, WatchInputs, caa, hooks_of, ode, steerer
from torch import Tensor

import tiny_models
from odesteer.artifact import PARTS
from odesteer.data import Example
from odesteer.methods import ODESteer
from odesteer.models import SteeredModel
from odesteer.models.architecture import compile_guards as eager

IDS = torch.tensor([[1, 20, 30, 40, 50], [1, 60, 70, 80, 90]])
PROMPTS = ["the dog", "x"]


def logits(lm: SteeredModel) -> Tensor:
    with torch.no_grad():
        out: Tensor = lm.model(IDS).logits
    return out


def _layer(part: str) -> int:
    """A layer that has the part."""
    return tiny_models.N_LAYERS - 1 if part == "final" else 2


def four_ways(lm: SteeredModel, part: str = "residual") -> tuple[Tensor, Tensor]:
    """Off, on, off, on: returns one of each after checking the pairs."""
    before, moving = hooks_of(lm.model), steerer(ODESteer(), _layer(part), part=part)
    base = logits(lm)
    with lm.steering(moving, T=3.0):
        steered = logits(lm)
    assert torch.equal(logits(lm), base)
    with lm.steering(moving, T=3.0):
        assert torch.equal(logits(lm), steered)
    assert not torch.allclose(steered[:, -1], base[:, -1], atol=1e-3)
    assert hooks_of(lm.model) == before
    return base, steered


def plain() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft
def test_a_lora_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny_models.llama()
    adapted = get_peft_model(
        model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    ).eval()
    lm = SteeredModel(adapted, tiny_models.tokenizer())
    assert lm.layers.path == "base_model.model.model.layers"
    base, _ = four_ways(lm)
    assert not torch.equal(base, logits(plain()))
    steered = lm.generate(PROMPTS, steerer(), strength=0.5, max_new_tokens=4)
    assert steered != lm.generate(PROMPTS, max_new_tokens=4)
    captured = lm.capture([Example("", "the dog")], 2).states[2]
    with Watch(lm.layers.at(2)) as watch, torch.no_grad():
        adapted(torch.tensor([lm.encode("the dog").ids]))
    torch.testing.assert_close(captured[0], watch.states[0][0, -1])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft
def test_a_lora_adapter_of_the_output_projection_sees_steered_heads() -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        tiny_models.llama(), LoraConfig(target_modules=["o_proj"], init_lora_weights=False)
    ).eval()
    lm = SteeredModel(adapted, tiny_models.tokenizer())
    projection = lm.layers.at(2).self_attn.o_proj
    assert lm._sites.heads.at(2) == (projection, 32)
    four_ways(lm, "heads")
    inside = [projection.base_layer, projection.lora_A["default"]]
    with lm.steering(steerer(part="heads", position="all")), WatchInputs(*inside) as watch:
        logits(lm)
    assert torch.equal(*watch.states)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft
def test_an_adapter_from_a_folder_is_steered_as_the_merged_model(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(tiny_models.llama(), config).save_pretrained(tmp_path)
    adapted = PeftModel.from_pretrained(tiny_models.llama(), tmp_path).eval()
    _, steered = four_ways(lm := SteeredModel(adapted, tiny_models.tokenizer()))
    with lm.model.disable_adapter(), lm.steering(steerer(ODESteer()), T=3.0):
        without = logits(lm)
    assert not torch.allclose(steered, without, atol=1e-3)
    merged = SteeredModel(adapted.merge_and_unload(), tiny_models.tokenizer())
    torch.testing.assert_close(four_ways(merged)[1], steered, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Passing `generation_config`:UserWarning")
def test_a_pipeline_of_transformers_is_steered() -> None:
    from transformers import pipeline

    lm, how = plain(), {"max_new_tokens": 5, "do_sample": False, "return_full_text": False}
    pipe = pipeline("text-generation", model=lm.model, tokenizer=lm.tokenizer)

    def texts(**more: Any) -> list[str]:
        return [found[0]["generated_text"] for found in pipe(PROMPTS, **how, **more)]

    before = texts()
    with lm.steering(moving := steerer(ODESteer()), T=3.0):
        steered, padded = texts(), texts(batch_size=2)
    assert steered == lm.generate(PROMPTS, moving, T=3.0, max_new_tokens=5, do_sample=False)
    assert padded == steered != before
    assert texts() == before


@pytest.mark.parametrize("part", PARTS)
def test_a_model_spread_over_devices(part: str) -> None:
    from accelerate import dispatch_model

    model = tiny_models.llama()
    wanted = four_ways(plain(), part)
    places = {f"model.layers.{i}": "cpu" for i in range(tiny_models.N_LAYERS)}
    rest = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
    spread = dispatch_model(
        model, device_map={**places, **dict.fromkeys(rest, "cpu")}, force_hooks=True
    )
    lm = SteeredModel(spread, tiny_models.tokenizer())
    assert hasattr(lm.layers.at(2), "_hf_hook")
    for found, expected in zip(four_ways(lm, part), wanted, strict=True):
        assert torch.equal(found, expected)
    lm.capture([Example("", "the dog")], _layer(part), part=part)
    four_ways(lm, part)


@pytest.mark.parametrize("part", PARTS)
def test_weights_that_wait_elsewhere(part: str) -> None:
    """Offloaded layers hold no weights between calls; steering goes where they compute."""
    from accelerate import cpu_offload

    lm = SteeredModel(
        cpu_offload(tiny_models.llama(), execution_device=torch.device("cpu")),
        tiny_models.tokenizer(),
    )
    assert next(lm.layers.at(2).parameters()).device.type == "meta"
    assert lm.device == torch.device("cpu")
    for found, expected in zip(four_ways(lm, part), four_ways(plain(), part), strict=True):
        assert torch.equal(found, expected)
    lm.capture([Example("", "the dog")], _layer(part), part=part)
    assert next(lm.layers.at(2).parameters()).device.type == "meta"
    assert lm.generate(PROMPTS, max_new_tokens=3) == plain().generate(PROMPTS, max_new_tokens=3)


class Compiler:
    """A compiler that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        self.n_graphs = 0

        # A function, since configurations that hold a backend are copied.
        def backend(graph: Any, inputs: Any) -> Any:
            self.n_graphs += 1
            return graph.forward

        self.backend = backend


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    torch._dynamo.reset()
    yield Compiler()
    torch._dynamo.reset()


def wrapped(model: Any, backend: Any) -> Any:
    return torch.compile(model, backend=backend)


def in_place(model: Any, backend: Any) -> Any:
    model.compile(backend=backend)
    return model


def its_forward(model: Any, backend: Any) -> Any:
    model.forward = torch.compile(model.forward, backend=backend)
    return model


def layer_by_layer(model: Any, backend: Any) -> Any:
    for i, layer in enumerate(model.model.layers):
        model.model.layers[i] = torch.compile(layer, backend=backend)
    return model


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("compiled", [wrapped, in_place, its_forward, layer_by_layer])
def test_a_compiled_model_is_really_steered_and_really_not(
    compiled: Callable[..., Any], part: str, compiler: Compiler
) -> None:
    expected = four_ways(plain(), part)
    lm = SteeredModel(compiled(tiny_models.llama(), compiler.backend), tiny_models.tokenizer())
    for found, wanted in zip(four_ways(lm, part), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert compiler.n_graphs > 0
    graphs = compiler.n_graphs
    with lm.steering(caa()):
        logits(lm)
    logits(lm)
    assert compiler.n_graphs == graphs  # the graphs of before are in use again


def test_a_model_first_used_inside_the_context(compiler: Compiler) -> None:
    lm = SteeredModel(wrapped(tiny_models.llama(), compiler.backend), tiny_models.tokenizer())
    with lm.steering(ode(), T=3.0):
        logits(lm)
    assert compiler.n_graphs == 0
    torch.testing.assert_close(logits(lm), four_ways(plain())[0], rtol=1e-4, atol=1e-5)
    assert compiler.n_graphs > 0


def test_without_a_steerer_compiled_models_stay_compiled(compiler: Compiler) -> None:
    lm = SteeredModel(in_place(tiny_models.llama(), compiler.backend), tiny_models.tokenizer())
    texts = lm.generate(PROMPTS, max_new_tokens=1)
    assert compiler.n_graphs > 0
    assert texts == plain().generate(PROMPTS, max_new_tokens=1)


def test_capturing_from_a_compiled_model(compiler: Compiler) -> None:
    lm = SteeredModel(wrapped(tiny_models.llama(), compiler.backend), tiny_models.tokenizer())
    logits(lm)
    examples = [Example("", "the dog"), Example("x", "yz")]
    for part in PARTS:
        layers = [_layer(part)] if part == "final" else [0, 2]
        found, wanted = (m.capture(examples, layers, part=part) for m in (lm, plain()))
        for layer in layers:
            assert torch.equal(found.states[layer], wanted.states[layer])


def test_decoding_that_transformers_compiles_by_itself(compiler: Compiler) -> None:
    from transformers import CompileConfig

    lm = plain()
    compiling = CompileConfig(backend=compiler.backend, fullgraph=False, mode=None)
    compiling._compile_all_devices = True
    options: dict[str, Any] = {
        "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0,
        "cache_implementation": "static",
    }  # fmt: skip
    base = lm.model.generate(IDS, **options, compile_config=compiling)
    assert compiler.n_graphs > 0
    with lm.steering(steerer(), strength=0.5):
        steered = lm.model.generate(IDS, **options, compile_config=compiling)
        wanted = lm.model.generate(IDS, **options)
    assert torch.equal(steered, wanted)
    assert not torch.equal(steered, base)
    assert torch.equal(lm.model.generate(IDS, **options, compile_config=compiling), base)


def test_the_stance_of_the_compiler_is_put_back() -> None:
    def stance() -> str:
        found: str = torch._dynamo.eval_frame._stance.stance
        return found

    lm = plain()
    assert stance() == "default"
    with torch.compiler.set_stance("eager_on_recompile"):
        first, second = lm.steering(caa()).enable(), lm.steering(caa()).enable()
        assert stance() == "force_eager"
        logits(lm)
        first.remove()
        first.remove()
        assert stance() == "force_eager"
        second.remove()
        assert stance() == "eager_on_recompile"
    assert stance() == "default"
    eager.release_eager(12345)
    assert stance() == "default"


def test_a_model_compiled_ahead_of_time() -> None:
    torch._dynamo.reset()
    lm = SteeredModel(
        torch.compile(tiny_models.llama(), backend="aot_eager"), tiny_models.tokenizer()
    )
    for found, wanted in zip(four_ways(lm), four_ways(plain()), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
