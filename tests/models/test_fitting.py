"""`SteeredModel.fit`: steerers that know where they act and where they come from."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from steerers import hooks_of, pairs, steerer

import odesteer
import tiny_models
from odesteer.artifact import Provenance, Site, Steerer
from odesteer.data import ContrastData, Example, Message
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA, ODESteer
from odesteer.models import ProvenanceWarning, SteeredModel


def test_a_steerer_knows_its_site_and_its_origin(lm: SteeredModel) -> None:
    data = pairs()
    fitted = lm.fit(CAA(), data, 2, steer_position="all", seed=3)
    assert fitted.site == Site(2, "all")
    assert fitted.provenance == Provenance(
        model_id=None,
        model_width=32,
        n_layers=4,
        capture_position="last",
        data_digest=data.digest(),
        n_positive=4,
        n_negative=4,
        seed=3,
        held_out=fitted.provenance.held_out,
        odesteer_version=odesteer.__version__,
    )
    figures = dict(fitted.provenance.held_out)
    assert (fitted.barrier.held_out_ or {}).items() <= figures.items()
    added = {"auc_error", "linear_probe_auc", "linear_probe_auc_error"}
    assert added <= figures.keys()


def test_it_is_fitted_on_the_captured_activations(lm: SteeredModel) -> None:
    data, method = pairs(), CAA()
    fitted = lm.fit(method, data, 2)
    positive, negative = (lm.capture(side, 2).states[2] for side in (data.positive, data.negative))
    wanted = CAA().fit(positive, negative, data.groups)
    torch.testing.assert_close(fitted.method.direction_, wanted.direction_)
    assert not method.is_fitted


@pytest.mark.parametrize("position", ["answer", "random_answer"])
def test_groups_follow_their_examples(lm: SteeredModel, position: Any) -> None:
    class Spy(CAA):
        def fit(self, positive: Any, negative: Any, groups: Any = None) -> Any:
            assert [len(side) for side in groups] == [len(positive), len(negative)]
            seen.append(groups)
            return super().fit(positive, negative, groups)

    seen: list[Any] = []
    lm.fit(Spy(), pairs(), 1, position=position)
    captured = lm.capture((*pairs().positive, *pairs().negative), 1, position)
    labels = [*pairs().groups_positive, *pairs().groups_negative]
    assert [*seen[0][0], *seen[0][1]] == [labels[i] for i in captured.example.tolist()]


def test_several_layers_in_one_pass(lm: SteeredModel) -> None:
    several = lm.fit(CAA(), pairs(), [3, 1])
    assert several.sites == (Site(1), Site(3))
    alone = lm.fit(CAA(), pairs(), 1)
    torch.testing.assert_close(several[0].method.direction_, alone.method.direction_)
    with lm.steering(several):
        lm.model(torch.tensor([[1, 20]]))


def test_the_chat_template_is_part_of_the_origin_where_it_is_used(lm: SteeredModel) -> None:
    assert lm.fit(CAA(), pairs(), 1).provenance.chat_template_hash is None
    chat = (Message("user", "well?"),)
    data = ContrastData(
        (Example(chat, "yes"),) * 3, (Example(chat, "no"),) * 3, *[("a", "b", "c")] * 2
    )
    with_chat = lm.fit(CAA(), data, 1, position="answer").provenance.chat_template_hash
    assert with_chat == hashlib.sha256(tiny_models.CHAT_TEMPLATE.encode()).hexdigest()


def test_what_cannot_be_fitted(lm: SteeredModel) -> None:
    before = hooks_of(lm.model)
    with pytest.raises(ModelError, match="no layer 9"):
        lm.fit(CAA(), pairs(), 9)
    with pytest.raises(InvalidInputError, match="position must be one of last, generated"):
        lm.fit(CAA(), pairs(), 1, steer_position="first")
    with pytest.raises(InvalidInputError, match=r"data is 'pairs.jsonl'.*load_contrast"):
        lm.fit(CAA(), "pairs.jsonl", 1)  # type: ignore[call-overload]
    with pytest.raises(InvalidInputError, match=r"method is 'caa'.*odesteer.ODESteer\(\)"):
        lm.fit("caa", pairs(), 1)  # type: ignore[call-overload]
    with pytest.raises(InvalidInputError, match="at least one layer"):
        lm.fit(CAA(), pairs(), [])
    assert hooks_of(lm.model) == before


def saved(folder: Path, **changes: Any) -> Path:
    tiny_models.llama(**changes).save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


def test_a_model_from_a_folder_goes_by_the_name_of_the_folder(tmp_path: Path) -> None:
    lm = SteeredModel.from_pretrained(str(saved(tmp_path / "tiny")), device="cpu")
    assert lm.model_id == "tiny"
    assert not lm.model.training
    assert lm.device == torch.device("cpu")
    assert lm.fit(CAA(), pairs(), 1).provenance.model_id == "tiny"
    whole = SteeredModel.from_pretrained(
        str(tmp_path / "tiny"), dtype=torch.bfloat16, device_map="cpu"
    )
    assert whole.model.dtype == torch.bfloat16


def test_missing_and_broken_models_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'no/such' at revision 'v1': it is no folder .*hf auth"):
        SteeredModel.from_pretrained("no/such", revision="v1", local_files_only=True)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ModelError, match=r"It has notes.txt; it needs config.json"):
        SteeredModel.from_pretrained(str(tmp_path))
    with pytest.raises(InvalidInputError, match="device='cpu' or device_map='auto', not both"):
        SteeredModel.from_pretrained("no/such", device="cpu", device_map="auto")
    with pytest.raises(ModelError, match=r"model is 'gpt2', .*from_pretrained"):
        SteeredModel("gpt2", tiny_models.tokenizer())
    with pytest.raises(ModelError, match="tokenizer is None"):
        SteeredModel(tiny_models.llama(), None)


def bound(model_id: str | None, revision: str | None = None) -> Steerer:
    return Steerer(
        steerer().method, Site(1), Provenance(model_id=model_id, model_revision=revision)
    )


def test_a_steerer_of_another_model_warns(lm: SteeredModel) -> None:
    model = SteeredModel(lm.model, lm.tokenizer)
    model.model_id, model.model_revision = "maker/model", "abc"
    with pytest.warns(ProvenanceWarning, match="fitted on 'maker/other' .* used on 'maker/model'"):
        model.steering(bound("maker/other"))
    with pytest.warns(ProvenanceWarning, match="revision old of 'maker/model'.* revision abc"):
        model.steering(bound("maker/model", "old"))
    with pytest.warns(ProvenanceWarning) as caught:
        model.generate("x", bound("maker/other"), max_new_tokens=1)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("model_id", "revision"),
    [(None, None), ("maker/model", None), ("maker/model", "abc"), ("model", "abc")],
)
def test_what_is_the_same_or_unknown_does_not_warn(
    lm: SteeredModel, model_id: str | None, revision: str | None
) -> None:
    model = SteeredModel(lm.model, lm.tokenizer)
    model.model_id, model.model_revision = "maker/model", "abc"
    model.steering(bound(model_id, revision))


def test_a_level_goes_from_fit_to_generation(lm: SteeredModel) -> None:
    fitted = lm.fit(ODESteer(), pairs(), 2, position="answer")
    texts = lm.generate(["the"] * 3, fitted, level=[None, 1.0, -1.0], max_new_tokens=8)
    assert texts[0] == lm.generate("the", max_new_tokens=8)[0]
    assert len(texts) == 3


def test_a_processor_lends_its_tokenizer(lm: SteeredModel) -> None:
    class Processor:
        tokenizer = lm.tokenizer

    assert SteeredModel(lm.model, Processor()).tokenizer is lm.tokenizer


def test_integers_of_numpy_and_torch_are_layers(lm: SteeredModel) -> None:
    import numpy as np

    one = lm.fit(CAA(), pairs(), np.int64(2))
    assert one.site == Site(2)
    assert lm.fit(CAA(), pairs(), torch.tensor(2)).site == one.site
    for layers in ([np.int32(1), 2], np.arange(1, 3), range(1, 3)):
        several = lm.fit(CAA(), pairs(), layers)
        assert [member.site for member in several.members] == [Site(1), Site(2)]
