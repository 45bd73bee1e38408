"""Which rows move in a step: those that would move if each request ran alone."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from odesteer.artifact import Site, Steerer
from odesteer.artifact.phases import MarkerReader, PhasedText
from odesteer.methods import CAA, Amount, ODESteer
from odesteer.vllm.request_steering import LayerSteering, RequestSteering, moved_tokens
from odesteer.vllm.step import StepBatch, StepPlanner

D = 8
POSITIONS = ("last", "generated", "prompt", "all")


def moved(
    position: str, start: int, stop: int, prompt_length: int, text: PhasedText | None = None
) -> list[int]:
    ranges = moved_tokens(position, start, stop, prompt_length, text)
    return [token for tokens in ranges for token in tokens]


class Letters:
    """A tokenizer whose tokens are the letters from a on."""

    def decode(self, tokens: list[int], **options: bool) -> str:
        return "".join(chr(ord("a") + token) for token in tokens)


def letters(text: str) -> PhasedText:
    return PhasedText([ord(letter) - ord("a") for letter in text], MarkerReader(Letters()))


@given(
    st.sampled_from((*POSITIONS, "last::1", "last:2:9", "generated:0:5", "generated:3:")),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(1, 40),
)
def test_pieces_move_what_the_whole_moves(
    position: str, start: int, first: int, second: int, prompt_length: int
) -> None:
    middle, stop = start + first, start + first + second
    pieces = [
        *moved(position, start, middle, prompt_length),
        *moved(position, middle, stop, prompt_length),
    ]
    assert pieces == moved(position, start, stop, prompt_length)


def test_the_positions_by_name() -> None:
    assert {p: moved(p, 0, 5, 3) for p in POSITIONS} == {
        "last": [2, 3, 4],
        "generated": [3, 4],
        "prompt": [0, 1, 2],
        "all": [0, 1, 2, 3, 4],
    }


def test_windows_by_hand() -> None:
    windows = ("last::1", "last:1:3", "generated::2", "generated:2:")
    assert {w: moved(w, 0, 7, 3) for w in windows} == {
        "last::1": [2],
        "last:1:3": [3, 4],
        "generated::2": [3, 4],
        "generated:2:": [5, 6],
    }


def test_phases_by_hand() -> None:
    text = "xopxxclxxopxcl"  # blocks are open at its tokens 2 to 5 and 10 to 12
    block, outside = "thinking:op..cl", "answer:op..cl"
    assert moved(block, 0, 14, 1, letters(text)) == [2, 3, 4, 5, 10, 11, 12]
    assert moved(block, 0, 14, 5, letters(text)) == [4, 5, 10, 11, 12]
    assert moved(outside, 0, 14, 5, letters(text)) == [6, 7, 8, 9, 13]
    assert moved("after:xx", 0, 14, 5, letters(text)) == [8, 9, 10, 11, 12, 13]
    assert moved("after:op", 0, 14, 5, letters(text)) == [10, 11, 12, 13]


@given(
    st.sampled_from(("thinking:op..cl", "answer:op..cl", "after:cl", "after:o")),
    st.text("opclx", min_size=1, max_size=24),
    st.integers(0, 24),
    st.integers(0, 24),
    st.integers(1, 10),
)
def test_phases_do_not_depend_on_how_a_text_is_cut(
    position: str, text: str, start: int, middle: int, prompt_length: int
) -> None:
    stop = len(text)
    start = min(start, stop)
    middle = min(max(middle, start), stop)
    growing = letters(text[:middle])
    pieces = moved(position, start, middle, prompt_length, growing)
    growing.continue_from(middle, letters(text).tokens[middle:])
    pieces += moved(position, middle, stop, prompt_length, growing)
    assert pieces == moved(position, start, stop, prompt_length, letters(text))


def test_phases_move_rows_in_several_ranges() -> None:
    phased = steering(("caa", "strength", 1.0), position="thinking:op..cl")
    given = replace(
        batch((phased, 0, 14, 1), (None, 0, 1, 1)), texts=(letters("xopxxclxxopxcl"), None)
    )
    hidden = torch.ones(15, D)
    run(given, hidden, None)
    rows = [int(row) for row in (hidden != 1).any(dim=1).nonzero().flatten()]
    assert rows == [2, 3, 4, 5, 10, 11, 12]


def test_a_window_ends_while_tokens_are_generated() -> None:
    windowed = steering(("caa", "strength", 1.0), position="generated:0:2")
    planner, found = StepPlanner(torch.device("cpu")), []
    for first in (3, 4, 5):
        found.append(planner.step(batch((windowed, first, first + 1, 3))) is not None)
    assert found == [True, True, False]


def fitted() -> dict[str, Steerer]:
    generator = torch.Generator().manual_seed(0)
    clouds = [torch.randn(40, D, generator=generator) + shift for shift in (1.0, 0.0)]
    methods = {"ode": ODESteer(), "caa": CAA()}
    return {name: Steerer(m.fit(*clouds), Site(1)) for name, m in methods.items()}


STEERERS = fitted()


def steering(
    *items: tuple[str, str, float], layer: int = 1, position: str = "last"
) -> RequestSteering:
    return RequestSteering(
        tuple(
            LayerSteering(STEERERS[name], Site(layer, position), Amount(quantity, value), name)
            for name, quantity, value in items
        )
    )


def batch(*requests: tuple[RequestSteering | None, int, int, int]) -> StepBatch:
    """Of requests with their first token, the one behind the last, and the prompt's length."""
    steerings, starts, stops, prompts = zip(*requests, strict=True)
    counts = np.array(stops) - starts
    return StepBatch(steerings, np.cumsum([0, *counts]), np.array(starts), np.array(prompts))


def run(given: StepBatch, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
    step = StepPlanner(torch.device("cpu")).step(given)
    assert step is not None
    for operation in step.at(1):
        operation.apply(hidden, residual)


def test_a_mixed_batch_moves_each_row_as_if_alone() -> None:
    """Rows: 0-3 a chunk with the prompt's end, 4 none, 5 and 6-7 generating, 8 two in turn."""
    ode, other = steering(("ode", "level", 1.0)), steering(("ode", "level", 2.0))
    two = steering(("ode", "T", 0.5), ("caa", "strength", 0.3))
    mixed = batch(
        (ode, 6, 10, 10),
        (None, 3, 4, 2),
        (other, 12, 13, 10),
        (ode, 9, 11, 10),
        (two, 20, 21, 10),
        (None, 0, 1, 1),
    )
    generator = torch.Generator().manual_seed(1)
    hidden, residual = torch.randn(2, 10, D, generator=generator)
    stream = hidden + residual
    expected = stream.clone()
    for rows, name, amount in (
        ([3, 6, 7], "ode", {"level": 1.0}),
        ([5], "ode", {"level": 2.0}),
        ([8], "ode", {"T": 0.5}),
        ([8], "caa", {"strength": 0.3}),
    ):
        expected[rows] = STEERERS[name].steer(expected[rows], **amount)
    before = hidden.clone()
    run(mixed, hidden, residual)
    torch.testing.assert_close(hidden + residual, expected)
    still = [0, 1, 2, 4, 9]
    assert torch.equal(hidden[still], before[still])
    alone = stream.clone()
    run(mixed, alone, None)
    torch.testing.assert_close(alone, expected)


def test_half_precision_is_moved_in_float32() -> None:
    """The sum of two bfloat16 tensors is not one: only what is added is rounded."""
    generator = torch.Generator().manual_seed(2)
    hidden, residual = torch.randn(2, 4, D, generator=generator).bfloat16()
    stream = hidden.float() + residual.float()
    expected = STEERERS["ode"].steer(stream, T=1.0)
    run(batch((steering(("ode", "T", 1.0)), 0, 4, 1)), hidden, residual)
    torch.testing.assert_close(hidden.float() + residual.float(), expected, atol=0.02, rtol=0)


def test_a_step_in_which_nothing_moves_is_none() -> None:
    request = steering(("ode", "level", 1.0))
    planner = StepPlanner(torch.device("cpu"))
    assert planner.step(batch((None, 0, 5, 4))) is None
    assert planner.step(batch((request, 0, 5, 9))) is None


def test_decoding_reuses_the_operations() -> None:
    planner = StepPlanner(torch.device("cpu"))
    request = steering(("ode", "level", 1.0))
    steps = [planner.step(batch((None, at, at + 1, 2), (request, at, at + 1, 4))) for at in (7, 8)]
    assert steps[0] is not None
    assert steps[1] is not None
    assert steps[0] is not steps[1]
    assert steps[0].operations is steps[1].operations


STEERINGS = {
    None: None,
    "ode": steering(("ode", "level", 1.0)),
    "other": steering(("ode", "level", 0.5), position="generated"),
    "prompt": steering(("caa", "strength", 0.5), position="prompt"),
}
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(list(STEERINGS)), st.integers(0, 6), st.integers(1, 3), st.integers(1, 6)
    ),
    min_size=1,
    max_size=4,
)


@given(st.lists(REQUESTS, min_size=1, max_size=6))
def test_earlier_steps_do_not_change_a_step(
    given_steps: list[list[tuple[str | None, int, int, int]]],
) -> None:
    planner = StepPlanner(torch.device("cpu"))
    for requests in given_steps:
        now = batch(*((STEERINGS[text], at, at + n, prompt) for text, at, n, prompt in requests))
        again, fresh = planner.step(now), StepPlanner(torch.device("cpu")).step(now)
        assert (again is None) == (fresh is None)
        if again is not None and fresh is not None:
            states = torch.randn(
                int(now.row_offsets[-1]), D, generator=torch.Generator().manual_seed(5)
            )
            found, expected = states.clone(), states.clone()
            for operation in again.at(1):
                operation.apply(found, None)
            for operation in fresh.at(1):
                operation.apply(expected, None)
            assert torch.equal(found, expected)
