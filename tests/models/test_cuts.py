"""What is steered depends on what is prompt and what is generated, not on the cut into passes."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steerers import IDS, caa, logits, ode, steerer
from torch import Tensor
from transformers import DynamicCache

import tiny_models
from odesteer.artifact import POSITIONS
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models import SteeredModel

N_ROWS = 3
WINDOWS = ("last::1", "last:1:3", "generated:0:2", "generated:2:")
PHASES = ("thinking:<..>>", "answer:<..>>", "after:<x", "after:x")  # with markers of two tokens
TEXT = "<>x"  # what sequences consist of, so that markers occur often


def token_of(character: str) -> int:
    (token,) = tiny_models.tokenizer()(character, add_special_tokens=False)["input_ids"]
    return int(token)


def vocabulary_of(position: str) -> Sequence[int]:
    if position in PHASES:
        return [token_of(character) for character in TEXT]
    return range(3, tiny_models.VOCABULARY)


class Sequences:
    """Prompts of several lengths, padded on one side, and as many tokens behind each."""

    def __init__(
        self,
        lengths: Sequence[int],
        n_more: int,
        side: str,
        seed: int,
        vocabulary: Sequence[int] = range(3, tiny_models.VOCABULARY),
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.width = max(lengths)
        shape = len(lengths), self.width + n_more
        chosen = torch.randint(0, len(vocabulary), shape, generator=generator)
        self.ids = torch.tensor(vocabulary)[chosen]
        columns = torch.arange(self.width)
        n = torch.tensor(lengths)[:, None]
        prompt = columns < n if side == "right" else columns >= self.width - n
        self.mask = torch.cat([prompt, torch.ones(len(lengths), n_more).bool()], dim=1).long()
        self.ids = self.ids * self.mask
        self.positions = (self.mask.cumsum(dim=1) - 1).clamp_min(0)
        self.n_columns = shape[1]

    def run(self, lm: SteeredModel, stops: Sequence[int], cached: bool) -> Tensor:
        """Logits of all columns, from passes that end at ``stops``."""
        cache, start, found = DynamicCache(), 0, []
        for stop in stops:
            first = start if cached else 0
            given: dict[str, Any] = {
                "attention_mask": self.mask[:, :stop],
                "position_ids": self.positions[:, first:stop],
                "use_cache": cached,
            }
            if cached:
                given["past_key_values"] = cache
            with torch.no_grad():
                out = lm.model(self.ids[:, first:stop], **given).logits
            found.append(out[:, start - first :])
            start = stop
        return torch.cat(found, dim=1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_cut_gives_the_logits_of_decoding_token_by_token(
    lm: SteeredModel, data: st.DataObject
) -> None:
    draw = data.draw
    lengths = draw(st.lists(st.integers(1, 5), min_size=N_ROWS, max_size=N_ROWS), "lengths")
    side = draw(st.sampled_from(["left", "right"]), "side")
    position = draw(st.sampled_from((*POSITIONS, *WINDOWS, *PHASES)), "position")
    texts = Sequences(
        lengths,
        draw(st.integers(1, 5), "more"),
        side,
        draw(st.integers(0, 9)),
        vocabulary_of(position),
    )
    own = steerer(layer=2, position=position)
    gate = draw(st.sampled_from([None, "last", "mean"]), "gate")
    if gate is not None:
        own = own.when(caa(layer=draw(st.integers(0, 2), "gate layer")), above=0, pool=gate)
    level = draw(
        st.none() | st.lists(st.none() | st.floats(-0.5, 0.5), min_size=N_ROWS, max_size=N_ROWS),
        "amounts",
    )
    options: dict[str, Any] = {} if level is None else {"strength": level}
    with lm.steering(own, **options):
        by_token = texts.run(lm, range(texts.width, texts.n_columns + 1), cached=True)

    inner = draw(st.sets(st.integers(1, texts.n_columns - 1)), "cut")
    cached = draw(st.booleans(), "cached")
    stops = [*sorted(inner), texts.n_columns]
    # What nobody can know must be said: that the first pass is not exactly the prompt, and where
    # prompts end that are padded on the right and read in pieces.
    if stops[0] < texts.width and side == "right":
        options["prompt_width"] = lengths
    elif stops[0] != texts.width or draw(st.booleans(), "said"):
        options["prompt_width"] = texts.width
    in_pieces, refusal = stops[0] < texts.width, ""
    try:
        with lm.steering(own, **options):
            found = texts.run(lm, stops, cached)
    except ModelError as error:
        refusal = str(error)
    if refusal:  # a gate that decides about tokens that have passed
        assert "read the prompt in one pass" in refusal
        assert gate is not None
        assert in_pieces
        assert side == "right" or position in ("prompt", "all")
        return
    tokens = texts.mask.bool()
    torch.testing.assert_close(found[tokens], by_token[tokens], rtol=1e-3, atol=1e-3)


def moved(lm: SteeredModel, position: str, prompt: str, more: str) -> str:
    """The characters of prompt and continuation, with a capital or * for each that is moved."""
    ids = torch.tensor([[token_of(character) for character in prompt + more]])
    with lm.steering(caa(position=position), prompt_width=len(prompt), receipt=True) as steering:
        logits(lm, ids)
    columns = set(steering.receipt().column.tolist())
    text = prompt + more
    return "".join(c.upper() if i in columns else c for i, c in enumerate(text))


@pytest.mark.parametrize(
    ("position", "prompt", "more", "expected"),
    [
        ("last::1", "abc", "defg", "abCdefg"),
        ("last:0:3", "abc", "defg", "abCDEfg"),
        ("generated::2", "abc", "defg", "abcDEfg"),
        ("generated:2:", "abc", "defg", "abcdeFG"),
        ("generated:9:", "abc", "defg", "abcdefg"),
        # From the end of the opening marker to before the end of the closing one.
        ("thinking:aa..zz", "bc", "aadezzfg", "bcaADEZzfg"),
        ("answer:aa..zz", "bc", "aadezzfg", "bCAadezZFG"),
        # The prompt may open the block, and holds blocks of earlier turns.
        ("thinking:aa..zz", "aabzzcaa", "dezzfg", "aabzzcaADEZzfg"),
        ("answer:aa..zz", "aabzzc", "defg", "aabzzCDEFG"),
        ("thinking:aa..zz", "bc", "defg", "bcdefg"),
        # Markers in the prompt do not count, also not those that begin there.
        ("after:xy", "axyb", "cxydxy", "axybcxYDXY"),
        ("after:xy", "abx", "ycd", "abxycd"),
    ],
)
def test_windows_and_phases_by_hand(
    lm: SteeredModel, position: str, prompt: str, more: str, expected: str
) -> None:
    assert moved(lm, position, prompt, more) == expected


def test_phases_of_generated_texts(lm: SteeredModel) -> None:
    """The model is made to open and close a block, by a processor of its logits."""
    script = [token_of(character) for character in "a<bc>de"]

    def processor(ids: Tensor, scores: Tensor) -> Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, script[min(ids.shape[1] - width, len(script) - 1)]] = 0.0
        return forced

    width = IDS.shape[1]
    for position, expected in (
        ("thinking:<..>", [2, 3, 4]),
        ("answer:<..>", [0, 1, 5, 6]),
        ("after:bc", [4, 5, 6]),
        ("last:2:4", [2, 3]),
    ):
        with lm.steering(caa(position=position), receipt=True) as steering:
            lm.model.generate(
                IDS, max_new_tokens=7, do_sample=False, pad_token_id=0, logits_processor=[processor]
            )
        receipt = steering.receipt()
        for row in range(len(IDS)):
            assert (receipt.column[receipt.row == row] - (width - 1)).tolist() == expected


def test_phases_refuse_what_cannot_be_known(lm: SteeredModel) -> None:
    cache = DynamicCache()
    lm.model(IDS, past_key_values=cache)
    thinking = caa(position="thinking")
    with lm.steering(thinking), pytest.raises(ModelError, match="begin it before the prompt"):
        lm.model(IDS[:, :1], past_key_values=cache)
    embedded = lm.model.get_input_embeddings()(IDS).detach()
    with lm.steering(thinking), pytest.raises(ModelError, match="give it token ids"):
        lm.model(inputs_embeds=embedded)
    options: dict[str, Any] = {"max_new_tokens": 2, "num_beams": 2, "pad_token_id": 0}
    with pytest.raises(InvalidInputError, match="num_beams=2"), lm.steering(thinking):
        lm.model.generate(IDS, **options)
    with pytest.raises(InvalidInputError, match="compiled=True does not go with positions"):
        lm.steering(thinking, compiled=True)
    lm.model.generate(IDS, **options)


def test_prompts_padded_on_the_right_in_pieces_must_be_told_apart(lm: SteeredModel) -> None:
    texts = Sequences([1, 4, 2], 2, "right", seed=0)
    with (
        lm.steering(caa(), prompt_width=4),
        pytest.raises(ModelError, match=r"padded on the right.*prompt_width=\[...\]"),
    ):
        texts.run(lm, [2, 4, 6], cached=True)


@pytest.mark.parametrize("position", [*POSITIONS, "generated:2:5", "after:a"])
@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"prefill_chunk_size": 2},
        {"prompt_lookup_num_tokens": 3},
        {"num_beams": 2},
        {"num_beams": 2, "use_cache": False},
        {"cache_implementation": "static"},
    ],
    ids=lambda options: ",".join(options),
)
def test_generate_of_transformers_in_every_way(
    lm: SteeredModel, position: str, options: dict[str, Any]
) -> None:
    """The same tokens as `SteeredModel.generate`, with nothing said about the prompt."""
    if "num_beams" in options and position == "after:a":
        pytest.skip("refused, as another test shows")
    own, ids = ode(position=position), IDS[:1]
    plain = {"num_beams": options["num_beams"]} if "num_beams" in options else {}
    settings_: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0}
    with lm.steering(own, level=1.0):
        wanted = lm.model.generate(ids, **settings_, **plain)
        assert torch.equal(lm.model.generate(ids, **settings_, **options), wanted)
    assert "generate" not in vars(lm.model)


@pytest.mark.parametrize("position", POSITIONS)
def test_assistants(lm: SteeredModel, position: str) -> None:
    own, ids = ode(position=position), IDS[:1]
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0}
    assistant = tiny_models.llama()
    with lm.steering(own, level=1.0):
        wanted = lm.model.generate(ids, **options)
        found = lm.model.generate(ids, assistant_model=assistant, **options)
        early = lm.model.generate(ids, assistant_early_exit=1, **options)
    assert torch.equal(found, wanted)
    assert torch.equal(early, wanted)


def test_a_second_turn_by_generate_is_a_prompt(lm: SteeredModel) -> None:
    cache = DynamicCache()
    with lm.steering(caa(position="prompt"), receipt=True) as steering:
        options: dict[str, Any] = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0}
        first = lm.model.generate(IDS[:1], past_key_values=cache, **options)
        lm.model.generate(torch.cat([first, IDS[:1]], dim=1), past_key_values=cache, **options)
    assert steering.receipt().column.tolist() == [0, 1, 2, 3, 4, *range(6, 12)]


def test_a_growing_sequence_without_a_cache_keeps_its_prompt(lm: SteeredModel) -> None:
    ids = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])
    with lm.steering(caa(position="generated")):
        by_pass = [logits(lm, ids[:, :n])[:, -1] for n in (4, 5, 7)]
        other = logits(lm, ids[:, 1:])  # another prompt
    with lm.steering(caa(position="generated"), prompt_width=4):
        whole = logits(lm, ids)
    for found, column in zip(by_pass, (3, 4, 6), strict=True):
        torch.testing.assert_close(found, whole[:, column], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other, logits(lm, ids[:, 1:]))


def test_a_prompt_width_for_each_row_is_checked(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="must be positive, not 0"):
        lm.steering(caa(), prompt_width=[3, 0])
    with pytest.raises(InvalidInputError, match="a number for each row"):
        lm.steering(caa(), prompt_width=[])
    with (
        lm.steering(caa(), prompt_width=[3, 4]),
        pytest.raises(ModelError, match=r"2 numbers, and the model was given 3 rows"),
    ):
        logits(lm)
