"""Methods of 2025 and 2026 in the engine and in the plugin for vLLM."""

from pathlib import Path

import pytest
import torch
from servers import generated

import tiny_models
from odesteer import Site, SteeredModel, Steerer, SteererSet
from odesteer.artifact import load, lqr, pid
from odesteer.barriers import (
    FrozenBarrier,
    LinearBarrier,
    MinimumBarrier,
    MultiLabelBarrier,
    NeighbourBarrier,
    PolynomialBarrier,
    SharedProjectionBarrier,
    Standardized,
    Training,
    ValueBarrier,
)
from odesteer.errors import ModelError
from odesteer.flows import NullSpace
from odesteer.methods import (
    CAA,
    HPR,
    Ablation,
    Angular,
    Bridge,
    Conditional,
    GatedDirection,
    LeastIntervention,
    LinearAcT,
    Method,
    ODESteer,
    QueryTruthFlow,
    REControl,
    Setpoint,
    SphericalSteering,
    TwoSided,
)
from odesteer.serving import GenerationRequest, SamplingParams, SteeringSpec
from odesteer.vllm.steerers import ModelShape, PluginSteerers

PROMPT = "what now"
QUICK = Training(0.05, max_epochs=10, keep_best=True)


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


def clouds(lm: SteeredModel, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(2, 40, lm.width, generator=generator)
    return a[0] + 0.7, a[1]


def alone(lm: SteeredModel) -> dict[str, Method]:
    """Methods at one layer."""
    positive, negative = clouds(lm, 0)
    labels = MultiLabelBarrier(hidden=(4,), training=QUICK, folds=0).fit(positive, negative)
    return {
        "ablation": Ablation("positive"),
        "two-sided": TwoSided(),
        "least-intervention": LeastIntervention(level=2.0),
        "gated": GatedDirection(strength=3.0),
        "neighbours": Conditional(CAA(T=2.0), NeighbourBarrier(3, inputs=Standardized()), 1e3),
        "labels": ODESteer(FrozenBarrier(labels)),
        "spherical-steering": SphericalSteering(20.0, -1.0, 0.9),
        "turn": Angular(60.0, turn="by", max_strength=None),
        "support": LinearAcT(support=True, interpolation=2.0),
        "setpoint": Setpoint(3.0),
        "bridge": Bridge(20, 4, interpolation=2.0),
        "null-space": ODESteer(PolynomialBarrier(folds=0), metric=NullSpace(), strength=2.0),
        "half-spaces": LeastIntervention(
            MinimumBarrier((LinearBarrier(folds=0), PolynomialBarrier(folds=0))), level=2.0
        ),
        "both-classes": HPR(hidden=(4,), training=QUICK, learners="both", interpolation=1.5),
        "corrections": QueryTruthFlow(hidden=(4,), training=QUICK, interpolation=3.0),
    }


def over_layers(lm: SteeredModel) -> dict[str, SteererSet]:
    """Sets whose layers were fitted or controlled together."""
    groups = list(range(40)), list(range(40, 80))
    sides = [(*clouds(lm, seed), groups) for seed in (0, 1)]

    def of(methods: list[Method]) -> SteererSet:
        return SteererSet(Steerer(m, Site(1 + i)) for i, m in enumerate(methods))

    shared = SharedProjectionBarrier(3, (4,), QUICK, folds=0)
    setpoints = of([Setpoint(3.0).fit(*side) for side in sides])
    return {
        "lqr": lqr(setpoints, [torch.eye(lm.width)], control_cost=0.1),
        "pid": pid(of([CAA(T=2.0).fit(*side) for side in sides]), 1.0, 0.5, 0.1),
        "shared": of([*ODESteer(shared, level=3.0).fit_layers(sides)]),
        "plane": of([*Angular(plane="shared", max_strength=None).fit_layers(sides)]),
    }


def test_the_engine_writes_what_the_model_writes(lm: SteeredModel, tmp_path: Path) -> None:
    given: dict[str, Steerer | SteererSet] = {
        name: Steerer(method.fit(*clouds(lm, 0)), Site(1)) for name, method in alone(lm).items()
    }
    given |= over_layers(lm)
    values = REControl(ValueBarrier((4,), QUICK, folds=0), 3, T=9.0).fit(*clouds(lm, 0))
    given["values"] = Steerer(values, Site(lm.n_layers - 1, part="final"))
    for name, steerer in given.items():
        steerer.save(tmp_path / f"{name}.safetensors")
    loaded = {name: load(tmp_path / f"{name}.safetensors") for name in given}
    greedy = SamplingParams(10, temperature=0.0)
    ids = lm.encode(PROMPT).ids
    requests = [GenerationRequest(ids, greedy, (SteeringSpec(name, None),)) for name in loaded]
    texts = generated(lm, requests, loaded)
    (plain,) = lm.generate([PROMPT], max_new_tokens=10)
    moved = set()
    for (name, steerer), text in zip(given.items(), texts, strict=True):
        (expected,) = lm.generate([PROMPT], steerer, max_new_tokens=10)
        assert text.text == expected, name
        moved |= {name} if expected != plain else set()
    assert len(moved) >= len(given) - 2, sorted(set(given) - moved)
    plugin = PluginSteerers(loaded)
    shape = ModelShape(lm.width, lm.n_layers)
    assert list(plugin.incompatible(shape)) == ["values"]
    with pytest.raises(ModelError, match="behind the norm"):
        plugin.check("values", shape)
    for name in loaded.keys() - {"values"}:
        plugin.check(name, shape)
