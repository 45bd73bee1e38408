"""Threads: which ones a steering covers, and models that several of them use at once."""

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from steerers import IDS, D, caa, hooks_of, logits, ode
from torch import Tensor

from odesteer.artifact import Steerer
from odesteer.models import SteeredModel, SteeringWarning


def in_a_thread(task: Callable[[], Any]) -> Any:
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(task()))
    thread.start()
    thread.join()
    return done[0]


@contextmanager
def thread_before() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """A function that runs tasks in a thread that was started outside the block."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # which starts the thread
        yield lambda task: pool.submit(task).result()


def test_a_thread_from_before_is_not_steered_and_warns_once(lm: SteeredModel) -> None:
    base = logits(lm)
    with thread_before() as run:
        with lm.steering(caa()):
            steered = logits(lm)
            with pytest.warns(SteeringWarning, match="thread .* is not steered") as warnings:
                found = [run(lambda: logits(lm)) for _ in range(2)]
            assert all(torch.equal(one, base) for one in found)
            assert len(warnings) == 1
            assert torch.equal(logits(lm), steered)
        # Of a steering of its own it knows.
        with lm.steering(caa(seed=1)):
            logits(lm)
            assert torch.equal(run(lambda: steered_logits(lm, caa())), steered)
    assert not torch.equal(steered, base)


def steered_logits(lm: SteeredModel, own: Steerer) -> Tensor:
    with lm.steering(own):
        return logits(lm)


def test_threads_started_in_the_block_are_steered(lm: SteeredModel) -> None:
    with lm.steering(caa()):
        steered = logits(lm)
        assert torch.equal(in_a_thread(lambda: logits(lm)), steered)
        assert torch.equal(in_a_thread(lambda: in_a_thread(lambda: logits(lm))), steered)
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(lambda _: logits(lm), range(4)):
                assert torch.equal(found, steered)


def test_contexts_that_are_copied_are_steered(lm: SteeredModel) -> None:
    async def run() -> Tensor:
        with lm.steering(caa()):
            return await asyncio.to_thread(logits, lm)

    assert torch.equal(asyncio.run(run()), steered_logits(lm, caa()))
    with thread_before() as inside, lm.steering(caa()):
        context = contextvars.copy_context()
        found = inside(lambda: context.run(logits, lm))
    assert torch.equal(found, steered_logits(lm, caa()))


def test_a_pool_from_before_as_of_a_web_server(lm: SteeredModel) -> None:
    """Gradio and others run functions in threads of a pool that they made at their start."""

    def answer(own: Steerer | None) -> list[str]:
        return lm.generate("the dog", own, strength=None if own is None else 2.0, max_new_tokens=6)

    wanted = [answer(own) for own in (None, caa())]
    with thread_before() as run:
        assert [run(lambda own=own: answer(own)) for own in (None, caa())] == wanted

        async def serve() -> list[str]:
            return await asyncio.get_running_loop().run_in_executor(None, answer, caa())

        assert asyncio.run(serve()) == wanted[1]


def replica(module: Any) -> Any:
    """As `torch.nn.DataParallel` makes them for each device: copies that share everything."""
    made = module._replicate_for_data_parallel()
    made._parameters = dict(module._parameters)
    for name, child in module._modules.items():
        made._modules[name] = None if child is None else replica(child)
    return made


def test_replicas_of_data_parallel_are_steered(lm: SteeredModel) -> None:
    wrapper = torch.nn.DataParallel(lm.model)
    wanted = steered_logits(lm, caa())
    with lm.steering(caa()), torch.no_grad():
        assert torch.equal(wrapper(input_ids=IDS).logits, wanted)
        parts = [(replica(lm.model), ids[None]) for ids in IDS]

        def run(part: Any) -> Tensor:
            with torch.no_grad():  # which threads do not inherit
                return part[0](input_ids=part[1]).logits  # type: ignore[no-any-return]

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(run, parts))
    torch.testing.assert_close(torch.cat(found), wanted, rtol=1e-4, atol=1e-5)


def test_the_streaming_recipe_of_transformers(lm: SteeredModel) -> None:
    """`generate` in a thread, the text read from a streamer in this one."""
    from transformers import TextIteratorStreamer

    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with lm.steering(caa(), strength=2.0):
        wanted = lm.model.generate(IDS[:1], **options)[0, IDS.shape[1] :]
        streamer = TextIteratorStreamer(lm.tokenizer, skip_prompt=True)
        thread = threading.Thread(
            target=lm.model.generate, args=(IDS[:1],), kwargs={**options, "streamer": streamer}
        )
        thread.start()
        text = "".join(streamer)
        thread.join()
    assert text == lm.tokenizer.decode(wanted)
    assert not torch.equal(wanted, lm.model.generate(IDS[:1], **options)[0, IDS.shape[1] :])


def test_threads_of_one_steering_do_not_mix_their_prompts(lm: SteeredModel) -> None:
    own = caa(position="generated").when(caa(layer=1, seed=4), above=0)
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    prompts = [IDS[i : i + 1, : 5 - i] for i in range(3)]

    def generate(ids: Tensor) -> Tensor:
        return lm.model.generate(ids, **options)  # type: ignore[no-any-return]

    with lm.steering(own, strength=2.0):
        wanted = [generate(ids) for ids in prompts]
        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                found = list(pool.map(generate, prompts))
                assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_the_same_seed_is_the_same_text_in_every_thread(lm: SteeredModel) -> None:
    def write(_: int) -> list[str]:
        return lm.generate("the dog", do_sample=True, max_new_tokens=12, seed=5)

    wanted = write(0)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == [wanted] * 4
    assert torch.equal(torch.rand(4), expected)


def test_threads_with_their_own_steering(lm: SteeredModel) -> None:
    """Four threads at once, in step, each with another steerer (one without)."""
    steerers = [None, caa(seed=1), caa(seed=2), ode(position="all")]
    wanted = []
    for own in steerers:
        with lm.steering(*([own] if own else [])):
            wanted.append(logits(lm))
    barrier = threading.Barrier(len(steerers), timeout=60)
    found: dict[int, list[Tensor]] = {}

    def work(i: int) -> None:
        own = steerers[i]
        for _ in range(5):
            barrier.wait()
            with lm.steering(*([own] if own else [])):
                barrier.wait()
                found.setdefault(i, []).append(logits(lm))
                barrier.wait()

    before = hooks_of(lm.model)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(steerers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, outputs in found.items():
        assert len(outputs) == 5
        assert all(torch.equal(output, wanted[i]) for output in outputs)
    assert hooks_of(lm.model) == before


@pytest.mark.filterwarnings("ignore::odesteer.models.SteeringWarning")
def test_threads_that_come_and_go_do_not_disturb_each_other(lm: SteeredModel) -> None:
    """Hooks come and go while another thread is in the middle of its passes."""
    base, done, errors = logits(lm), threading.Event(), list[BaseException]()

    def come_and_go() -> None:
        try:
            while not done.is_set():
                with lm.steering(caa()):
                    pass
        except BaseException as error:
            errors.append(error)

    others = [threading.Thread(target=come_and_go) for _ in range(2)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for other in others:
            other.start()
        for _ in range(40):
            assert torch.equal(logits(lm), base)
    finally:
        done.set()
        sys.setswitchinterval(switch)
        for other in others:
            other.join()
    assert not errors


def test_a_hook_that_another_thread_meets_half_placed(lm: SteeredModel) -> None:
    """Between two tables of torch, a hook may be called without the named arguments."""
    layer, owner = lm.layers.at(2), lm.layers.owner
    with lm.steering(caa()):
        logits(lm)
        (before,), (after,) = owner._forward_pre_hooks.values(), layer._forward_hooks.values()
        assert in_a_thread(lambda: before(owner, (IDS,))) is None
        assert in_a_thread(lambda: after(layer, (), torch.ones(1, 1, D))) is None
