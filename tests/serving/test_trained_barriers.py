"""Barriers that are trained through the model, at work: receipts, gates, the engine, exports."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from servers import completion, generated, running

import tiny_models
from odesteer import Amount, Site, SteeredModel, Steerer, SteererSet
from odesteer.artifact import load
from odesteer.barriers import (
    GatedPotential,
    LinearPotential,
    NeuralPotential,
    Potential,
    QuadraticPotential,
)
from odesteer.errors import InvalidInputError
from odesteer.interchange import ControlVector, read_steerer, write_gguf
from odesteer.methods import EndToEnd
from odesteer.serving import (
    GenerationRequest,
    SamplingParams,
    Settings,
    SteeringSpec,
    create_app,
)
from odesteer.vllm.steerers import ModelShape, PluginSteerers
from trained import fitted

KINDS = [LinearPotential(), GatedPotential(), QuadraticPotential(2), NeuralPotential(3)]
PROMPT = "what now"


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


def steerer(lm: SteeredModel, barrier: Potential, layer: int = 1, position: str = "last") -> Any:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(60, lm.width, generator=generator)
    method: Any = fitted(EndToEnd(barrier), a, a + 1)
    if isinstance(barrier, QuadraticPotential):
        # Drawn curvatures are far beyond what four steps of Euler follow.
        method.barrier_.function_.curvatures_ *= 0.02
    return Steerer(method, Site(layer, position))


@pytest.fixture(params=KINDS, ids=lambda barrier: type(barrier).__name__)
def trained(lm: SteeredModel, request: pytest.FixtureRequest) -> Any:
    return steerer(lm, request.param)


@pytest.mark.parametrize("amount", [Amount("T", 2.0), Amount("level", 1.0)], ids=str)
def test_receipts_and_the_engine(lm: SteeredModel, trained: Any, amount: Amount) -> None:
    quantity: dict[str, Any] = {amount.quantity: amount.value}
    (plain,) = lm.generate([PROMPT], max_new_tokens=12)
    (alone,) = lm.generate([PROMPT], trained, max_new_tokens=12, receipt=True, **quantity)
    if amount.quantity == "T":
        assert alone.text != plain
    assert len(alone.after) == len(alone.tokens) > 0
    assert not alone.unusable
    for before, after in zip(alone.before, alone.after, strict=True):
        assert after >= before - 1e-3
    greedy = SamplingParams(12, temperature=0.0)
    request = GenerationRequest(lm.encode(PROMPT).ids, greedy, (SteeringSpec("learned", amount),))
    both = [request, GenerationRequest(request.prompt, greedy)]
    texts = generated(lm, both, {"learned": trained})
    assert [text.text for text in texts] == [alone.text, plain]


def test_gates(lm: SteeredModel, trained: Any) -> None:
    condition = steerer(lm, LinearPotential(), layer=0)
    plain = lm.generate([PROMPT], max_new_tokens=12)
    gated = trained.when(condition, below=1e6)
    assert lm.generate([PROMPT], gated, T=2.0, max_new_tokens=12) == lm.generate(
        [PROMPT], trained, T=2.0, max_new_tokens=12
    )
    closed = trained.when(condition, above=1e6)
    assert lm.generate([PROMPT], closed, T=2.0, max_new_tokens=12) == plain


def test_constant_ones_export_as_vectors(lm: SteeredModel, tmp_path: Path) -> None:
    linear = steerer(lm, LinearPotential(), position="all")
    write_gguf(ControlVector.of(linear, Amount("T", 1.5)), tmp_path / "v.gguf")
    a = torch.randn(4, lm.width)
    back = read_steerer(tmp_path / "v.gguf")
    torch.testing.assert_close(back.steer(a), linear.steer(a, T=1.5))
    for barrier in KINDS[1:]:
        with pytest.raises(InvalidInputError, match="EndToEnd at T"):
            ControlVector.of(steerer(lm, barrier, position="all"))


def test_the_plugin_for_vllm_takes_them(lm: SteeredModel, trained: Any, tmp_path: Path) -> None:
    trained.save(tmp_path / "learned.safetensors")
    plugin = PluginSteerers({"learned": load(tmp_path / "learned.safetensors")})
    shape = ModelShape(lm.width, lm.n_layers)
    assert not plugin.incompatible(shape)
    plugin.check("learned@T=2", shape)


def test_the_server_and_the_playground_take_them(lm: SteeredModel, trained: Any) -> None:
    both = SteererSet([steerer(lm, LinearPotential(), layer=0), trained])
    alone = lm.generate([PROMPT], trained, T=1.5, max_new_tokens=8)
    together = lm.generate([PROMPT], both, T=1.5, max_new_tokens=8)

    async def ask() -> dict[str, Any]:
        async with running(lm, {"learned": trained, "both": both}) as engine:
            transport = httpx.ASGITransport(create_app(engine, Settings()))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as web:
                listed = await web.get("/v1/steerers")
                texts = []
                for name in ("learned", "both"):
                    body = completion(f"tiny+{name}@T=1.5", PROMPT, max_tokens=8)
                    texts.append((await web.post("/v1/completions", json=body)).json())
                shown = {"name": "learned", "T": 1.5}
                body = {"prompt": PROMPT, "text": "yes", "steering": [shown], "shown": "learned"}
                path = await web.post("/playground/trajectory", json=body)
            return {"listed": listed.json(), "texts": texts, "path": path}

    found = asyncio.run(ask())
    names = {one["id"]: one for one in found["listed"]["data"]}
    assert set(names) == {"learned", "both"}
    assert "EndToEnd" in str(names["learned"])
    assert [t["choices"][0]["text"] for t in found["texts"]] == [*alone, *together]
    assert found["path"].status_code == 200, found["path"].text
    values = found["path"].json()["values"]
    assert values[-1] > values[0]
