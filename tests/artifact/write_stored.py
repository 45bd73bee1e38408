"""Writes the artifacts in ``stored/``, with the outputs that they give.

``python tests/artifact/write_stored.py`` writes those of the list that are missing, after a new
method, barrier, solver, metric or kind of inputs was registered, and never writes one again: every
release has to load what is there and compute the same. For each NAME there are

    NAME.safetensors           the artifact
    NAME.expected.safetensors  inputs [n, d], outputs [n, d] of each of its steerers at the default
                               amount, and values [n] of their barriers and of the conditions of
                               their gates; in the metadata its digest and how this machine computes

Inputs are float64 and steered one row at a time, so that no choice of kernel by the size of a batch
or by the device enters.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

import trained
from odesteer.artifact import Provenance, Site, Steerer, SteererSet
from odesteer.autoencoders import SparseAutoencoder
from odesteer.barriers import (
    Centred,
    FrozenBarrier,
    GatedPotential,
    HeadBarrier,
    HomogeneousBarrier,
    LinearBarrier,
    LinearDiscriminantBarrier,
    LogisticProbeBarrier,
    MeanDifferenceBarrier,
    MinimumBarrier,
    MultiLabelBarrier,
    NeighbourBarrier,
    NeuralBarrier,
    NeuralPotential,
    PolynomialBarrier,
    PrincipalDifferenceBarrier,
    ProductBarrier,
    ProjectedBarrier,
    QuadraticDiscriminantBarrier,
    QuadraticPotential,
    RandomFourierBarrier,
    Raw,
    SAEBarrier,
    SharedProjectionBarrier,
    Standardized,
    StandardizedSphere,
    TensorSketchBarrier,
    Training,
    UnitSphere,
    ValueBarrier,
)
from odesteer.flows import (
    RK4,
    BogackiShampine,
    Certified,
    Covariance,
    Euclidean,
    Euler,
    Geodesic,
    MatrixMetric,
    Midpoint,
    NullSpace,
    ThreeEighths,
)
from odesteer.methods import (
    CAA,
    HPR,
    ITI,
    Ablation,
    Angular,
    Bridge,
    Conditional,
    Distillation,
    EndToEnd,
    GatedDirection,
    HeadITI,
    LeastIntervention,
    Likelihood,
    LinearAcT,
    Method,
    MiMiC,
    NormPreserving,
    ODESteer,
    OneStep,
    QueryTruthFlow,
    REControl,
    RepE,
    Reward,
    Setpoint,
    Spherical,
    SphericalSteering,
    SubspaceMap,
    Sum,
    TruthFlow,
    TwoSided,
)

FOLDER = Path(__file__).absolute().with_name("stored")
WIDTH = 8
HEADS = 4


def contrast() -> tuple[Tensor, Tensor]:
    """Overlapping positives and negatives `[n, d]` to fit on."""
    generator = torch.Generator().manual_seed(8)
    positive = torch.randn(40, WIDTH, generator=generator) + 0.5
    return positive, 1.3 * torch.randn(36, WIDTH, generator=generator)


def inputs() -> Tensor:
    """Activations `[n, d]` that nothing was fitted on, float64."""
    generator = torch.Generator().manual_seed(88)
    return 1.2 * torch.randn(5, WIDTH, generator=generator, dtype=torch.float64)


def steerer(method: Method, site: Site | None = None) -> Steerer:
    """The method fitted, at a layer of a model that is only named."""
    fitted = trained.fitted(method, *contrast())
    part = None if site is None else site.part
    origin = Provenance(
        model_id="org/some-model",
        model_revision="0123abc",
        model_width=HEADS * WIDTH if part == "heads" else WIDTH,
        n_layers=6,
        n_heads=HEADS if part == "heads" else None,
        capture_position="last",
        data_digest="00" * 32,
        n_positive=40,
        n_negative=36,
        seed=0,
        held_out={"auc": 0.875},
    )
    return Steerer(fitted, site, origin)


def write_autoencoder() -> None:
    """Make ``my-sae`` in the present folder: the path is in the file of a steerer."""
    generator = torch.Generator().manual_seed(808)
    decoder = torch.randn(20, WIDTH, generator=generator)
    biases = 0.1 * torch.randn(20, generator=generator)
    names = {0: "sun, smile"}
    thresholds = 0.3 * torch.rand(20, generator=generator)
    SparseAutoencoder(
        decoder.T.clone(), biases, decoder, torch.zeros(WIDTH), "jumprelu", thresholds, names=names
    ).save("my-sae")


def listed() -> dict[str, Steerer | SteererSet]:
    """Every artifact by name, fitted."""
    methods = {
        "odesteer": ODESteer(),
        "odesteer-paper": ODESteer.paper(),
        "one-step": OneStep(MinimumBarrier(temperature=0.5)),
        "caa": CAA(),
        "caa-deviations": CAA(1.5, max_strength=4.0),
        "repe": RepE(),
        "iti": ITI(),
        "head-iti": HeadITI(n_heads=HEADS, top_k=2),
        "mimic": MiMiC(),
        "linear-act": LinearAcT(),
        "hpr": HPR(hidden=(5,)),
        "recontrol": REControl(n_steps=3, regularisation=0.5),
        "truthflow": TruthFlow(rank=4, hidden=(6,), learning_rate=0.05),
        "query-truthflow": QueryTruthFlow(
            rank=4, solver=Midpoint(4), hidden=(6,), training=Training(0.02, max_epochs=40)
        ),
        "angular": Angular(),
        "norm-preserving": NormPreserving(LinearAcT()),
        "spherical": Spherical(),
        "conditional": Conditional(CAA(), gate=FrozenBarrier(LinearBarrier().fit(*contrast()))),
        "subspace-map": SubspaceMap(rank=3),
        "ablation": Ablation("positive"),
        "two-sided": TwoSided(LinearBarrier()),
        "spherical-steering": SphericalSteering(2.0, -0.5, 0.7),
        "linear-act-support": LinearAcT(support=True),
        "hpr-both": HPR(hidden=(5,), learners="both"),
        "angular-by": Angular(20.0, turn="by"),
        "least-intervention": LeastIntervention(),
        "gated-direction": GatedDirection(),
        "setpoint": Setpoint(),
        "bridge": Bridge(20, 4),
        "sum": Sum((ODESteer(LinearBarrier()), RepE()), weights=(1.0, -0.5)),
    }
    barriers = {
        "linear": LinearBarrier(),
        "logistic-probe": LogisticProbeBarrier(),
        "homogeneous": HomogeneousBarrier(),
        "mean-difference": MeanDifferenceBarrier(),
        "linear-discriminant": LinearDiscriminantBarrier(),
        "quadratic-discriminant": QuadraticDiscriminantBarrier(),
        "principal-difference": PrincipalDifferenceBarrier(False),
        "heads": HeadBarrier(HEADS),
        "polynomial": PolynomialBarrier(),
        "polynomial-cubic": PolynomialBarrier(degree=3, gamma=1.0),
        "polynomial-landmarks": PolynomialBarrier(max_exact=20, n_landmarks=16),
        "tensor-sketch": TensorSketchBarrier(degree=3, n_components=40),
        "random-fourier": RandomFourierBarrier(n_components=40, seed=3),
        "neural": NeuralBarrier(hidden=(5, 3), max_epochs=20),
        "cubic-standardized": PolynomialBarrier(3, inputs=StandardizedSphere(True)),
        "neural-training": NeuralBarrier((4,), Training(max_epochs=10, keep_best=True)),
        "value": ValueBarrier(hidden=(5,)),
        "sae": SAEBarrier("my-sae", n_features=6),
        "product": ProductBarrier((LinearBarrier(), PolynomialBarrier())),
        "minimum": MinimumBarrier((LinearBarrier(), PolynomialBarrier()), temperature=0.3),
        "multi-label": MultiLabelBarrier(
            hidden=(4,), training=Training(0.05, max_epochs=20, keep_best=True)
        ),
        "neighbours": NeighbourBarrier(3),
        "shared-projection": SharedProjectionBarrier(
            3, (4,), Training(0.05, max_epochs=20, keep_best=True)
        ),
        "projected": ProjectedBarrier(PolynomialBarrier(), 3),
        "frozen": FrozenBarrier(PolynomialBarrier().fit(*contrast())),
    }
    kinds_of_inputs = {
        "raw": Raw(),
        "unit-sphere": UnitSphere(),
        "centred": Centred(),
        "standardized": Standardized(1.0),
        "standardized-sphere": StandardizedSphere(),
        "chosen": (UnitSphere(), Standardized(1.0)),
    }
    solvers = {
        "euler": Euler(3),
        "midpoint": Midpoint(),
        "rk4": RK4(3),
        "three-eighths": ThreeEighths(2),
        "bogacki-shampine": BogackiShampine(),
        "geodesic": Geodesic(4),
        "certified": Certified(RK4(3)),
    }
    metrics = {
        "euclidean": Euclidean(),
        "covariance": Covariance(),
        "null-space": NullSpace(),
        "matrix": MatrixMetric(torch.diag(torch.arange(1.0, WIDTH + 1))),
    }
    learned = {
        "linear": EndToEnd(),
        "gated": EndToEnd(GatedPotential(), Likelihood()),
        "quadratic": EndToEnd(QuadraticPotential(3), Distillation("Be kind."), kl=0.2),
        "neural": EndToEnd(NeuralPotential(4), Reward(), solver=RK4(2)),
    }
    found: dict[str, Steerer | SteererSet] = {}
    for name, trained_one in learned.items():
        found[f"end-to-end-{name}"] = steerer(trained_one, Site(2))
    for name, method in methods.items():
        site = Site(2, part="heads") if name == "head-iti" else Site(2)
        found[f"method-{name}"] = steerer(method, site)
    for name, barrier in barriers.items():
        found[f"barrier-{name}"] = steerer(ODESteer(barrier), Site(3, "generated"))
    for name, kind in kinds_of_inputs.items():
        found[f"inputs-{name}"] = steerer(ODESteer(PolynomialBarrier(inputs=kind)), Site(1, "all"))
    for name, solver in solvers.items():
        found[f"solver-{name}"] = steerer(ODESteer(PolynomialBarrier(3), solver=solver), Site(0))
    for name, metric in metrics.items():
        found[f"metric-{name}"] = steerer(ODESteer(metric=metric))
    condition = steerer(ODESteer(), Site(1, part="heads"))
    several = SteererSet(
        [
            steerer(ODESteer(), Site(2)),
            steerer(CAA(T=0.5), Site(1, "all")),
            steerer(HeadITI(n_heads=HEADS, top_k=2), Site(2, part="heads")),
        ]
    )
    found["gated"] = found["method-odesteer"].when(condition, below=-0.5, pool="mean")
    found["set"] = several
    found["set-gated"] = several.when(condition, above=0.25)
    return found


def computed(artifact: Steerer | SteererSet, a: Tensor) -> dict[str, Tensor]:
    """What the artifact makes of activations `[n, d]`, one at a time."""
    found = {}
    for i, one in enumerate(artifact.members):
        found[f"outputs.{i}"] = torch.cat([one.steer(row[None]) for row in a])
        if getattr(one.method, "barrier", None) is not None:
            found[f"barriers.{i}"] = torch.cat([one.barrier.value(row[None]) for row in a])
        if one.gate is not None:
            h = one.gate.condition.barrier
            found[f"conditions.{i}"] = torch.cat([h.value(row[None]) for row in a])
            found[f"thresholds.{i}"] = torch.tensor(one.gate.threshold, dtype=torch.float64)
    return found


def arithmetic() -> str:
    """How this machine rounds, as text: two that agree here compute the same bits.

    Libraries of linear algebra and of elementary functions choose their code by the processor, and
    loops that numba has compiled round otherwise than torch.
    """
    generator = torch.Generator().manual_seed(888)
    x = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    spread = x @ x.T + torch.eye(WIDTH, dtype=torch.float64)
    results = [
        x[:1] @ x,
        x[0] @ x[1],
        x.exp(),
        x.tanh(),
        torch.nn.functional.softplus(x),
        x.cos(),
        torch.linalg.norm(x, dim=-1),
        torch.linalg.solve(spread, x[0]),
        torch.linalg.cholesky(spread),
        x.logsumexp(-1),
        x.float() @ x.float(),
    ]
    digits = [value.double().sum().item().hex() for value in results]
    return json.dumps([importlib.util.find_spec("numba") is not None, *digits])


def main() -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    os.chdir(tempfile.mkdtemp())
    write_autoencoder()
    for name, artifact in listed().items():
        path, expected = FOLDER / f"{name}.safetensors", FOLDER / f"{name}.expected.safetensors"
        if path.exists() or expected.exists():
            continue
        artifact.save(path)
        tensors = {"inputs": inputs(), **computed(artifact, inputs())}
        metadata = {"digest": artifact.digest(), "arithmetic": arithmetic()}
        expected.write_bytes(save(tensors, metadata))
        sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
