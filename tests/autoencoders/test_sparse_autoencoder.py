"""Sparse autoencoders: features, files in sae-lens's layout, training, names."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from odesteer.autoencoders import SparseAutoencoder, named_by_tokens, train_top_k
from odesteer.errors import InvalidInputError

KINDS = ("relu", "jumprelu", "topk")


def made(kind: str, d: int = 6, m: int = 15, subtracts_bias: bool = True) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(5)
    return SparseAutoencoder(
        torch.randn(d, m, generator=generator),
        torch.randn(m, generator=generator),
        torch.randn(m, d, generator=generator),
        torch.randn(d, generator=generator),
        kind,
        torch.rand(m, generator=generator) if kind == "jumprelu" else None,
        4 if kind == "topk" else None,
        subtracts_bias,
        {"hook_name": "blocks.3.hook_resid_post"},
        {2: "sun, smile"},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_definition(kind: str) -> None:
    sae, a = made(kind), torch.randn(9, 6)
    u = (a - sae.decoder_bias) @ sae.encoder + sae.encoder_bias
    f = sae.encode(a)
    for row in range(9):
        for j in range(15):
            if kind == "topk":
                on = u[row, j] > 0 and u[row, j] >= u[row].sort().values[-4]
            else:
                on = u[row, j] > (0 if kind == "relu" else sae.thresholds[j])  # type: ignore[index]
            assert float(f[row, j]) == pytest.approx(float(u[row, j]) if on else 0.0, abs=1e-5)
    torch.testing.assert_close(sae.decode(f), f @ sae.decoder + sae.decoder_bias)
    plain = replace(sae, subtracts_bias=False)
    torch.testing.assert_close(plain.encode(a), sae.encode(a + sae.decoder_bias))


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_back(kind: str, tmp_path: Path) -> None:
    sae, a = made(kind, subtracts_bias=kind != "relu"), torch.randn(5, 6)
    sae.save(tmp_path / "sae")
    back = SparseAutoencoder.load(tmp_path / "sae")
    assert torch.equal(back.encode(a), sae.encode(a))
    assert (back.activation, back.k, back.names) == (kind, sae.k, sae.names)
    assert back.metadata["hook_name"] == "blocks.3.hook_resid_post"
    assert back.name(2) == "sun, smile"
    assert back.name(3) == ""
    assert replace(back, metadata={"neuronpedia_id": "m/3"}).name(3) == "neuronpedia.org/m/3/3"


@pytest.mark.parametrize("kind", KINDS)
def test_sae_lens_reads_the_files_and_finds_the_same_features(kind: str, tmp_path: Path) -> None:
    lens = pytest.importorskip("sae_lens", reason="sae-lens is not installed")
    sae, a = made(kind), torch.randn(7, 6)
    sae.save(tmp_path)
    other = lens.SAE.load_from_disk(tmp_path)
    with torch.no_grad():
        features = other.encode(a)
        torch.testing.assert_close(features, sae.encode(a))
        torch.testing.assert_close(other.decode(features), sae.decode(sae.encode(a)))
    other.save_model(tmp_path / "theirs")
    torch.testing.assert_close(SparseAutoencoder.load(tmp_path / "theirs").encode(a), sae.encode(a))


def test_older_files_name_the_function_apart(tmp_path: Path) -> None:
    made("topk").save(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    del config["k"]
    config |= {"architecture": "standard", "activation_fn_str": "topk"}
    config["activation_fn_kwargs"] = {"k": 4}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    back = SparseAutoencoder.load(tmp_path)
    assert (back.activation, back.k) == ("topk", 4)


def changed_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps({**config, **changes}))

    return change


def changed_tensor(name: str, tensor: torch.Tensor | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "sae_weights.safetensors")
        del tensors[name]
        if tensor is not None:
            tensors[name] = tensor
        save_file(tensors, folder / "sae_weights.safetensors")

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "cfg.json").unlink(), "odesteer sae"),
        (lambda folder: (folder / "cfg.json").write_text("[1]"), "no JSON object"),
        (lambda folder: (folder / "cfg.json").write_text("{"), "cfg.json"),
        (lambda folder: (folder / "sae_weights.safetensors").unlink(), "cannot read"),
        (lambda folder: (folder / "sae_weights.safetensors").write_bytes(b"PK"), "cannot read"),
        (lambda folder: (folder / "feature_names.json").write_text('{"x": 1}'), "feature_names"),
        (changed_config(architecture="gated"), "gated.*standard, jumprelu, topk"),
        (changed_config(architecture=["topk"]), "architecture"),
        (changed_config(normalize_activations="layer_norm"), "layer_norm.*fold"),
        (changed_config(reshape_activations="hook_z"), "hook_z"),
        (changed_config(rescale_acts_by_decoder_norm=True), "fold_W_dec_norm"),
        (changed_config(k="many"), "k of a top-k"),
        (changed_config(k=16), "15 features"),
        (changed_tensor("W_dec", None), "no tensor 'W_dec'"),
        (changed_tensor("W_dec", torch.ones(3, 6)), r"W_dec has the shape \(3, 6\)"),
        (changed_tensor("b_enc", torch.full((15,), float("nan"))), "finite"),
        (changed_tensor("W_enc", torch.ones(4)), "matrix"),
    ],
)
def test_what_is_no_autoencoder(change: Callable[[Path], Any], told: str, tmp_path: Path) -> None:
    made("topk").save(tmp_path)
    change(tmp_path)
    with pytest.raises(InvalidInputError, match=told):
        SparseAutoencoder.load(tmp_path)


def test_another_width() -> None:
    with pytest.raises(InvalidInputError, match=r"width 7.*width 6"):
        made("relu").encode(torch.ones(2, 7))


def sparse_activations(n: int = 1500, d: int = 16, m: int = 24) -> tuple[torch.Tensor, ...]:
    """Sums of three of m directions with a common mean, and the directions."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(m, d, generator=generator), dim=1)
    amounts = torch.zeros(n, m)
    chosen = torch.rand(n, m, generator=generator).topk(3).indices
    amounts.scatter_(1, chosen, 1 + torch.rand(n, 3, generator=generator))
    return 20 * (amounts @ directions) + 5, directions


def test_training_finds_sparse_directions() -> None:
    states, directions = sparse_activations()
    massive = states.clone()
    massive[0] = 1e6  # a token of outlying norm
    epochs: list[int] = []
    trained = train_top_k(
        massive,
        48,
        3,
        epochs=60,
        batch_size=64,
        learning_rate=5e-3,
        progress=lambda epoch, _: epochs.append(epoch),
    )
    assert epochs == list(range(1, 61))
    assert trained.n_left_out == 1
    assert trained.explained > 0.85
    similarity = torch.nn.functional.normalize(trained.autoencoder.decoder, dim=1) @ directions.T
    assert float(similarity.max(dim=0).values.median()) > 0.9
    assert int((trained.autoencoder.encode(states) > 0).sum(dim=1).max()) <= 3
    again = train_top_k(massive, 32, 3, epochs=1, batch_size=128)
    assert torch.equal(
        again.autoencoder.encoder,
        train_top_k(massive, 32, 3, epochs=1, batch_size=128).autoencoder.encoder,
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"k": 33}, "k is 33"),
        ({"n_features": 0}, "n_features"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"states": torch.ones(20, 4)}, "at least 100"),
        ({"states": torch.ones(200, 4)}, "do not vary"),
        ({"states": torch.full((200, 4), float("nan"))}, "NaN"),
    ],
)
def test_what_cannot_be_trained(changes: dict[str, Any], told: str) -> None:
    arguments = {"states": torch.randn(200, 4), "n_features": 32, "k": 3, **changes}
    with pytest.raises(InvalidInputError, match=told):
        train_top_k(**arguments)


def test_names_are_the_tokens_of_highest_activation() -> None:
    sae = replace(made("relu"), encoder_bias=torch.full((15,), -0.5), names={})
    states = torch.randn(40, 6)
    tokens = [f" w{i % 20}" for i in range(40)]
    named = named_by_tokens(sae, states, tokens, n_words=2)
    features = sae.encode(states)
    for j in range(15):
        rows = features[:, j].argsort(descending=True)
        on = [f"w{int(i) % 20}" for i in rows if features[i, j] > 0]
        assert named.names.get(j, "") == ", ".join(list(dict.fromkeys(on))[:2])
    with pytest.raises(InvalidInputError, match="40 activations"):
        named_by_tokens(sae, states, tokens[:3])
