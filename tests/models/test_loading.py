"""Opening models: GGUF files, options for model and tokenizer, padding, vision-language models."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
import transformers.utils
from steerers import pairs

import tiny_models
from gguf_files import save_gguf
from odesteer.data import Example
from odesteer.errors import InvalidInputError, MissingDependencyError, ModelError
from odesteer.methods import CAA
from odesteer.models import SteeredModel
from odesteer.models.architecture.loading import ModelFiles, load_outline
from odesteer.models.tokens.special_tokens import pad_token_id


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


def test_a_gguf_file_is_a_model(gguf_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lm = SteeredModel.from_pretrained(str(gguf_file), device="cpu")
    assert "GGUF tensors" not in capfd.readouterr().err  # transformers' progress bar
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


def saved(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "whole", tiny_models.llama())
    weights = load_file(folder / "model.safetensors")
    gone = "model.layers.2.mlp.down_proj.weight"
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks weights that the model needs.*{gone}"):
        SteeredModel.from_pretrained(str(folder), device="cpu")


def test_a_model_in_a_subfolder(tmp_path: Path) -> None:
    saved(tmp_path / "inner", tiny_models.llama())
    lm = SteeredModel.from_pretrained(str(tmp_path), subfolder="inner", device="cpu")
    assert lm.encode("the dog").ids[0] == 1


def test_options_about_files_reach_model_and_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = str(saved(tmp_path / "tiny", tiny_models.llama())), []
    for loader in (transformers.AutoTokenizer, transformers.AutoModelForCausalLM):
        real = loader.from_pretrained

        def spied(source: str, real: Any = real, **options: Any) -> Any:
            seen.append(options)
            return real(source, **options)

        monkeypatch.setattr(loader, "from_pretrained", spied)
    options = {
        "token": "secret",
        "trust_remote_code": False,
        "code_revision": "v2",
        "cache_dir": str(tmp_path / "cache"),
        "force_download": False,
        "local_files_only": True,
    }
    SteeredModel.from_pretrained(
        folder, revision="v1", device="cpu", attn_implementation="eager", **options
    )
    assert len(seen) == 2
    for found in seen:
        assert found.items() >= {**options, "revision": "v1"}.items()
    assert "attn_implementation" not in seen[0]


def test_a_pad_token_outside_the_embedding_is_not_used() -> None:
    model, plain = tiny_models.llama(), tiny_models.tokenizer()
    grown = tiny_models.tokenizer()
    grown.add_special_tokens({"pad_token": "[PAD]"})
    assert grown.pad_token_id >= model.get_input_embeddings().num_embeddings
    prompts = ["the", "the dog and the dog"]
    lm, usual = SteeredModel(model, grown), SteeredModel(model, plain)
    assert lm.generate(prompts, max_new_tokens=4) == usual.generate(prompts, max_new_tokens=4)
    examples = [Example("", prompt) for prompt in prompts]
    captured, wanted = lm.capture(examples, 2).states[2], usual.capture(examples, 2).states[2]
    torch.testing.assert_close(captured, wanted)


@pytest.mark.parametrize(
    ("pad", "eos", "chosen"), [(0, 2, 0), (None, 2, 2), (-1, 2, 2), (500, 2, 2), (500, 501, 0)]
)
def test_the_padding_token_is_known_to_the_model(
    pad: int | None, eos: int | None, chosen: int
) -> None:
    ids = SimpleNamespace(pad_token_id=pad, eos_token_id=eos)
    assert pad_token_id(ids, tiny_models.llama()) == chosen


def test_a_context_of_minus_one_is_no_limit() -> None:
    model = tiny_models.llama()
    model.config.max_position_embeddings = -1
    lm = SteeredModel(model, tiny_models.tokenizer())
    assert lm.context is None
    assert len(lm.encode("x" * 200).ids) > 200


@pytest.mark.parametrize("name", list(tiny_models.VISION_LANGUAGE))
def test_a_vision_language_model_is_used_with_text(name: str, tmp_path: Path) -> None:
    built = tiny_models.VISION_LANGUAGE[name]()
    lm = SteeredModel.from_pretrained(str(saved(tmp_path / name, built)), device="cpu")
    assert type(lm.model) is type(built)
    assert lm.n_layers == tiny_models.N_LAYERS
    torch.testing.assert_close(logits(lm.model), logits(built))
    fitted = lm.fit(CAA(), pairs(), 2, steer_position="all")
    with lm.steering(fitted, strength=5.0):
        assert not torch.allclose(logits(lm.model), logits(built))
    plain = lm.generate(["the", "the dog"], max_new_tokens=3)
    steered = lm.generate(["the", "the dog"], fitted, strength=0.0, max_new_tokens=3)
    assert steered == plain
    outline, _ = load_outline(str(tmp_path / name), revision=None)
    assert type(outline) is type(built)


@pytest.mark.parametrize(
    ("source", "gguf_file", "files"),
    [
        ("owner/name", None, ModelFiles("owner/name")),
        ("owner/name", "q4/m.gguf", ModelFiles("owner/name", "q4/m.gguf")),
        ("owner/name/m.gguf", None, ModelFiles("owner/name", "m.gguf")),
        ("owner/name/q4/m.GGUF", None, ModelFiles("owner/name", "q4/m.GGUF")),
        ("owner/name.gguf", None, ModelFiles("owner/name.gguf")),
    ],
)
def test_a_gguf_file_in_a_repository(source: str, gguf_file: str | None, files: ModelFiles) -> None:
    assert ModelFiles.of(source, gguf_file) == files
