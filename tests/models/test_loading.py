"""Opening models: GGUF files, options for model and tokenizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.utils
from steerers import pairs

import tiny_models
from gguf_files import save_gguf
from odesteer.errors import InvalidInputError, MissingDependencyError, ModelError
from odesteer.methods import CAA
from odesteer.models import SteeredModel


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf", reason="writing a GGUF file needs gguf")
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    save_gguf(path)
    return path


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[1, 20, 30, 40]])).logits
    return found


def test_a_gguf_file_is_a_model(gguf_file: Path) -> None:
    lm = SteeredModel.from_pretrained(str(gguf_file), device="cpu")
    torch.testing.assert_close(logits(lm.model), logits(tiny_models.llama()))
    assert lm.encode("the dog and").ids == tuple(tiny_models.tokenizer()("the dog and").input_ids)
    assert lm.tokenizer.chat_template == tiny_models.CHAT_TEMPLATE
    assert (lm.context, lm.model_id) == (tiny_models.CONTEXT, "tiny.gguf")
    fitted = lm.fit(CAA(), pairs(), 2)
    assert fitted.provenance.model_id == "tiny.gguf"
    assert len(lm.generate("the", fitted, strength=1.0, max_new_tokens=3)) == 1


def test_a_gguf_file_is_named_in_its_folder(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / gguf_file.name).write_bytes(b"GGUF, but not that of the folder")
    folder = gguf_file.parent
    for source, options in (
        (folder, {"gguf_file": gguf_file.name}),
        (folder.parent, {"gguf_file": gguf_file.name, "subfolder": folder.name}),
    ):
        lm = SteeredModel.from_pretrained(str(source), device="cpu", **options)
        assert lm.model_id == gguf_file.name


def test_a_model_of_a_gguf_file_is_saved_as_a_folder(gguf_file: Path, tmp_path: Path) -> None:
    lm = SteeredModel.from_pretrained(str(gguf_file), device="cpu")
    lm.model.save_pretrained(tmp_path / "plain")
    lm.tokenizer.save_pretrained(tmp_path / "plain")
    again = SteeredModel.from_pretrained(str(tmp_path / "plain"), device="cpu")
    assert torch.equal(logits(again.model), logits(lm.model))
    assert again.encode("the dog") == lm.encode("the dog")


def test_gguf_files_that_cannot_be_opened(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gguf_file.read_bytes()
    (tmp_path / "short.gguf").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.gguf").write_text("not weights")
    with pytest.raises(ModelError, match=r"cannot load the GGUF file .*short.gguf': it is damaged"):
        SteeredModel.from_pretrained(str(tmp_path / "short.gguf"), device="cpu")
    with pytest.raises(ModelError, match=r"text.gguf' is not a GGUF file"):
        SteeredModel.from_pretrained(str(tmp_path / "text.gguf"))
    with pytest.raises(ModelError, match=r"there is no file missing.gguf"):
        SteeredModel.from_pretrained("missing.gguf")
    with pytest.raises(ModelError, match=r"no file 'a.gguf' in .* short.gguf, text.gguf"):
        SteeredModel.from_pretrained(str(tmp_path), gguf_file="a.gguf")
    with pytest.raises(ModelError, match=r"To open a GGUF file, name it: .*/short.gguf"):
        SteeredModel.from_pretrained(str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"is a file; with gguf_file='a.gguf' give"):
        SteeredModel.from_pretrained(str(gguf_file), gguf_file="a.gguf")
    monkeypatch.setattr(transformers.utils, "is_gguf_available", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'odesteer\[gguf\]'"):
        SteeredModel.from_pretrained(str(gguf_file))
