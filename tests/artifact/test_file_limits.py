"""Files that would cost too much time or memory are refused before anything of them is used."""

import inspect
import resource
from pathlib import Path

import pytest
from fitted_methods import clouds
from forged_files import pack, refused, unpack

from odesteer.artifact import FileLimits, Steerer, load, save
from odesteer.artifact.serialization import FAMILIES, registry_of
from odesteer.barriers import LinearBarrier, TensorSketchBarrier
from odesteer.errors import ArtifactError
from odesteer.flows import Certified, Euler
from odesteer.methods import ODESteer


def test_costly_parameters_are_refused_before_anything_runs(tmp_path: Path) -> None:
    """A billion steps of a solver, of which a file of some kilobytes can ask for."""
    path = tmp_path / "x.safetensors"
    fitted = ODESteer(LinearBarrier(folds=0), Certified(Euler(10))).fit(*clouds())
    save(fitted, path)
    header, described, tensors = unpack(path.read_bytes())
    solver = described["method"]["params"]["solver"]["object"]["params"]
    inner = solver["solver"]["object"]["params"]
    for params, name in ((solver, "max_steps"), (inner, "n_steps")):
        before, params[name] = params[name], 10**9
        reason = refused(pack(header, described, tensors), tmp_path)
        assert f"the parameter {name} of" in reason
        assert "1000000000, and files may have 50000" in reason
        assert "limits=None" in reason
        params[name] = before
    solver["max_steps"] = inner["n_steps"] = 30
    path.write_bytes(pack(header, described, tensors))
    with pytest.raises(ArtifactError, match="steps of its solvers together are too many: 60"):
        load(path, limits=FileLimits(n_steps=50))
    assert load(path, limits=FileLimits(n_steps=60)).method.is_fitted
    assert load(path, limits=None).method.is_fitted
    assert Steerer.load(path, limits=None).method.is_fitted


def test_costly_sizes_are_refused(tmp_path: Path) -> None:
    sketch = TensorSketchBarrier(n_components=16, folds=0)
    path = tmp_path / "x.safetensors"
    save(ODESteer(sketch).fit(*clouds()), path)
    header, described, tensors = unpack(path.read_bytes())
    described["method"]["params"]["barrier"]["object"]["params"]["n_components"] = 2**40
    reason = refused(pack(header, described, tensors), tmp_path)
    assert "n_components of TensorSketchBarrier is too large" in reason


def test_every_whole_number_of_a_class_is_bounded_or_used_in_fits_only() -> None:
    fit_only = {
        *("batch_size", "folds", "hidden", "max_epochs", "max_iterations"),
        *("max_new_tokens", "patience", "rank", "samples", "seed"),
        *("heads", "n_heads", "top_k"),  # bounded by the width, or choose among heads in a fit
    }
    constant_cost = {("KernelExpansion", "degree"), ("PolynomialBarrier", "degree")}
    for family in FAMILIES:
        registry = registry_of(family)
        for name in registry:
            cls = registry.get(name)
            for parameter in inspect.signature(cls).parameters.values():
                is_bounded = parameter.name in (*cls.step_parameters, *cls.size_parameters)
                if "int" in str(parameter.annotation) and parameter.name not in fit_only:
                    exempt = (cls.__name__, parameter.name) in constant_cost
                    assert is_bounded or exempt, f"{cls.__name__}.{parameter.name}"


def test_many_tensors_are_refused_at_once(original: bytes, tmp_path: Path) -> None:
    header, described, tensors = unpack(original)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    for n, reason in (
        (300_000, "too many bytes of a header: 1999"),
        (30_000, "too many tensors: 30004, and files may have 10000"),
    ):
        many = header | {f"t{i}": empty for i in range(n)}
        assert reason in refused(pack(many, described, tensors, sign=False), tmp_path)
    longer = FileLimits(n_header_bytes=2**23)
    many = header | {f"t{i}": empty for i in range(70_000)}
    assert "too many bytes of a header" in refused(pack(many, described, tensors, False), tmp_path)
    with pytest.raises(ArtifactError, match="too many tensors: 70004"):
        load(tmp_path / "x.safetensors", limits=longer)


def test_a_large_sparse_file_takes_no_memory(original: bytes, tmp_path: Path) -> None:
    """3 GB of zeros, and 6 GB that the description names as the tensor they are."""
    path = tmp_path / "x.safetensors"
    for gigabytes, message in ((3, "belong to nothing"), (6, "too many bytes of tensors")):
        header, described, tensors = unpack(original)
        size = gigabytes * 10**9
        end = len(tensors) + size
        header["big"] = {"dtype": "U8", "shape": [size], "data_offsets": [len(tensors), end]}
        data = pack(header, described, tensors, sign=False)
        with path.open("wb") as file:
            file.write(data)
            file.truncate(len(data) + size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ArtifactError, match=message):
            load(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
