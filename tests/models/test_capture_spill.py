"""Activations on disk: the same numbers, resumed after a kill, a layer at a time in memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from steerers import Watch, caa, pairs

import odesteer.models.capture.spill as room
import tiny_models
from odesteer.data import Example
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA
from odesteer.models import SteeredModel
from odesteer.models.capture import capturer as capture
from odesteer.models.capture import spill as shards
from odesteer.models.tokens.batches import estimate_batch_size

WORDS = ["the", "dog", "and", "cat", "who", "a kind word", "bitter", "lovely"]
EXAMPLES = [Example(f"{WORDS[i % 8]}?" * (i % 3), f" {WORDS[i % 5]} {i}") for i in range(24)]
LAYERS = [0, 3]
POSITIONS: Any = ("prompt", "answer")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is a shard."""
    monkeypatch.setattr(shards.ActivationShards.__init__, "__defaults__", (1,))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("position", ["last", "answer", "random_answer"])
def test_the_numbers_are_those_in_memory(lm: SteeredModel, tmp_path: Path, position: Any) -> None:
    wanted = lm.capture(EXAMPLES, LAYERS, position, batch_size=5)
    stored = lm.capture(EXAMPLES, LAYERS, position, batch_size=5, folder=tmp_path)
    assert list(stored.states) == LAYERS
    for layer in LAYERS:
        assert torch.equal(stored.states[layer], wanted.states[layer])
    assert torch.equal(stored.example, wanted.example)
    assert files(tmp_path) == ["capture.json", *(f"shard-{i:05}.safetensors" for i in range(5))]
    with pytest.raises(KeyError):
        stored.states[1]


def test_half_precision_is_kept_as_it_is(tmp_path: Path) -> None:
    from safetensors import safe_open

    lm = SteeredModel(tiny_models.llama().bfloat16(), tiny_models.tokenizer())
    stored = lm.capture(EXAMPLES, 1, folder=tmp_path)
    with safe_open(tmp_path / "shard-00000.safetensors", "pt") as shard:
        assert shard.get_tensor("layer.1").dtype == torch.bfloat16
    assert stored.states[1].dtype == torch.float32
    assert torch.equal(stored.states[1], lm.capture(EXAMPLES, 1).states[1])


@pytest.mark.usefixtures("small_shards")
def test_what_is_there_is_not_computed_again(lm: SteeredModel, tmp_path: Path) -> None:
    wanted = lm.capture(EXAMPLES, LAYERS, batch_size=5, folder=tmp_path)
    kept = {layer: wanted.states[layer] for layer in LAYERS}
    (tmp_path / "shard-00004.safetensors").unlink()
    (tmp_path / ".shard-00004.safetensors.0badcafe.partial").write_bytes(b"half of i")
    with Watch(lm.layers.at(0)) as ran:
        again = lm.capture(EXAMPLES, LAYERS, batch_size=5, folder=tmp_path)
    assert len(ran.states) == 1
    for layer in LAYERS:
        assert torch.equal(again.states[layer], kept[layer])
    with Watch(lm.layers.at(0)) as ran:
        lm.capture(EXAMPLES, LAYERS, batch_size=5, folder=tmp_path)
    assert not ran.states
    assert not any(name.endswith(".partial") for name in files(tmp_path))


def test_a_folder_of_something_else_is_refused(lm: SteeredModel, tmp_path: Path) -> None:
    lm.capture(EXAMPLES, LAYERS, folder=tmp_path / "one")
    other = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    with torch.no_grad():
        other.model.model.embed_tokens.weight.mul_(1.5)
    for model, examples, layers, options in (
        (lm, EXAMPLES[1:], LAYERS, {}),
        (lm, EXAMPLES, [0], {}),
        (lm, EXAMPLES, LAYERS, {"position": "answer"}),
        (lm, EXAMPLES, LAYERS, {"side": "left"}),
        (other, EXAMPLES, LAYERS, {}),
    ):
        with pytest.raises(InvalidInputError, match="holds the activations of another capture"):
            model.capture(examples, layers, **options, folder=tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="is not empty and holds no capture"):
        lm.capture(EXAMPLES, LAYERS, folder=tmp_path / "two")
    (tmp_path / "one" / "capture.json").write_text("{")
    with pytest.raises(InvalidInputError, match="another capture"):
        lm.capture(EXAMPLES, LAYERS, folder=tmp_path / "one")


def test_activations_that_are_not_finite_are_not_stored(tmp_path: Path) -> None:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[lm.encode("z").ids[-1]] = torch.inf
    with pytest.raises(ModelError, match=r"1 of 2 activations after layer 1 are NaN"):
        lm.capture([Example("", "z"), Example("", "a")], 1, folder=tmp_path)
    assert files(tmp_path) == ["capture.json"]


# Runs slowly, so that it can be killed anywhere.
SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[2])
import torch
from steerers import tiny_models
from odesteer.models import SteeredModel
from odesteer.models.capture import spill as shards
from test_capture_spill import EXAMPLES, LAYERS, POSITIONS

torch.set_num_threads(1)
shards.ActivationShards.__init__.__defaults__ = (1,)
lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
lm.layers.at(0).register_forward_hook(lambda *a: time.sleep(0.05))
print("begun", flush=True)
lm.capture(EXAMPLES, LAYERS, POSITIONS, batch_size=2, folder=sys.argv[1])
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_capture_that_is_killed_goes_on(lm: SteeredModel, tmp_path: Path) -> None:
    folder = tmp_path / "activations"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), *sys.path])
    counts = []
    for kills in range(4):
        run = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), str(here)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        if kills < 3:
            before = counts[-1] if counts else 0
            for _ in range(2000):
                if len(list(folder.glob("shard-*"))) >= before + 2:
                    break
                time.sleep(0.01)
            run.send_signal(signal.SIGKILL)
            assert run.wait() == -signal.SIGKILL
        else:
            assert run.stdout.read() == "done\n"
            assert run.wait() == 0
        run.stdout.close()
        counts.append(len(list(folder.glob("shard-*.safetensors"))))
    assert 2 <= counts[0] < counts[1] < counts[2] < counts[3] == 12
    with Watch(lm.layers.at(0)) as ran:
        found = lm.capture(EXAMPLES, LAYERS, POSITIONS, batch_size=2, folder=folder)
    assert not ran.states
    for position, stored in found.items():
        wanted = lm.capture(EXAMPLES, LAYERS, position, batch_size=2)  # type: ignore[call-overload]
        for layer in LAYERS:
            assert torch.equal(stored.states[layer], wanted.states[layer])
        assert torch.equal(stored.example, wanted.example)


def test_fitting_from_disk_is_fitting_from_memory(
    lm: SteeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = lm.fit(CAA(), pairs(), LAYERS)
    given = lm.fit(CAA(), pairs(), LAYERS, folder=tmp_path)
    assert [one.digest() for one in given.members] == [one.digest() for one in wanted.members]
    assert "shard-00000.safetensors" in files(tmp_path)
    used: list[Any] = []
    inside = SteeredModel.capture

    def watched(self: SteeredModel, *args: Any, folder: Any = None, **options: Any) -> Any:
        used.append(folder)
        return inside(self, *args, folder=folder, **options)

    monkeypatch.setattr(SteeredModel, "capture", watched)
    lm.fit(CAA(), pairs(), LAYERS)
    monkeypatch.setattr(room, "free_memory", lambda: 1000)
    scratch = lm.fit(CAA(), pairs(), LAYERS)
    assert [one.digest() for one in scratch.members] == [one.digest() for one in wanted.members]
    assert used[0] is None
    assert not Path(used[1]).exists()  # a temporary folder, gone


def test_one_layer_at_a_time_is_in_memory(lm: SteeredModel, tmp_path: Path) -> None:
    stored = lm.capture(EXAMPLES, LAYERS, folder=tmp_path)
    first = stored.states[0]
    assert stored.states[0] is not first


def test_batch_sizes_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.llama()
    assert estimate_batch_size(10_000, model, torch.device("cpu")) == 16
    cuda = torch.device("cuda")
    token = 4 * (12 * 32 + 3 * 48)
    for free, size in ((2 * 8 * 100 * token, 8), (2 * 15 * 100 * token, 8), (1, 1), (2**50, 1024)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 0))
        assert estimate_batch_size(100, model, cuda) == size


def test_batches_that_were_halved_are_not_stored_twice(
    lm: SteeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the halves of a batch for which memory had run out."""
    monkeypatch.setattr(shards.ActivationShards.__init__, "__defaults__", (1,))
    wanted = lm.capture(EXAMPLES, 1, "answer", batch_size=4)
    inside, sizes = capture.Capturer._run, list[int]()

    def short(self: Any, batch: Any, *args: Any) -> Any:
        sizes.append(len(batch))
        if len(sizes) == 4:
            raise KeyboardInterrupt
        return None if len(batch) > 2 else inside(self, batch, *args)

    with monkeypatch.context() as patch:
        patch.setattr(capture.Capturer, "_run", short)
        with pytest.raises(KeyboardInterrupt):
            lm.capture(EXAMPLES, 1, "answer", batch_size=4, folder=tmp_path)
    assert sizes == [4, 2, 2, 4]
    (tmp_path / "shard-00001.safetensors").unlink()
    stored = lm.capture(EXAMPLES, 1, "answer", batch_size=4, folder=tmp_path)
    torch.testing.assert_close(stored.states[1], wanted.states[1], rtol=1e-4, atol=1e-5)
    assert torch.equal(stored.example, wanted.example)


def test_nothing_is_left_steered(lm: SteeredModel, tmp_path: Path) -> None:
    with lm.steering(caa(layer=0, position="all")):
        steered = lm.capture(EXAMPLES, 3, folder=tmp_path)
    assert not torch.allclose(steered.states[3], lm.capture(EXAMPLES, 3).states[3], atol=1e-3)
