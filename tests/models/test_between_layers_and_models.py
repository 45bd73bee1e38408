"""Transfer to other models and layers, fits in order, weight edits, rules for layers."""

import random
from dataclasses import replace

import pytest
import torch

import tiny_models
from odesteer.artifact import Site, Steerer, load, lqr
from odesteer.barriers import (
    FrozenBarrier,
    NeighbourBarrier,
    ProductBarrier,
    ProjectedBarrier,
    SharedProjectionBarrier,
    Training,
)
from odesteer.data import ContrastData, Example
from odesteer.errors import InvalidInputError, ModelError
from odesteer.flows import RK4, Covariance, Midpoint
from odesteer.methods import (
    CAA,
    Ablation,
    Angular,
    Conditional,
    LinearAcT,
    NormPreserving,
    ODESteer,
    OneStep,
    QueryTruthFlow,
    Setpoint,
    Spherical,
    SubspaceMap,
)
from odesteer.models import (
    SteeredModel,
    ablate_weights,
    fit_in_order,
    fit_triples,
    for_request,
    mean_jacobians,
    transfer,
)
from odesteer.tuning import early_layers, layers_by_rule, opposite_sign_layers

WORDS = [
    *("the", "sun", "is", "cold", "and", "rain", "warm", "in"),
    *("red", "house", "by", "old", "sea", "with", "two", "men"),
]


def sentences(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=6)) for _ in range(n)]


@pytest.fixture(scope="module")
def data() -> ContrastData:
    sides = [
        tuple(Example("", f"{text} {end}") for text in sentences(24, 1)) for end in ("good", "bad")
    ]
    groups = tuple(map(str, range(24)))
    return ContrastData(*sides, groups, groups)


@pytest.fixture(scope="module")
def other() -> SteeredModel:
    return SteeredModel(tiny_models.gpt2(), tiny_models.tokenizer(adds_bos=False))


def test_a_steerer_moves_to_another_layer(lm: SteeredModel, data: ContrastData, tmp_path) -> None:  # type: ignore[no-untyped-def]
    own = lm.fit(ODESteer(solver=RK4(6), amount=1.0, max_strength=7.0), data, 1)
    found = transfer(own, lm, lm, sentences(80), layer=2)
    assert found.explained_barrier > 0.3
    method = found.steerer.method
    assert isinstance(method, ODESteer)
    assert isinstance(method.barrier, ProjectedBarrier)
    assert (repr(method.solver), method.amount, method.max_strength) == ("RK4(n_steps=6)", 1.0, 7.0)
    assert found.steerer.site == replace(own.site, layer=2)
    # h of the mapped activation rises to the level.
    a = lm.capture(data.negative, 2).states[2]
    assert float(method.barrier.value(method.steer(a, level=1.0)).median()) >= 0.9 * float(
        method.barrier.threshold(1.0)
    )
    found.steerer.save(tmp_path / "moved.safetensors")
    again = load(tmp_path / "moved.safetensors")
    assert torch.equal(again.steer(a), found.steerer.steer(a))
    with lm.steering(again):
        lm.generate("the sun", max_new_tokens=3)


def test_the_kind_of_flow_stays(lm: SteeredModel, data: ContrastData) -> None:
    own = lm.fit(OneStep(), data, 1)
    method = transfer(own, lm, lm, sentences(80), layer=2).steerer.method
    assert type(method) is OneStep
    a = lm.capture(data.negative, 2).states[2]
    assert not torch.equal(method.steer(a), a)


def test_the_same_layer_is_the_identity(lm: SteeredModel, data: ContrastData) -> None:
    own = lm.fit(CAA(), data, 1)
    found = transfer(own, lm, lm, sentences(120), layer=1)
    assert found.explained_barrier > 0.99
    vectors = [s.method.constant_displacement() for s in (own, found.steerer)]
    assert float(torch.nn.functional.cosine_similarity(*vectors, dim=0)) > 0.95


def test_a_constant_steerer_moves_to_another_model(
    lm: SteeredModel, other: SteeredModel, data: ContrastData
) -> None:
    own = lm.fit(CAA(), data, 1)
    with pytest.raises(InvalidInputError, match=r"explains -?\d+\.\d+"):
        transfer(own, lm, other, sentences(80), least_explained=0.9999)
    found = transfer(own, lm, other, sentences(80), kind="orthogonal", least_explained=-100)
    assert isinstance(found.steerer.method, CAA)
    assert found.steerer.provenance.model_id == other.model_id
    with other.steering(found.steerer):
        other.generate("the sun", max_new_tokens=2)


def test_what_cannot_be_moved(lm: SteeredModel, data: ContrastData) -> None:
    texts = sentences(60)
    own = lm.fit(CAA(), data, 1)
    for steerer, words in (
        (Steerer(own.method), "without a site"),
        (own.when(own, below=0.0), "gate"),
        (lm.fit(LinearAcT(), data, 1), "LinearAcT"),
        (lm.fit(SubspaceMap(), data, 1), "SubspaceMap"),
        (lm.fit(Spherical(), data, 1), "Spherical"),
        (lm.fit(ODESteer(metric=Covariance()), data, 1), "Covariance.*Euclidean metric"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            transfer(steerer, lm, lm, texts)
    with pytest.raises(InvalidInputError, match="few"):
        transfer(own, lm, lm, texts[:10])
    with pytest.raises(InvalidInputError, match="layers 0 to 3"):
        transfer(own, lm, lm, texts, layer=9)
    with pytest.raises(InvalidInputError, match="linear"):
        transfer(own, lm, lm, texts, kind="linear")  # type: ignore[arg-type]


def test_fits_in_order_learn_what_is_left(lm: SteeredModel, data: ContrastData) -> None:
    together, in_order = lm.fit(CAA(), data, [1, 2]), fit_in_order(lm, CAA(), data, [2, 1])
    a = torch.randn(3, lm.width)
    assert torch.equal(together[0].steer(a), in_order[0].steer(a))
    with lm.steering(in_order[0]):
        expected = lm.fit(CAA(), data, 2)
    assert torch.equal(expected.steer(a), in_order[1].steer(a))
    assert not torch.equal(together[1].steer(a), in_order[1].steer(a))
    with pytest.raises(InvalidInputError, match="different"):
        fit_in_order(lm, CAA(), data, [1, 1])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_weights_without_a_direction(name: str, data: ContrastData) -> None:
    lm = SteeredModel(tiny_models.ARCHITECTURES[name](), tiny_models.tokenizer())
    generator = torch.Generator().manual_seed(0)
    for key, weight in lm.model.named_parameters():
        if "norm" in key:  # as they are made, norms scale all coordinates alike
            weight.data += 0.5 * torch.randn(weight.shape, generator=generator)
    steerer = lm.fit(Ablation(), data, 1)
    r = steerer.method.direction_  # type: ignore[attr-defined]
    before = {key: value.clone() for key, value in lm.model.state_dict().items()}
    if name == "llama":
        ablate_weights(lm, steerer)
        states = lm.capture(data.negative, [0, 1, 2, 3]).states
        for layer in range(4):
            left = (states[layer] @ r).abs() / states[layer].norm(dim=1)
            assert float(left.max()) < 1e-5
        return
    # Positions are added to GPT-2's embeddings, and Gemma 3 has norms behind its projections.
    with pytest.raises(ModelError, match="bring it back"):
        ablate_weights(lm, steerer)
    after = lm.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_weights_are_edited_for_ablation_alone(lm: SteeredModel, data: ContrastData) -> None:
    for method, words in ((CAA(), "CAA"), (Ablation("positive"), "positive")):
        with pytest.raises(InvalidInputError, match=words):
            ablate_weights(lm, lm.fit(method, data, 1))
    for layer, part in ((1, "heads"), (lm.n_layers - 1, "final")):
        with pytest.raises(InvalidInputError, match="residual stream"):
            ablate_weights(lm, lm.fit(Ablation(), data, layer, part=part))


def test_rules_for_layers(lm: SteeredModel, data: ContrastData) -> None:
    found = lm.capture((*data.positive, *data.negative), [0, 1, 2, 3])
    first = found.example < len(data.positive)
    expected = []
    for layer in range(4):
        means = [found.states[layer][side].mean(dim=0) for side in (first, ~first)]
        r = means[0] - means[1]
        if float(means[0] @ r) > 0 > float(means[1] @ r):
            expected.append(layer)
    if expected:
        assert opposite_sign_layers(lm, data) == expected
    else:
        with pytest.raises(InvalidInputError, match="origin"):
            opposite_sign_layers(lm, data)
    assert layers_by_rule(lm, data, "early") == [0, 1, 2]
    assert layers_by_rule(lm, data, "early", [2, 3]) == [2]
    if expected:
        assert layers_by_rule(lm, data, "opposite-signs", expected[:1]) == expected[:1]
    for rule, words in (("early", "last fifth"), ("late", "opposite-signs or early")):
        with pytest.raises(InvalidInputError, match=words):
            layers_by_rule(lm, data, rule, [3])  # type: ignore[arg-type]
    assert early_layers(30) == list(range(24))
    assert early_layers(1) == [0]
    with pytest.raises(InvalidInputError, match="share"):
        early_layers(4, 0.0)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_mean_jacobians_are_slopes_of_the_model(name: str, data: ContrastData) -> None:
    lm = SteeredModel(tiny_models.ARCHITECTURES[name](), tiny_models.tokenizer())
    prompt = "the sun is cold and the rain is warm"
    examples = [Example("the sun is cold and the rain is", " warm")]
    assert lm.encode(examples[0]).ids == lm.encode(prompt).ids
    between, above = mean_jacobians(lm, [2, 0, 3], [prompt], max_tokens=64)
    for layers, jacobian in (((0, 2), between), ((2, 3), above)):
        change = 1e-3 * torch.randn(lm.width, generator=torch.Generator().manual_seed(0))
        ends = []
        for sign in (1.0, -1.0):
            nudge = Steerer(CAA.from_direction(sign * change), Site(layers[0], "last"))
            with lm.steering(nudge):
                ends.append(lm.capture(examples, layers[1]).states[layers[1]][0])
        slope = (ends[0] - ends[1]).double() / 2
        torch.testing.assert_close(
            jacobian @ change.double(), slope, rtol=0, atol=2e-2 * float(slope.abs().max())
        )
    for layers, prompts, words in (([1], [prompt], "two or more"), ([0, 1], [], "prompts")):
        with pytest.raises(InvalidInputError, match=words):
            mean_jacobians(lm, layers, prompts)


def test_linear_quadratic_control_of_a_model(
    lm: SteeredModel,
    data: ContrastData,
    tmp_path,  # type: ignore[no-untyped-def]
) -> None:
    fitted = lm.fit(Setpoint(), data, [0, 1, 3])
    jacobians = mean_jacobians(lm, [0, 1, 3], sentences(3))
    controlled = lqr(fitted, jacobians, control_cost=0.5)
    controlled.save(tmp_path / "set.safetensors")
    again = load(tmp_path / "set.safetensors")
    a = torch.randn(4, lm.width)
    for one, other in zip(controlled, again.members, strict=True):
        assert torch.equal(one.steer(a), other.steer(a))
    with lm.steering(again):
        lm.generate("the sun", max_new_tokens=2)


def test_layers_are_fitted_jointly(lm: SteeredModel, data: ContrastData) -> None:
    quick = Training(0.02, max_epochs=10, keep_best=True)
    method = ODESteer(SharedProjectionBarrier(3, (4,), quick, folds=0))
    first, second = lm.fit(method, data, [1, 2])
    shared = [s.barrier.function_.projection_ for s in (first, second)]
    assert torch.equal(*shared)
    assert not torch.equal(shared[0], lm.fit(method, data, 1).barrier.function_.projection_)
    with pytest.raises(
        InvalidInputError, match=r"wrap what comes out, as in NormPreserving\.around"
    ):
        lm.fit(NormPreserving(method), data, [1, 2])
    shared = SharedProjectionBarrier(3, (4,), quick, folds=0)
    with pytest.raises(InvalidInputError, match="by itself"):
        lm.fit(ODESteer(ProductBarrier((shared, shared.clone()))), data, [1, 2])
    for joint in (method, Angular(plane="shared")):
        with pytest.raises(InvalidInputError, match="together"):
            fit_in_order(lm, joint, data, [1, 2])
    lm.fit(NormPreserving(method), data, 1)
    frozen = ODESteer(FrozenBarrier(first.barrier))
    a = torch.randn(4, lm.width)
    for steerer in lm.fit(NormPreserving(frozen), data, [1, 2]):
        assert torch.equal(steerer.barrier.value(a), first.barrier.value(a))


@pytest.mark.parametrize("way", ["when", "conditional"])
def test_gates_by_neighbours_fitted_on_queries(
    lm: SteeredModel,
    data: ContrastData,
    way: str,
    tmp_path,  # type: ignore[no-untyped-def]
) -> None:
    """Prompts like those it knows are steered, others come back as they are."""
    own = lm.fit(CAA(T=30.0), data, 2)
    unlike = ["0 1 2 3 4 5 6 7 8 9", "zzzz qqqq zzzz qqqq"]
    queries, asked = (  # each ends with its last word, which a pass takes for the prompt's end
        [Example(front, f" {word}") for front, word in (text.rsplit(" ", 1) for text in texts)]
        for texts in (sentences(60, 5), sentences(3, 9) + unlike)
    )
    if way == "when":
        groups = tuple(map(str, range(30)))
        sides = ContrastData(tuple(queries[:30]), tuple(queries[30:]), groups, groups)
        gate = ODESteer(NeighbourBarrier(1, 1.0, which="all"))
        gated = own.when(lm.fit(gate, sides, 1), below=0.0)
    else:
        # Where it is applied: at the tokens that are steered, prompts' last ones.
        states = lm.capture(queries, 2).states[2]
        barrier = NeighbourBarrier(1, 1.0).fit_queries(states)
        gated = replace(
            own,
            method=Conditional.around(own.method, gate=barrier),
            site=Site(2, "last::1"),
        )
        own = replace(own, site=Site(2, "last::1"))
    gated.save(tmp_path / "gated.safetensors")
    again = load(tmp_path / "gated.safetensors")
    with lm.steering(again):
        found = lm.capture(asked, 3)
    plain = lm.capture(asked, 3)
    with lm.steering(own):
        steered = lm.capture(asked, 3)
    assert not torch.equal(steered.states[3][-1], plain.states[3][-1])
    torch.testing.assert_close(found.states[3][:3], steered.states[3][:3])
    torch.testing.assert_close(found.states[3][3:], plain.states[3][3:])


def test_corrections_are_made_for_a_request(lm: SteeredModel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    queries = sentences(20, 3)
    sides = [tuple(Example(f"{q} is", f" {end} sun") for q in queries) for end in ("good", "bad")]
    groups = tuple(map(str, range(20)))
    data = ContrastData(*sides, groups, groups)
    quick = Training(0.02, max_epochs=5, keep_best=True)
    method = QueryTruthFlow(solver=Midpoint(3), hidden=(4,), training=quick)
    steerer = fit_triples(lm, method, data, 1)
    fitted = steerer.method
    assert isinstance(fitted, QueryTruthFlow)
    # Answers are means over their tokens, queries the last tokens of prompts.
    answers = lm.capture(data.positive, 1, "answer")
    first = answers.states[1][answers.example == 0].mean(dim=0)
    wrong = lm.capture(data.negative, 1, "answer")
    start = lm.capture(data.positive, 1, "prompt").states[1]
    torch.testing.assert_close(fitted.means_[0], start.mean(dim=0))
    second = wrong.states[1][wrong.example == 0].mean(dim=0)
    assert float((first - second).norm()) > 0
    steerer.save(tmp_path / "triples.safetensors")
    again = load(tmp_path / "triples.safetensors")
    prompt = f"{queries[0]} is"
    one = for_request(lm, again, prompt)
    expected = 1.5 * fitted.correction(start[0])
    torch.testing.assert_close(one.method.constant_displacement(), expected, rtol=1e-4, atol=1e-6)
    with lm.steering(one):
        lm.generate(prompt, max_new_tokens=3)
    with pytest.raises(InvalidInputError, match="QueryTruthFlow"):
        for_request(lm, one, prompt)
    mixed = replace(data, positive=(Example("other", " good"), *data.positive[1:]))
    with pytest.raises(InvalidInputError, match="different prompts"):
        fit_triples(lm, method, mixed, 1)
