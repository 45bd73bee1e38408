"""Malformed and hostile artifact files are refused with the reason."""

import json
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted_methods import Collector, clouds
from forged_files import pack, refused, unpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as pack_safetensors

from odesteer.artifact import Steerer, format, load, save
from odesteer.artifact import safetensors_file as container
from odesteer.errors import ArtifactError
from odesteer.methods import CAA


def test_packing_again_is_loadable(original: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(pack(*unpack(original)))
    assert load(tmp_path / "x.safetensors").method.is_fitted


def test_every_truncation_is_refused(original: bytes, tmp_path: Path) -> None:
    for length in [*range(0, len(original) - 1, 7), len(original) - 1]:
        refused(original[:length], tmp_path)


def test_every_flipped_byte_is_refused(original: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    generator = random.Random(0)
    intact = load_bytes(original, path)
    for place in range(0, len(original), 3):
        flipped = bytearray(original)
        flipped[place] ^= 1 << generator.randrange(8)
        path.write_bytes(bytes(flipped))
        try:
            loaded = load(path)
        except ArtifactError:
            continue
        # Only what says the same in other words, such as white space, may pass.
        assert loaded.digest() == intact.digest()
        assert loaded.provenance == intact.provenance


def load_bytes(data: bytes, path: Path) -> Steerer:
    path.write_bytes(data)
    return load(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_rewritten_headers_never_break_the_loader(
    original: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    header, described, tensors = unpack(original)
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    )
    spot: Any = data.draw(st.sampled_from([header, described]))
    while True:
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(spot[key], (dict, list)) and spot[key] and data.draw(st.booleans()):
            spot = spot[key]
            continue
        break
    spot[key] = data.draw(values)
    try:
        forged = pack(header, described, tensors)
    except Exception:
        forged = pack(header, described, tensors, sign=False)
    path = tmp_path / "x.safetensors"
    path.write_bytes(forged)
    try:
        loaded = load(path)
    except ArtifactError:
        return
    assert loaded.method.is_fitted


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200))
def test_noise_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(data, tmp_path)
    refused(struct.pack("<Q", len(data)) + data, tmp_path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "only 0 bytes"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"PK\x03\x04" + bytes(50), "pickle or a zip"),
        (struct.pack("<Q", 2**63) + b"{}", "header of 9223372036854775808 bytes"),
        (struct.pack("<Q", 10**8 + 1) + b"{}", "at most 100000000"),
        (struct.pack("<Q", 50) + b"{}", "truncated"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (struct.pack("<Q", 200_000) + b"[" * 200_000, "nested too deep"),
        (struct.pack("<Q", 4) + b'{"\xff"', "not valid JSON"),
        (pack_safetensors({"model.embed": torch.ones(2)}), "no steerer: it holds 1 tensors"),
    ],
)
def test_other_files_are_refused_with_the_reason(data: bytes, told: str, tmp_path: Path) -> None:
    assert told in refused(data, tmp_path)


def test_missing_files_and_folders(saved: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no such file.*steerer\.safetensors"):
        load(saved.parent / "steer.safetensors")
    with pytest.raises(ArtifactError, match=r"folder.*from_pretrained"):
        load(saved.parent)


TENSOR = "direction_"
ENTRY = ("__header__", TENSOR)


def set_entry(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, described: header[TENSOR].update(changes)


def described_as(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, described: described.update(changes)


def method_as(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, described: described["method"].update(changes)


def learned_as(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, described: described["method"]["learned"].update(changes)


def params_as(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, described: described["method"]["params"].update(changes)


def tensor_as(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(header: dict[str, Any], described: dict[str, Any]) -> None:
        described["method"]["learned"][TENSOR]["tensor"].update(changes)

    return change


def deep(header: dict[str, Any], described: dict[str, Any]) -> None:
    value: Any = 1
    for _ in range(200):
        value = [value]
    described["method"]["params"]["T"] = value


LIES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], None], str]] = {
    "overlap": (set_entry(data_offsets=[8, 56]), "overlap or leave a gap"),
    "lying length": (set_entry(data_offsets=[0, 52]), "needs 48 bytes, not 52"),
    "absurd shape": (set_entry(shape=[2**40, 2**40]), "needs"),
    "huge shape of nothing": (set_entry(shape=[0, 2**70], data_offsets=[0, 0]), "the shape"),
    "negative shape": (set_entry(shape=[-12]), "the shape"),
    "boolean shape": (set_entry(shape=[True, 12]), "the shape"),
    "unknown type": (set_entry(dtype="F8_E5M2"), "unknown type"),
    "extra key": (set_entry(extra=1), "described as"),
    "newer format": (described_as(format=3, needs="0.9.0"), "odesteer 0.9.0 or later"),
    "format zero": (described_as(format=0), "format 0"),
    "format text": (described_as(format="1"), "no format version"),
    "extra field": (described_as(extra=1), "'extra'"),
    "strange site": (described_as(site={"layer": -1, "position": "last"}), "layer must be"),
    "list as site": (described_as(site=[1]), "makes no sense"),
    "provenance": (described_as(provenance={"model_width": "x"}), "model_width"),
    "provenance key": (described_as(provenance={"mood": 1}), "mood"),
    "other width": (described_as(provenance={"model_width": 7}), "width 12.* width 7"),
    "unknown method": (method_as(name="cas"), "Did you mean 'caa'.* plugin"),
    "a module as name": (method_as(name="os:system"), "unknown method 'os:system'"),
    "unknown family": (method_as(family="builtins"), "a method expected"),
    "other family": (method_as(family="solver", name="euler"), "a method expected"),
    "no name": (method_as(name=None), "must be strings"),
    "missing part": (lambda header, described: described["method"].pop("params"), "fields family"),
    "unknown parameter": (params_as(gain=1), "unknown here: gain"),
    "missing parameter": (lambda h, d: d["method"]["params"].pop("T"), "missing: amount"),
    "infinite parameter": (params_as(T=1e999), "not valid JSON|not finite"),
    "wrong parameter": (params_as(T="far"), "do not fit together|must be a number|far"),
    "no value": (params_as(T={"pickle": "x"}), "describes no value"),
    "missing tensor": (tensor_as(name="gone"), "'gone' is missing"),
    "tensor used twice": (learned_as(other_={"tensor": None}), "fields name"),
    "other dtype": (tensor_as(dtype="float64"), "should be 'float64'"),
    "other shape": (tensor_as(shape=[3, 4]), "should be"),
    "strange order": (tensor_as(order=[1]), "no order of 1 dimensions"),
    "unhashable order": (tensor_as(order=[[0]]), "no order of 1 dimensions"),
    "unused tensor": (lambda h, d: d["method"]["learned"].pop(TENSOR), "belong to nothing"),
    "method as attribute": (learned_as(fit=1), "not a learned attribute"),
    "private attribute": (learned_as(__class__=1), "not a learned attribute"),
    "no width": (learned_as(width_=None), "has width None"),
    "huge width": (learned_as(width_=2**40), "no tensor is as long"),
    "width text": (learned_as(width_="12"), "has width '12'"),
    "unknown norm": (learned_as(mean_norm_={"number": "unknown"}), "mean norm nan"),
    "unknown parameter value": (params_as(T={"number": "unknown"}), "describes no value"),
    "list as learned": (method_as(learned=[]), "values by name|belong to nothing"),
    "negative norm": (learned_as(mean_norm_=-1.0), "mean norm -1.0"),
    "too deep": (deep, "nested more than 32 deep"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_with_the_reason(lie: str, original: bytes, tmp_path: Path) -> None:
    change, told = LIES[lie]
    header, described, tensors = unpack(original)
    change(header, described)
    try:
        forged = pack(header, described, tensors)
    except (RuntimeError, ValueError, KeyError, TypeError):
        forged = pack(header, described, tensors, sign=False)
    reason = refused(forged, tmp_path)
    assert any(all(p in reason for p in option.split(".*")) for option in told.split("|")), reason


def test_signed_tensors_with_nan_are_refused(original: bytes, tmp_path: Path) -> None:
    header, described, tensors = unpack(original)
    begin, _ = header[TENSOR]["data_offsets"]
    poisoned = tensors[:begin] + struct.pack("<f", float("nan")) + tensors[begin + 4 :]
    assert "not finite" in refused(pack(header, described, poisoned), tmp_path)


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_begins_like_a_pickle_is_read(length: int, tmp_path: Path) -> None:
    data = struct.pack("<Q", length) + b"{" + b" " * (length - 2) + b"}"
    assert "no steerer" in refused(data, tmp_path)


def test_unsigned_changes_are_refused(original: bytes, tmp_path: Path) -> None:
    header, described, tensors = unpack(original)
    described["provenance"]["model_id"] = "org/other"
    assert "checksum" in refused(pack(header, described, tensors, sign=False), tmp_path)


def test_bytes_after_the_tensors_are_refused(original: bytes, tmp_path: Path) -> None:
    assert "too long" in refused(original + b"\0", tmp_path)


def test_keys_that_stand_twice_are_refused(original: bytes, tmp_path: Path) -> None:
    (length,) = struct.unpack("<Q", original[:8])
    header = original[8 : 8 + length].rstrip()
    doubled = header[:-1] + b',"direction_":' + json.dumps(unpack(original)[0][TENSOR]).encode()
    raw = doubled + b"}"
    forged = struct.pack("<Q", len(raw)) + raw + original[8 + length :]
    assert "stands twice" in refused(forged, tmp_path)


def test_parts_of_other_widths_are_refused(tmp_path: Path) -> None:
    method, narrow = CAA().fit(*clouds()), CAA().fit(*clouds(5))
    assert isinstance(method, CAA)
    assert isinstance(narrow, CAA)
    method.barrier_ = narrow.barrier_
    save(method, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="width 12, but its barrier has width 5"):
        load(tmp_path / "x.safetensors")


def test_tensors_that_do_not_fit_together_are_refused(collector: Collector, tmp_path: Path) -> None:
    collector.direction_ = torch.ones(5)
    save(collector, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="do not fit together"):
        load(tmp_path / "x.safetensors")


def test_plugins_that_are_gone_are_named(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(collector, tmp_path / "x.safetensors")
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match=r"unknown method 'collector'.*plugin package"):
        load(tmp_path / "x.safetensors")


def test_the_limit_of_headers_is_that_of_safetensors() -> None:
    assert container.MAX_HEADER_BYTES == 100_000_000
    assert format.FORMAT == 2
