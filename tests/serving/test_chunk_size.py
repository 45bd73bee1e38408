"""Size of a chunk of a long prompt beside decoding, by made-up durations."""

from hypothesis import given
from hypothesis import strategies as st

from odesteer.serving.engine.chunk_size import ChunkSize


def test_a_chunk_takes_a_share_of_a_step() -> None:
    size = ChunkSize(64)
    assert size.tokens(0.2) == 16  # nothing is known yet
    for _ in range(30):
        size.note(16, 16 * 0.01)
    assert size.tokens(0.2) == 14
    assert size.tokens(0.4) == 28
    assert size.tokens(10.0) == 64
    assert size.tokens(0.0) == 8
    for _ in range(30):
        size.note(8, 8 * 0.02)  # further on, attention costs more
    assert size.tokens(0.4) == 14


def test_short_prompts_in_the_same_round_count_up_to_a_half() -> None:
    size = ChunkSize(512)
    size.note(10, 0.1)
    alone = size.tokens(2.0)
    assert alone == 140
    assert size.tokens(2.0, computed=40) == 100
    assert size.tokens(2.0, computed=500) == 70


@given(
    st.integers(1, 600),
    st.lists(st.tuples(st.integers(1, 600), st.floats(0, 100))),
    st.floats(0, 100),
    st.integers(0, 600),
)
def test_it_is_within_bounds(
    most: int, noted: list[tuple[int, float]], step: float, computed: int
) -> None:
    size = ChunkSize(most)
    for n_tokens, seconds in noted:
        size.note(n_tokens, seconds)
    assert min(most, 8) <= size.tokens(step, computed) <= most
