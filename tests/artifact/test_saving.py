"""Saving and loading of steerers."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted_methods import WIDTH, Collector, clouds
from torch import Tensor

import odesteer
import trained
from barrier_cases import TINY_SAE
from odesteer.artifact import Provenance, Site, Steerer, load, save
from odesteer.artifact.serialization import FAMILIES, encode, registry_of
from odesteer.barriers import (
    Centred,
    FrozenBarrier,
    GatedPotential,
    LinearBarrier,
    LinearDiscriminantBarrier,
    MinimumBarrier,
    MultiLabelBarrier,
    NeighbourBarrier,
    NeuralBarrier,
    NeuralPotential,
    PolynomialBarrier,
    ProductBarrier,
    ProjectedBarrier,
    QuadraticPotential,
    RandomFourierBarrier,
    SAEBarrier,
    SharedProjectionBarrier,
    Standardized,
    StandardizedSphere,
    TensorSketchBarrier,
    Training,
)
from odesteer.errors import ArtifactError, InvalidInputError, NotFittedError
from odesteer.estimator import Parametrised
from odesteer.flows import (
    RK4,
    BogackiShampine,
    Certified,
    Covariance,
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
    Amount,
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

METHODS = [
    ODESteer(),
    ODESteer.paper(),
    ODESteer(barrier=LinearBarrier(), level=-0.5, solver=Midpoint()),
    ODESteer(
        barrier=LinearDiscriminantBarrier(inputs=StandardizedSphere()), solver=ThreeEighths(2)
    ),
    ODESteer(barrier=PolynomialBarrier(inputs=Centred(), C=(1.0, 10.0)), solver=Geodesic(4)),
    ODESteer(barrier=PolynomialBarrier(3, inputs=Standardized(1.0))),
    ODESteer(barrier=PolynomialBarrier(degree=3), solver=Certified(RK4(3))),
    ODESteer(barrier=RandomFourierBarrier(n_components=200, seed=3), metric=Covariance()),
    ODESteer(barrier=TensorSketchBarrier(degree=3, n_components=100, folds=0), solver=Euler(3)),
    ODESteer(barrier=SAEBarrier(TINY_SAE)),
    ODESteer(
        barrier=NeuralBarrier(
            (5, 3), Training(learning_rate=0.05, validation=0, max_epochs=20), folds=0
        )
    ),
    ODESteer(
        metric=MatrixMetric(2 * torch.eye(WIDTH)), solver=BogackiShampine(), level=None, T=2.0
    ),
    CAA(T=0.5),
    Spherical(),
    SubspaceMap(rank=3),
    Ablation(),
    TwoSided(LinearBarrier()),
    LeastIntervention(metric=NullSpace()),
    GatedDirection(),
    Setpoint(),
    Bridge(10, 3),
    ODESteer(
        SharedProjectionBarrier(2, (4,), Training(0.05, max_epochs=20, keep_best=True), folds=0)
    ),
    SphericalSteering(2.0, -0.5, 0.7),
    Conditional(CAA(), gate=NeighbourBarrier(3)),
    ODESteer(
        MultiLabelBarrier(hidden=(4,), training=Training(0.05, max_epochs=20, keep_best=True))
    ),
    ODESteer(ProjectedBarrier(rank=3)),
    HPR(hidden=(5,)),
    REControl(n_steps=3, regularisation=0.5),
    TruthFlow(rank=4, solver=Midpoint(3), hidden=(6,)),
    QueryTruthFlow(
        rank=4, solver=Midpoint(3), hidden=(6,), training=Training(max_epochs=5, keep_best=True)
    ),
    RepE(),
    ITI(),
    HeadITI(n_heads=3, top_k=2),
    MiMiC(),
    LinearAcT(),
    Angular(),
    NormPreserving(LinearAcT()),
    EndToEnd(),
    EndToEnd(GatedPotential(), objective=Likelihood()),
    EndToEnd(QuadraticPotential(3), objective=Distillation("Be kind."), kl=0.2),
    EndToEnd(NeuralPotential(4), objective=Reward(), seed=2),
    OneStep(MinimumBarrier(temperature=0.5)),
    Conditional(CAA(), gate=FrozenBarrier(LinearBarrier(folds=0).fit(*clouds()))),
    Sum((ODESteer(ProductBarrier()), RepE()), weights=(1.0, -0.5)),
]


def parts(spec: Any) -> set[tuple[str, str]]:
    """Family and name of every object in a spec."""
    if isinstance(spec, list):
        return set().union(*map(parts, spec))
    if not isinstance(spec, dict):
        return set()
    own = {(spec["family"], spec["name"])} if "family" in spec else set()
    return own.union(*map(parts, spec.values()))


def test_every_registered_class_is_saved_here() -> None:
    saved = set().union(
        *(parts(encode(trained.fitted(method, *clouds()))[0]) for method in METHODS)
    )
    assert saved == {(f, name) for f in FAMILIES for name in registry_of(f)}


def same(x: Any, y: Any) -> bool:
    """Whether two values agree in type, in memory layout and to the bit."""
    if isinstance(x, Tensor):
        return (
            x.dtype == y.dtype
            and x.stride() == y.stride()
            and torch.equal(x, y)
            and torch.equal(torch.signbit(x), torch.signbit(y))
        )
    if isinstance(x, Parametrised):
        return type(x) is type(y) and same(vars(x), vars(y))
    if isinstance(x, (list, tuple)):
        return type(x) is type(y) and len(x) == len(y) and all(map(same, x, y))
    if isinstance(x, dict):
        return set(x) == set(y) and all(same(x[key], y[key]) for key in x)
    return type(x) is type(y) and repr(x) == repr(y)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_loaded_methods_steer_the_same_to_the_bit(method: Method, tmp_path: Path) -> None:
    method = trained.fitted(method, *clouds())
    save(method, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    assert same(loaded.method, method)
    a = torch.randn(7, WIDTH)
    for quantity in method.quantities:
        amount = Amount(quantity, 0.7)
        assert torch.equal(loaded.solve(a, amount).state, method.solve(a, amount).state)
    assert not torch.equal(loaded.steer(a), a)


def test_memory_order_is_kept(tmp_path: Path) -> None:
    # The paper's sketch leaves an eigenbasis stored by columns, and products round accordingly.
    method = ODESteer.paper().fit(*clouds(64))
    assert not method.barrier.function_.basis_.is_contiguous()  # type: ignore[attr-defined]
    save(method, tmp_path / "a.safetensors")
    a = torch.randn(3, 64)
    assert torch.equal(load(tmp_path / "a.safetensors").steer(a, T=3.0), method.steer(a, T=3.0))


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_equal_fits_give_equal_files(steerer: Steerer, saved: Path, tmp_path: Path) -> None:
    again = replace(steerer, method=ODESteer().fit(*clouds()))
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()
    assert again.digest() == steerer.digest()


def test_site_and_provenance_come_back(steerer: Steerer, saved: Path) -> None:
    loaded = load(saved)
    assert loaded.site == steerer.site
    assert loaded.provenance == replace(steerer.provenance, odesteer_version=odesteer.__version__)


def test_the_fitting_version_is_kept(steerer: Steerer, tmp_path: Path) -> None:
    old = replace(steerer, provenance=replace(steerer.provenance, odesteer_version="0.0.7"))
    old.save(tmp_path / "old.safetensors")
    assert load(tmp_path / "old.safetensors").provenance.odesteer_version == "0.0.7"


def test_every_kind_of_value_comes_back(collector: Collector, tmp_path: Path) -> None:
    save(collector, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    assert same(loaded.method, collector)
    save(loaded, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_unknown_quantiles_come_back(tmp_path: Path) -> None:
    # As of a barrier that was built from published tables and not fitted here.
    method = ODESteer(level=None, T=2.0).fit(*clouds())
    method.barrier.upper_ = method.barrier.lower_ = float("nan")
    save(method, tmp_path / "a.safetensors")
    assert same(load(tmp_path / "a.safetensors").method, method)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "option .* nan"),
        (torch.tensor([1.0, float("inf")]), "option .* not finite"),
        (torch.ones(2).to_sparse(), r"option .* torch\.sparse_coo"),
        (torch.ones(2, dtype=torch.complex64), r"option .* torch\.complex64"),
        ({1: 2}, "option .* dict"),
        (len, "option .* builtin_function_or_method"),
        ([object()], r"option\.0 .* object"),
    ],
)
def test_what_cannot_be_saved_is_refused(
    collector: Collector, value: Any, told: str, tmp_path: Path
) -> None:
    collector.option = value
    with pytest.raises(InvalidInputError, match=told):
        save(collector, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_unregistered_methods_are_refused(tmp_path: Path) -> None:
    class Homeless(CAA):
        pass

    with pytest.raises(InvalidInputError, match="Homeless is not a registered method"):
        save(Homeless().fit(*clouds()), tmp_path / "a.safetensors")


def test_loading_fits_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("fit was called")

    monkeypatch.setattr(Method, "fit", refuse)
    monkeypatch.setattr(PolynomialBarrier, "fit", refuse)
    assert load(saved).method.is_fitted


def test_steerers_hold_fitted_methods_of_the_right_width(provenance: Provenance) -> None:
    with pytest.raises(NotFittedError):
        Steerer(CAA())
    with pytest.raises(InvalidInputError, match="Method"):
        Steerer("caa")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"width 5.* width 12"):
        Steerer(CAA().fit(*clouds(5)), None, provenance)
    with pytest.raises(InvalidInputError, match=r"layer 4.* 4 layers"):
        Steerer(CAA().fit(*clouds()), Site(4), provenance)


@pytest.mark.parametrize(
    "path",
    ["", "missing/a.safetensors", "/dev/null", "a" * 300, "nul\0byte"],
    ids=["folder", "missing folder", "device", "long name", "null byte"],
)
def test_paths_that_cannot_be_written(caa: Method, path: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write"):
        save(caa, tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_read_only_files_are_kept(
    caa: Method, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    # Root may write anything, so the answer of the system is given here.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != saved)
    with pytest.raises(ArtifactError, match="read-only"):
        save(caa, saved)
    assert saved.read_bytes() == before


def test_read_only_folders(caa: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ArtifactError, match="Permission denied"):
        save(caa, tmp_path / "a.safetensors")


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_interrupted_writing_leaves_the_old_file(
    caa: Method,
    saved: Path,
    failure: BaseException,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise failure

    before = saved.read_bytes()
    if moment == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((KeyboardInterrupt, ArtifactError)):
        save(caa, saved)
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == before


def test_links_are_followed(caa: Method, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    link = tmp_path / "link.safetensors"
    link.symlink_to(tmp_path / "store" / "real.safetensors")
    save(caa, link)
    assert link.is_symlink()
    assert load(tmp_path / "store" / "real.safetensors").method.is_fitted
