"""Barriers learned through tiny models: effect, cost, objectives, interrupts, bad input."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
from odesteer.artifact import Steerer, SteererSet, load
from odesteer.barriers import (
    GatedPotential,
    LinearPotential,
    NeuralPotential,
    Potential,
    QuadraticPotential,
    Training,
)
from odesteer.data import ContrastData, Example, Message
from odesteer.errors import ConvergenceError, InvalidInputError, ModelError, WeakSignalWarning
from odesteer.methods import CAA, Amount, Distillation, EndToEnd, Likelihood, Preference, Reward
from odesteer.models import SteeredModel
from odesteer.models.training import loop as loop_module

N = 20
NEUTRAL = [f"Hello {i}!" for i in range(9)]
VALIDATION = NEUTRAL[2::3]
QUICK = Training(0.3, 0.0, 8, 2, patience=2, tolerance=0.0, keep_best=True)


def pairs(chosen: str = "yes it is", rejected: str = "no, not so") -> ContrastData:
    prompts = [(Message("user", f"{i}?"),) for i in range(N)]
    groups = tuple(map(str, range(N)))
    return ContrastData(
        tuple(Example(prompt, chosen) for prompt in prompts),
        tuple(Example(prompt, rejected) for prompt in prompts),
        groups,
        groups,
    )


def method(barrier: Potential | None = None, **changes: Any) -> EndToEnd:
    given = {"barrier": barrier or LinearPotential(), "kl": 0.02, "training": QUICK, **changes}
    return EndToEnd(**given)


def fit(lm: SteeredModel, what: EndToEnd, data: Any = None, layer: Any = 1, **more: Any) -> Any:
    return lm.fit(what, pairs() if data is None else data, layer, neutral=NEUTRAL, **more)


def gain(lm: SteeredModel, steerer: Any, **amount: float) -> float:
    """Rise of the log-odds of the chosen answer to an unseen question, nats."""
    odds = []
    for response in ("yes it is", "no, not so"):
        text = lm.encode(Example((Message("user", "88?"),), response))
        answer = slice(text.n_prompt - 1, -1)
        expected = torch.tensor(text.ids[text.n_prompt :])[:, None]
        with torch.no_grad():
            before = lm.model(torch.tensor([text.ids])).logits[0, answer].log_softmax(-1)
            with lm.steering(steerer, prompt_width=text.n_prompt, **amount):
                after = lm.model(torch.tensor([text.ids])).logits[0, answer].log_softmax(-1)
        odds.append(float((after - before).gather(1, expected).sum()))
    return odds[0] - odds[1]


@pytest.mark.parametrize(
    "barrier",
    [LinearPotential(), GatedPotential(), QuadraticPotential(2), NeuralPotential(4)],
    ids=lambda barrier: type(barrier).__name__,
)
def test_preferred_answers_gain_at_the_cost_asked_for(
    lm: SteeredModel, barrier: Potential, tmp_path: Path
) -> None:
    steerer = fit(lm, method(barrier))
    figures = steerer.provenance.held_out
    cost = lm.divergence(steerer, T=1.0, prompts=VALIDATION)
    assert cost.mean == pytest.approx(figures["kl"], rel=1e-3)
    assert 0.5 * 0.02 < figures["kl"] <= 0.02 * 1.03
    assert figures["kl_asked_for"] == 0.02
    assert figures["gain"] > 1
    assert gain(lm, steerer, T=1.0) == pytest.approx(figures["gain"], rel=0.3)
    assert gain(lm, steerer, T=2.0) > gain(lm, steerer, T=1.0) > 0 > gain(lm, steerer, T=-1.0)
    # h rises by what it stands for.
    assert gain(lm, steerer, level=1.0) == pytest.approx(figures["gain"], rel=0.5)
    steerer.save(tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    a = torch.randn(5, lm.width)
    assert torch.equal(loaded.steer(a, T=1.5), steerer.steer(a, T=1.5))
    assert loaded.provenance == steerer.provenance


def test_nothing_is_left_changed(lm: SteeredModel) -> None:
    weights = {name: weight.clone() for name, weight in lm.model.named_parameters()}
    fit(lm, method())
    for name, weight in lm.model.named_parameters():
        assert torch.equal(weight, weights[name])
        assert weight.requires_grad
        assert weight.grad is None
    assert all("forward" not in vars(layer) for layer in lm.layers.modules)
    assert not lm.layers.at(1)._forward_hooks


def test_the_same_seed_gives_the_same(lm: SteeredModel) -> None:
    first, again = fit(lm, method(NeuralPotential(3))), fit(lm, method(NeuralPotential(3)))
    assert first.digest() == again.digest()
    assert fit(lm, method(NeuralPotential(3), seed=1)).digest() != first.digest()


def test_fit_in_inference_mode(lm: SteeredModel) -> None:
    with torch.inference_mode():
        steerer = fit(lm, method())
    assert steerer.provenance.held_out["gain"] > 1


def test_several_layers_are_trained_jointly(lm: SteeredModel) -> None:
    both = fit(lm, method(), layer=[1, 2])
    assert isinstance(both, SteererSet)
    assert [member.site.layer for member in both.members if member.site] == [1, 2]
    figures = both.members[0].provenance.held_out
    assert figures == both.members[1].provenance.held_out
    cost = lm.divergence(both, T=1.0, prompts=VALIDATION).mean
    assert cost == pytest.approx(figures["kl"], rel=1e-3)
    assert gain(lm, both, T=1.0) == pytest.approx(figures["gain"], rel=0.3)


def test_the_layer_with_the_lowest_held_out_loss_is_chosen(
    lm: SteeredModel, tmp_path: Path
) -> None:
    alone = [fit(lm, method(), layer=layer).provenance.held_out["loss"] for layer in (0, 2)]
    chosen = fit(lm, method(), layer=[0, 2], choose_layer=True, folder=tmp_path)
    assert isinstance(chosen, Steerer)
    assert chosen.provenance.held_out["loss"] == pytest.approx(min(alone), rel=1e-3)
    assert chosen.site.layer == (0, 2)[alone.index(min(alone))]
    assert {file.name for file in tmp_path.iterdir()} == {"training-0.pt", "training-2.pt"}
    with pytest.raises(InvalidInputError, match="choose_layer are for EndToEnd"):
        lm.fit(CAA(), pairs(), [0, 2], choose_layer=True)


def test_a_choice_of_layers_keeps_what_it_has(
    lm: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop_module.TrainingLoop._epoch
    outcomes: list[type[BaseException] | None] = []

    def failing(self: Any, *args: Any) -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        original(self, *args)

    monkeypatch.setattr(loop_module.TrainingLoop, "_epoch", failing)
    diverging: Any = loop_module._DivergenceError
    outcomes[:] = [diverging, None, None, KeyboardInterrupt]
    assert fit(lm, method(), layer=[0, 1, 2], choose_layer=True).site.layer == 1
    outcomes[:] = [None, KeyboardInterrupt, None]
    assert fit(lm, method(), layer=[0, 1], choose_layer=True).site.layer == 0
    assert len(outcomes) == 1  # nothing was trained after the interrupt
    outcomes[:] = [diverging, diverging]
    with pytest.raises(ConvergenceError, match="diverged"):
        fit(lm, method(), layer=[0, 1], choose_layer=True)


def test_heads(lm: SteeredModel) -> None:
    steerer = fit(lm, method(), part="heads")
    assert steerer.site.part == "heads"
    assert gain(lm, steerer, T=1.0) > 0.3


def test_a_linear_barrier_is_a_vector(lm: SteeredModel) -> None:
    steerer = fit(lm, method())
    a = torch.randn(4, lm.width)
    vector = steerer.method.constant_displacement()
    torch.testing.assert_close(steerer.steer(a, T=2.0), a + 2 * vector)
    torch.testing.assert_close(steerer.method.constant_displacement(Amount("T", 2.0)), 2 * vector)
    assert steerer.method.constant_displacement(Amount("level", 1.0)) is None
    assert fit(lm, method(NeuralPotential(3))).method.constant_displacement() is None


def test_likelihood_looks_at_chosen_answers_alone(lm: SteeredModel) -> None:
    steerer = fit(lm, method(objective=Likelihood()))
    assert steerer.provenance.held_out["gain"] > 0.5
    other = fit(lm, method(objective=Likelihood()), pairs(rejected="quite another thing"))
    torch.testing.assert_close(
        other.method.constant_displacement(), steerer.method.constant_displacement()
    )


def test_distillation_of_a_system_prompt(lm: SteeredModel) -> None:
    objective = Distillation("Say yes.", max_new_tokens=6)
    prompts = [f"{i}?" for i in range(12)]
    steerer = fit(lm, method(objective=objective, kl=0.2), prompts)
    assert steerer.provenance.held_out["gain"] > 0
    # More of the cost would go beyond what the prompted model does.
    assert steerer.provenance.held_out["kl"] < 0.1
    assert steerer.provenance.n_positive == 12
    assert steerer.provenance.n_negative == 0
    with pytest.raises(InvalidInputError, match="system prompt"):
        fit(lm, method(objective=Distillation()), prompts)
    with pytest.raises(InvalidInputError, match="list of prompts"):
        fit(lm, method(objective=objective), "how?")


def test_reward(lm: SteeredModel, tmp_path: Path) -> None:
    judged = []

    def many(prompt: str, answer: str) -> float:
        judged.append(answer)
        return float(sum(ord(c) > 110 for c in answer))

    steerer = fit(
        lm, method(objective=Reward(many, samples=3, max_new_tokens=5)), [f"{i}?" for i in range(9)]
    )
    assert len(judged) >= 2 * 3 * 7
    steerer.save(tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").method.objective.judge is None  # type: ignore[union-attr]
    with pytest.raises(InvalidInputError, match="same score"):
        fit(lm, method(objective=Reward(lambda p, a: 1.0)), [f"{i}?" for i in range(9)])
    with pytest.raises(InvalidInputError, match="finite number"):
        fit(lm, method(objective=Reward(lambda p, a: float("nan"))), [f"{i}?" for i in range(9)])
    with pytest.raises(InvalidInputError, match="judge is None"):
        fit(lm, method(objective=Reward()), [f"{i}?" for i in range(9)])


class _Interrupted:
    """Interrupts training in an epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
        original = loop_module.TrainingLoop._epoch

        def interrupted(own: Any, state: Any, *rest: Any) -> None:
            if state.epoch == epoch:
                raise KeyboardInterrupt
            original(own, state, *rest)

        monkeypatch.setattr(loop_module.TrainingLoop, "_epoch", interrupted)


def test_an_interrupt_keeps_the_best_so_far(lm: SteeredModel) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _Interrupted(patch, 1)
        steerer = fit(lm, method())
        assert steerer.provenance.held_out["epochs"] == 1
        assert gain(lm, steerer, T=1.0) > 0
        with pytest.raises(KeyboardInterrupt):
            fit(lm, method(training=QUICK.with_params(keep_best=False)))
    with pytest.MonkeyPatch.context() as patch:
        _Interrupted(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            fit(lm, method())


def test_training_resumes(lm: SteeredModel, tmp_path: Path) -> None:
    whole = fit(lm, method())
    strict = QUICK.with_params(keep_best=False)
    with pytest.MonkeyPatch.context() as patch:
        _Interrupted(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            fit(lm, method(training=strict), folder=tmp_path / "run")
    resumed = fit(lm, method(training=strict), folder=tmp_path / "run")
    assert torch.equal(resumed.method.constant_displacement(), whole.method.constant_displacement())
    with pytest.raises(InvalidInputError, match="another training"):
        fit(lm, method(kl=0.03), folder=tmp_path / "run")


def test_a_loss_that_diverges(lm: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop_module._gradients
    calls = []

    def broken(*arguments: Any) -> Any:
        calls.append(1)
        loss, gradients = original(*arguments)
        return (float("nan") if len(calls) > 6 else loss), gradients

    monkeypatch.setattr(loop_module, "_gradients", broken)
    steerer = fit(lm, method())  # two batches an epoch: the second epoch fails
    assert steerer.provenance.held_out["epochs"] == 1
    with pytest.raises(ConvergenceError, match=r"learning_rate below 0\.3"):
        fit(lm, method())


def test_a_cost_that_cannot_be_held(lm: SteeredModel) -> None:
    with pytest.raises(ConvergenceError, match="kl=1e-11 nats a token cannot be held"):
        fit(lm, method(kl=1e-11))
    for kl in (0, -1, float("nan"), True, "low"):
        with pytest.raises(InvalidInputError, match="kl must be a positive number"):
            fit(lm, method(kl=kl))


def test_a_model_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    layer = lm.model.model.layers[2]
    forward = layer.forward

    def quantised(states: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(states.detach(), *args, **kwargs)

    monkeypatch.setattr(layer, "forward", quantised)
    with pytest.raises(ModelError, match="quantised"):
        fit(lm, method())


def test_pairs_that_cannot_be_trained_on(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="positive example 0 and negative example 0"):
        fit(lm, method(), pairs("same", "same"))
    with pytest.raises(InvalidInputError, match=r"negative example 0 has .* context 96"):
        fit(lm, method(), pairs(rejected="no" * 60))
    alone = ContrastData.from_texts(["a", "b", "c"], ["d", "e", "f"])
    with pytest.raises(InvalidInputError, match="no group has"):
        fit(lm, method(), alone)
    few = pairs()._subset({"1", "2"})
    with pytest.raises(InvalidInputError, match="too few to hold any out"):
        fit(lm, method(), few)


def test_texts_without_a_prompt() -> None:
    plain = SteeredModel(tiny_models.llama(), tiny_models.tokenizer(adds_bos=False))
    groups = tuple(map(str, range(N)))
    data = ContrastData(
        tuple(Example("", f"{i} yes it is") for i in range(N)),
        tuple(Example("", f"{i} no, not so") for i in range(N)),
        groups,
        groups,
    )
    assert fit(plain, method(), data).provenance.held_out["gain"] > 1
    data = ContrastData(tuple(Example("", "y") for _ in range(N)), data.negative, groups, groups)
    with pytest.raises(InvalidInputError, match=r"positive example 0 .* is a single token"):
        fit(plain, method(), data)


def test_what_does_not_go_together(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match=r"lm\.fit"):
        EndToEnd().fit(torch.randn(9, 4), torch.randn(9, 4))
    with pytest.raises(InvalidInputError, match="tokens that it steers"):
        fit(lm, method(), position="answer")
    with pytest.raises(InvalidInputError, match="'generated:50:' moves no token"):
        fit(lm, method(), steer_position="generated:50:")
    with pytest.raises(InvalidInputError, match="depends on the text"):
        fit(lm, method(), steer_position="thinking")
    with pytest.raises(InvalidInputError, match="are for EndToEnd"):
        lm.fit(CAA(), pairs(), 1, neutral=NEUTRAL)
    with pytest.raises(InvalidInputError, match="give ContrastData"):
        fit(lm, method(), ["how?"])
    with pytest.raises(InvalidInputError, match="at least three prompts"):
        lm.fit(method(), pairs(), 1, neutral=["Hello!"])
    with pytest.raises(InvalidInputError, match="barrier of EndToEnd must be a Potential"):
        fit(lm, EndToEnd(barrier=CAA()))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="beta must be"):
        fit(lm, method(objective=Preference(0)))
    with pytest.raises(InvalidInputError, match="validation above 0"):
        fit(lm, method(training=QUICK.with_params(validation=0)))


def test_steps_that_overshoot_are_said(lm: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop_module.TrainingLoop._scaled

    def bent(own: Any, methods: Any, most: float) -> Any:
        scaled = original(own, methods, most)
        for each in scaled.values():
            each.barrier_.function_.curvatures_ = torch.full((2,), -1e3)
        return scaled

    monkeypatch.setattr(loop_module.TrainingLoop, "_scaled", bent)
    with pytest.warns(WeakSignalWarning, match=r"h falls on .* overshoot the flow"):
        fit(lm, method(QuadraticPotential(2)))


def test_what_was_learned_by_chance_is_said() -> None:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    draw = torch.Generator().manual_seed(0)
    words = [
        bytes(torch.randint(97, 122, (6,), generator=draw).tolist()).decode() for _ in range(40)
    ]
    groups = tuple(map(str, range(20)))
    data = ContrastData(
        tuple(Example("x", w) for w in words[:20]),
        tuple(Example("x", w) for w in words[20:]),
        groups,
        groups,
    )
    with pytest.warns(WeakSignalWarning, match="no more than chance"):
        fit(lm, method(training=QUICK.with_params(max_epochs=1, learning_rate=1e-6)), data)
