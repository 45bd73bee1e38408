"""``odesteer export`` and ``odesteer import``."""

import random
import re
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
from command import Run
from safetensors.torch import save_file

from odesteer.artifact import load
from odesteer.models import SteeredModel


def test_export_and_import(run: Run, caa: str, model: str, tmp_path: Path) -> None:
    done = run("export", caa, "--T", 2, "--model", model, "-o", "v.gguf", "--json")
    assert done.code == 0, done.err
    assert done.document["layers"] == [1]
    assert "all tokens" in done.document["warnings"][0]
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    assert bytes(reader.fields["controlvector.model_hint"].parts[-1]) == b"llama"
    done = run("import", "v.gguf", "--model", model, "-o", "back.safetensors", "--json")
    assert done.code == 0, done.err
    back, a = load(tmp_path / "back.safetensors"), torch.randn(3, 32)
    torch.testing.assert_close(back.steer(a), load(caa).steer(a, T=2.0))
    assert back.provenance.model_id == "tiny-llama"
    shown = run("inspect", "back.safetensors")
    assert re.search(r"mean norm +unknown", shown.out)
    assert "have no meaning" in shown.out
    generated = run(
        "generate", model, "Hello", "--steer", "back.safetensors", "--max-new-tokens", 3
    )
    assert generated.code == 0, generated.err


def test_a_steerer_that_is_no_vector(run: Run, steerer: str, model: str, tmp_path: Path) -> None:
    done = run("export", steerer, "-o", "v.gguf")
    assert done.code == 1
    assert done.says("ODESteer", "mean displacement")
    assert not (tmp_path / "v.gguf").exists()
    (tmp_path / "texts.txt").write_text("The sun is out.\nIt rains all day.\nA cold night.\n")
    words = ["export", steerer, "--mean-displacement", "--prompts", "texts.txt", "-o", "v.gguf"]
    assert run(*words).says("--model")
    done = run(*words, "--model", model, "--json")
    assert done.code == 0, done.err
    assert 0 < done.document["kept"][0] <= 1
    assert (tmp_path / "v.gguf").exists()
    assert run(*words, "--model", model).says("exists", "--force")


def test_lm_eval_reads_what_is_exported(run: Run, caa: str, model: str, tmp_path: Path) -> None:
    """The real model type ``steered`` of lm-eval gives the logits that we do."""
    steered = pytest.importorskip("lm_eval.models.hf_steered", reason="lm-eval is not installed")
    assert run("export", caa, "--to", "lm-eval", "-o", "v.pt").code == 0
    other = steered.SteeredModel(
        pretrained=model, steer_path=str(tmp_path / "v.pt"), device="cpu", dtype="float32"
    )
    ids = torch.randint(7, 200, (1, 9))
    theirs = other._model_call(ids)
    lm = SteeredModel.from_pretrained(model, dtype="float32", device="cpu")
    one = load(caa)
    everywhere = replace(one, site=replace(one.site, position="all"))
    with torch.no_grad(), lm.steering(everywhere, prompt_width=9):
        ours = lm.model(ids).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.gguf"], "No such file"),
        (["v.safetensors", "--layer", 4], "4 layers"),
        (["wide.safetensors", "--layer", 1], "width 9"),
        (["v.safetensors"], "--layer"),
    ],
)
def test_bad_imports_leave_nothing(
    words: list[str], message: str, run: Run, model: str, tmp_path: Path
) -> None:
    save_file({"v": torch.ones(32)}, tmp_path / "v.safetensors")
    save_file({"v": torch.ones(9)}, tmp_path / "wide.safetensors")
    done = run("import", *words, "--model", model, "-o", "s.safetensors")
    assert done.code == 1
    assert done.says(message)
    assert not (tmp_path / "s.safetensors").exists()


def test_the_source_is_never_replaced_unasked(run: Run, caa: str) -> None:
    before = Path(caa).read_bytes()
    assert run("export", caa, "-o", caa).says("exists")
    assert Path(caa).read_bytes() == before


def test_transfer(run: Run, steerer: str, model: str, tmp_path: Path) -> None:
    draw = random.Random(0)
    words = "the sun rain old red cold warm house sea two men in by".split()  # noqa: SIM905
    lines = [" ".join(draw.choices(words, k=6)) for _ in range(80)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    call = ["transfer", steerer, "--from", model, "--to", model, "--layer", 2]
    call += ["--texts", "texts.txt", "-o", "moved.safetensors", "--json"]
    refused = run(*call, "--least-explained", 1)
    assert refused.code != 0
    assert refused.says("explains", "of the variance of the barrier")
    assert not (tmp_path / "moved.safetensors").exists()
    done = run(*call, "--least-explained", -9)
    assert done.code == 0, done.err
    assert done.document["layer"] == 2
    assert done.document["explained_barrier"] <= 1
    moved = load(tmp_path / "moved.safetensors")
    assert moved.site.layer == 2
    assert run(*call).says("exists", "--force")
    assert run("transfer", steerer, "--to", model, "--texts", "no.txt", "-o", "x").code != 0
