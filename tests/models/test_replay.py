"""Running the upper layers alone gives what a steered pass of the whole model gives."""

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
from odesteer.artifact import Site, Steerer
from odesteer.barriers import NeuralPotential
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import Amount, EndToEnd
from odesteer.models import SteeredModel
from odesteer.models.architecture.sites import hidden_states
from odesteer.models.tokens.encoding import Encoded
from odesteer.models.training import prompt_states
from odesteer.models.training.kept import TensorKeeper
from odesteer.models.training.prompt_states import PromptStates
from odesteer.models.training.replay import Replay
from odesteer.models.training.state_batch import moved_tokens
from trained import fitted

TEXTS = [Encoded((1, 40, 50, 60, 70, 80, 90), 3), Encoded((1, 33, 44, 55, 66, 67), 4)]
TEXTS += [Encoded((1, 9, 99, 200, 150, 140, 130, 120, 110), 6)]
# Longer than the windows of the models with sliding attention.
TEXTS += [Encoded((1, *range(20, 60, 3)), 11)]


def method(width: int, seed: int = 0) -> Any:
    a = torch.randn(60, width, generator=torch.Generator().manual_seed(seed))
    return fitted(EndToEnd(NeuralPotential(4)), a, a + 1)


def steered_alone(lm: SteeredModel, steerers: list[Steerer], text: Encoded) -> torch.Tensor:
    """Log-probabilities at the answer, by a steered pass over this text alone."""
    with lm.steering(*steerers, T=1.0, prompt_width=text.n_prompt), torch.no_grad():
        logits = lm.model(torch.tensor([text.ids])).logits[0]
    return logits[text.n_prompt - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("position", ["last", "all"])
def test_it_equals_steered_passes(any_lm: SteeredModel, position: str) -> None:
    for layers in ([1], [0, 2]):
        sites = [any_lm._sites.at(layer) for layer in layers]
        replay = Replay(any_lm, sites, position)
        batch, logits = replay.capture(TEXTS)
        before = batch.by_text(logits.log_softmax(-1))
        assert batch.states
        methods = [method(any_lm.width, layer) for layer in layers]
        moves = {
            site: lambda a, own=own: own.solve(a, Amount("T", 1.0)).state
            for site, own in zip(sites, methods, strict=True)
        }
        after = replay.log_probabilities(batch, moves)
        still = replay.log_probabilities(batch, {})
        steerers = [Steerer(m, Site(i, position)) for m, i in zip(methods, layers, strict=True)]
        for text, a, b, c in zip(TEXTS, before, still, after, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
            expected = steered_alone(any_lm, steerers, text)
            torch.testing.assert_close(c, expected, atol=2e-3, rtol=2e-3)
            assert not torch.allclose(b, c, atol=1e-3)
        plain = not getattr(any_lm.model, "_is_stateful", False)
        assert (batch.prompts is not None) == (plain and position == "last")


def test_sites_that_are_moved_alone_run_what_is_above_them(lm: SteeredModel) -> None:
    sites = [lm._sites.at(layer) for layer in (0, 2)]
    together, _ = Replay(lm, sites).capture(TEXTS)
    assert list(together.states) == [0]
    replay = Replay(lm, sites, alone=True)
    batch, _ = replay.capture(TEXTS)
    for site, above in zip(sites, ([1, 2, 3], [3]), strict=True):
        moves = {site: lambda a: 1.5 * a}
        own = Replay(lm, [site])
        expected = own.logits(own.capture(TEXTS)[0], moves)
        ran: list[int] = []
        handles = [
            layer.self_attn.register_forward_hook(lambda *_, i=i, ran=ran: ran.append(i))
            for i, layer in enumerate(lm.layers.modules)
        ]
        found = replay.logits(batch, moves)
        for handle in handles:
            handle.remove()
        assert ran == above
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_heads(lm: SteeredModel, layer: int) -> None:
    site = lm._sites.at(layer, "heads")
    replay = Replay(lm, [site])
    batch, _ = replay.capture(TEXTS)
    assert (not batch.states) == (layer == 0)
    own = method(site.width)
    after = replay.log_probabilities(batch, {site: lambda a: own.solve(a, Amount("T", 1.0)).state})
    steerer = Steerer(own, Site(layer, "last", "heads"))
    for text, found in zip(TEXTS, after, strict=True):
        torch.testing.assert_close(found, steered_alone(lm, [steerer], text), atol=1e-4, rtol=1e-4)


def test_lower_layers_do_not_run_and_come_back(lm: SteeredModel) -> None:
    replay = Replay(lm, [lm._sites.at(2)])
    batch, _ = replay.capture(TEXTS)
    ran = []
    handles = [
        layer.self_attn.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, layer in enumerate(lm.layers.modules)
    ]
    replay.log_probabilities(batch, {})
    assert ran == [3]

    def failing(a: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay.log_probabilities(batch, {replay.sites[0]: failing})
    ran.clear()
    lm.model(torch.tensor([[1, 2, 3]]))
    assert ran == [0, 1, 2, 3]
    assert all("forward" not in vars(layer) for layer in lm.layers.modules)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_whole_model(lm: SteeredModel, checkpointing: bool) -> None:
    site = lm._sites.at(1)
    replay = Replay(lm, [site], checkpointing=checkpointing)
    batch, _ = replay.capture(TEXTS[:1])
    shift = torch.zeros(lm.width, requires_grad=True)
    log = replay.log_probabilities(batch, {site: lambda a: a + shift})[0]
    (found,) = torch.autograd.grad(log[0, 5], shift)

    def moved(module: Any, args: Any, output: Any) -> Any:
        mask = torch.zeros(1, len(TEXTS[0]), 1)
        mask[:, TEXTS[0].n_prompt - 1 :] = 1
        return output + mask * shift

    handle = lm.layers.at(1).register_forward_hook(moved)
    logits = lm.model(torch.tensor([TEXTS[0].ids])).logits[0]
    handle.remove()
    expected = torch.autograd.grad(logits[TEXTS[0].n_prompt - 1].log_softmax(-1)[5], shift)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_prompts_do_not_run_again(lm: SteeredModel) -> None:
    replay = Replay(lm, [lm._sites.at(1)])
    batch, _ = replay.capture([*TEXTS, *TEXTS])
    assert batch.prompts is not None
    assert batch.prompts.cache.layers[2].keys.shape[0] == len(TEXTS)  # each prompt once
    assert batch.prompts.cache.layers[0].keys.untyped_storage().nbytes() < 64  # never read
    columns = []
    handle = lm.layers.at(3).register_forward_hook(
        lambda module, args, output: columns.append(output.shape[1])
    )
    made = []
    head = lm.model.lm_head.register_forward_hook(
        lambda module, args, output: made.append(output.shape[:2])
    )
    for _ in range(2):
        replay.logits(batch, {})
    handle.remove()
    head.remove()
    assert columns == [max(len(text.response) for text in TEXTS)] * 2
    assert made == [(1, 2 * sum(len(text.response) for text in TEXTS))] * 2


def test_what_all_prompts_begin_with_runs_once(
    any_lm: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = tuple(range(30, 42))
    texts = [Encoded((1, *opening, *text.ids[1:]), len(opening) + text.n_prompt) for text in TEXTS]
    site = any_lm._sites.at(1)
    moves = {site: lambda a: 1.5 * a}
    found, tokens = [], []
    for least in (8, 1000):
        ran: list[int] = []
        monkeypatch.setattr(prompt_states, "_LEAST_SHARED", least)
        handle = any_lm.layers.at(0).register_forward_hook(
            lambda module, args, output, ran=ran: ran.append(hidden_states(output)[..., 0].numel())
        )
        replay = Replay(any_lm, [site])
        batch, logits = replay.capture(texts)
        handle.remove()
        tokens.append(sum(ran))
        found.append((logits, replay.logits(batch, moves)))
        if batch.prompts is not None:
            assert batch.prompts.mask.shape[1] == max(t.n_prompt for t in texts) - 1
    for once, each in zip(*found, strict=True):
        torch.testing.assert_close(once, each, atol=1e-4, rtol=1e-4)
    if batch.prompts is not None:
        assert tokens[0] < tokens[1]


def test_a_cache_that_disagrees_is_not_used(
    lm: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PromptStates.fresh

    def wrong(own: PromptStates, device: Any, below: int) -> Any:
        cache = original(own, device, below)
        cache.layers[2].values = cache.layers[2].values + 1
        return cache

    monkeypatch.setattr(PromptStates, "fresh", wrong)
    batch, _ = Replay(lm, [lm._sites.at(1)]).capture(TEXTS)
    assert batch.prompts is None


def test_states_that_are_spilled(lm: SteeredModel, tmp_path: Path) -> None:
    site = lm._sites.at(1)
    keep = TensorKeeper(tmp_path, budget=0)
    replay = Replay(lm, [site], keep=keep)
    spilled, _ = replay.capture(TEXTS)
    assert len(list(tmp_path.glob("*/*"))) == len(keep.files) > 4
    kept, _ = Replay(lm, [site]).capture(TEXTS)
    assert torch.equal(spilled.activations[site], kept.activations[site])
    moves = {site: lambda a: a + 1}
    assert torch.equal(replay.logits(spilled, moves), replay.logits(kept, moves))
    assert keep(torch.ones(3, dtype=torch.bfloat16)).tolist() == [1, 1, 1]
    assert keep(torch.empty(0, 5)).shape == (0, 5)
    del replay, keep, spilled
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_for_states(
    lm: SteeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = TensorKeeper(tmp_path, budget=0)
    keep(torch.ones(3))
    full = shutil.disk_usage(tmp_path)._replace(free=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    with pytest.raises(ModelError, match=r"2\.0 GB so far.* has 1\.0 GB left; give another folder"):
        keep(torch.empty(1, dtype=torch.int64).expand(1 << 28))
    replay = Replay(lm, [lm._sites.at(1)], keep=keep)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full._replace(free=8))
    with pytest.raises(ModelError, match="give another folder"):
        replay.capture(TEXTS)
    assert all("forward" not in vars(layer) for layer in lm.layers.modules)


@pytest.mark.parametrize("position", ["last:1:3", "last::1", "generated::2", "generated:2:"])
def test_windows(lm: SteeredModel, position: str) -> None:
    site = lm._sites.at(1)
    own = method(lm.width)
    replay = Replay(lm, [site], position)
    batch, _ = replay.capture(TEXTS)
    after = replay.log_probabilities(batch, {site: lambda a: own.solve(a, Amount("T", 1.0)).state})
    steerer = Steerer(own, Site(1, position))
    for text, found in zip(TEXTS, after, strict=True):
        torch.testing.assert_close(found, steered_alone(lm, [steerer], text), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("position", ["answer", "after:###"])
def test_positions_that_depend_on_the_text_are_refused(lm: SteeredModel, position: str) -> None:
    with pytest.raises(InvalidInputError, match="depends on the text"):
        Replay(lm, [lm._sites.at(1)], position)


def test_the_tokens_that_are_moved() -> None:
    text = [Encoded((1, 2, 3, 4, 5), 3)]
    assert moved_tokens(text, "last")[1] == [2, 3]
    assert moved_tokens(text, "generated")[1] == [3]
    assert moved_tokens(text, "prompt")[1] == [0, 1, 2]
    assert moved_tokens(text, "all")[1] == [0, 1, 2, 3]
    assert moved_tokens(text, "last:1:")[1] == [3]
    assert moved_tokens(text, "generated:1:")[1] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_that_are_compiled_are_refused() -> None:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    lm.model.model.layers[0] = torch.compile(lm.model.model.layers[0])
    again = SteeredModel(lm.model, lm.tokenizer)
    with pytest.raises(ModelError, match=r"torch\.compile"):
        Replay(again, [again._sites.at(1)])
