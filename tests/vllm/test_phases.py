"""Positions that depend on the text are those of the library, whatever is cached or preempted."""

from itertools import cycle, islice

import pytest
from engines import engine, needs_vllm
from references import PHASES, Case, Request, prompts

pytestmark = needs_vllm


def batch(n: int, longest: int, seed: int) -> list[Request]:
    """Requests with every phase, two of them at once, a plain position and none."""
    steerings = [f"{name}-linear@2" for name in PHASES]
    steerings += ["inside-linear@2+outside-linear@-1", "terrarium-linear@2", None]
    pairs = zip(
        prompts(n, longest, vocabulary=500, seed=seed), islice(cycle(steerings), n), strict=True
    )
    return [Request(*pair) for pair in pairs]


@pytest.mark.parametrize("more", [{}, {"async_scheduling": False, "tensor_parallel_size": 2}])
def test_phases_agree_with_hugging_face(more: dict[str, object], terrarium: Case) -> None:
    requests = batch(24, 110, seed=3)
    expected = terrarium.reference.answers(requests)
    everywhere = [Request(each.prompt, "terrarium-linear@2") for each in requests]
    moved_everywhere = terrarium.reference.answers(everywhere)
    for name in PHASES:  # moves a part of the text only
        mine = [i for i, each in enumerate(requests) if each.steering == f"{name}-linear@2"]
        assert not all(expected[i].agrees(moved_everywhere[i]) for i in mine)
        plain = terrarium.reference.answers([Request(requests[i].prompt) for i in mine])
        assert not all(expected[i].agrees(bare) for i, bare in zip(mine, plain, strict=True))
    with engine(terrarium.path, **more) as running:
        for _ in range(2):  # from the prefix cache the second time
            found = running.run(requests)
            for request, (answer, _), right in zip(requests, found, expected, strict=True):
                assert answer.agrees(right), request.steering
        assert sum(cached for _, cached in found) > 0
        # What was generated inside and outside of blocks is read again as a prompt.
        longer = [
            Request((*request.prompt, *answer.tokens), request.steering)
            for request, (answer, _) in zip(requests, found, strict=True)
        ]
        for request, (answer, _) in zip(longer, running.run(longer), strict=True):
            assert answer.agrees(terrarium.reference.answer(request)), request.steering


def test_preempted_requests_keep_their_phases(terrarium: Case) -> None:
    requests = batch(12, 60, seed=5)
    with engine(terrarium.path, num_gpu_blocks_override=10, disable_log_stats=False) as small:
        answers = small.answers(requests)
        counts = [m.value for m in small.llm.get_metrics() if m.name == "vllm:num_preemptions"]
    assert sum(counts) > 0
    for request, answer in zip(requests, answers, strict=True):
        assert answer.agrees(terrarium.reference.answer(request)), request.steering
