"""vLLM agrees with Hugging Face, in all configurations."""

from itertools import cycle, islice

import pytest
from engines import engine, in_another_process, needs_vllm, read_answers
from references import Answer, Case, Request, prompts

pytestmark = needs_vllm

STEERINGS = (
    None,
    "{0}-kernel@1.5",
    "{0}-linear",
    "{0}-sketch@T=2",
    "{0}-caa@strength=0.5",
    "{0}-map@0.8+{0}-kernel@level=0.5",
)

COMPILED = {"enforce_eager": False}
WHOLE = {"enable_chunked_prefill": False, "max_num_batched_tokens": 160}
TWO = {"tensor_parallel_size": 2}
CONFIGURATIONS = {
    "eager, chunks": {},
    "eager, whole": WHOLE,
    "eager, chunks, two": TWO,
    "eager, whole, two": WHOLE | TWO,
    "compiled, chunks": COMPILED,
    "compiled, whole": COMPILED | WHOLE,
    "compiled, chunks, two": COMPILED | TWO,
    "compiled, whole, two": COMPILED | WHOLE | TWO,
}
# One is checked in all of them, the other, larger one in those that differ most.
TERRARIUM = ("eager, whole", "eager, chunks, two", "compiled, chunks", "compiled, whole, two")
PAIRS = [("stories", name) for name in CONFIGURATIONS] + [("terrarium", name) for name in TERRARIUM]


def mixed_batch(case: Case) -> list[Request]:
    """32 requests with five steerings and none; some prompts are longer than a chunk."""
    wanted = islice(cycle(STEERINGS), 32)
    pairs = zip(prompts(32, 110, vocabulary=case.vocabulary), wanted, strict=True)
    return [Request(prompt, text and text.format(case.name)) for prompt, text in pairs]


def unsteered(case: Case) -> list[Request]:
    return [Request(request.prompt) for request in mixed_batch(case)[:12]]


@pytest.fixture(scope="module")
def plain(cases: dict[str, Case], environment: dict[str, str]) -> dict[str, list[Answer]]:
    """What vLLM without the plugin answers, eager and compiled.

    The compiled one leaves its graph in the cache that engines with the plugin look into.
    """
    case = cases["terrarium"]
    told = {**environment, "VLLM_PLUGINS": "", "ODESTEER_STEERERS": ""}
    found = {}
    for name in ("eager, whole", "compiled, chunks"):
        run = in_another_process(
            case.path, [r.prompt for r in unsteered(case)], told, **CONFIGURATIONS[name]
        )
        assert run.returncode == 0, run.stderr[-2000:]
        found[name] = read_answers(run.stdout)
    return found


@pytest.mark.parametrize(("model", "configuration"), PAIRS)
def test_a_mixed_batch_agrees_with_hugging_face(
    model: str,
    configuration: str,
    cases: dict[str, Case],
    plain: dict[str, list[Answer]],
    environment: dict[str, str],
) -> None:
    if model not in cases:
        pytest.skip("no ../shared folder with models beside the project")
    case = cases[model]
    requests = mixed_batch(case)
    expected = case.reference.answers(requests)
    without = case.reference.answers([Request(request.prompt) for request in requests])
    moved = [
        answer.tokens != base.tokens or not answer.agrees(base)
        for answer, base in zip(expected, without, strict=True)
    ]
    assert moved == [request.steering is not None for request in requests]
    with engine(case.path, **CONFIGURATIONS[configuration]) as running:
        bare = running.answers(unsteered(case)) if model == "terrarium" else []
        first, again = running.run(requests), running.run(requests)
    for request, (answer, _), right in zip(requests, first, expected, strict=True):
        assert answer.agrees(right), request.steering
    for request, (answer, cached), right in zip(requests, again, expected, strict=True):
        assert answer.agrees(right), request.steering
        assert cached == (len(request.prompt) - 1) // 32 * 32
    if configuration in plain and bare:
        assert bare == plain[configuration]  # to the bit


def test_a_graph_compiled_without_the_plugin_is_not_used(
    plain: dict[str, list[Answer]], environment: dict[str, str], terrarium: Case
) -> None:
    """The graphs that are in the cache: one without the operation, and others with it."""
    from pathlib import Path

    graphs = list(Path(environment["VLLM_CACHE_ROOT"]).glob("torch_compile_cache/*/*/*/model"))
    assert graphs
    has_op = [b"odesteer_vllm" in graph.read_bytes() for graph in graphs]
    assert False in has_op
    assert True in has_op
