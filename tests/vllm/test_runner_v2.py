"""Adapter of model runner V2, which does not run on CPUs, on a test double."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engines import needs_vllm

from odesteer.artifact import Site, Steerer
from odesteer.errors import ModelError
from odesteer.methods import CAA
from odesteer.vllm import custom_op, runner_v1, runner_v2
from odesteer.vllm.steerers import PluginSteerers
from odesteer.vllm.step import StepPlanner

D = 4


class Runner:
    """A double: keeps requests in slots as V2 does, and runs one layer."""

    max_num_tokens = 16

    def __init__(self) -> None:
        self.req_states = SimpleNamespace(prompt_len=SimpleNamespace(np=np.zeros(8, dtype=int)))
        self.slots: dict[str, int] = {}
        self.seen: list[custom_op.SteeringStep | None] = []

    def add_requests(self, scheduler_output: Any) -> None:
        for request in scheduler_output.scheduled_new_reqs:
            self._remove_request(request.req_id)
            slot = self.slots[request.req_id] = 7 - len(self.slots)
            self.req_states.prompt_len.np[slot] = request.prompt_len

    def _remove_request(self, req_id: str) -> bool:
        return self.slots.pop(req_id, None) is not None

    def prepare_inputs(self, scheduler_output: Any) -> Any:
        counts = scheduler_output.num_scheduled_tokens
        return SimpleNamespace(
            req_ids=list(counts),
            idx_mapping_np=np.array([self.slots[name] for name in counts]),
            query_start_loc_np=np.cumsum([0, *counts.values()]),
            num_computed_tokens_np=np.array([scheduler_output.computed[name] for name in counts]),
        )

    def execute_model(self, scheduler_output: Any, dummy_run: bool = False) -> torch.Tensor:
        if not dummy_run:
            for finished in scheduler_output.finished:
                self._remove_request(finished)
            self.add_requests(scheduler_output)
            self.prepare_inputs(scheduler_output)
        hidden = torch.zeros(8, D) + torch.arange(8.0)[:, None] + 1
        step = custom_op.current_step()
        self.seen.append(step)
        for operation in step.at(0) if step else ():
            operation.apply(hidden, None)
        return hidden

    def _dummy_run(self, num_tokens: int, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.execute_model(None, dummy_run=True)
        return hidden, hidden


def scheduled(
    counts: dict[str, int], computed: dict[str, int], new: Any = (), finished: Any = ()
) -> SimpleNamespace:
    requests = [
        SimpleNamespace(
            req_id=name,
            prompt_len=length,
            sampling_params=SimpleNamespace(extra_args=text and {"odesteer": text}),
        )
        for name, length, text in new
    ]
    return SimpleNamespace(
        num_scheduled_tokens=counts,
        computed=computed,
        scheduled_new_reqs=requests,
        finished=finished,
    )


@pytest.fixture
def runner() -> Runner:
    positive, negative = torch.randn(2, 30, D) + torch.tensor([1.0, 0.0]).view(2, 1, 1)
    steerers = PluginSteerers({"caa": Steerer(CAA().fit(positive, negative), Site(0))})
    runner = Runner()
    assert runner_v2.fits(runner)
    assert not runner_v1.fits(runner)
    runner_v2.attach(runner, steerers, StepPlanner(torch.device("cpu")))
    return runner


def moved(hidden: torch.Tensor) -> list[int]:
    plain = torch.arange(8.0)[:, None] + 1
    return [int(row) for row in (hidden != plain).any(dim=1).nonzero().flatten()]


def test_rows_of_steered_requests_move(runner: Runner) -> None:
    new = [("a", 3, "caa@1"), ("b", 2, None), ("c", 9, "caa@1")]
    first = scheduled({"a": 3, "b": 2, "c": 3}, dict.fromkeys("abc", 0), new)
    assert moved(runner.execute_model(first)) == [2]
    # A batch is not in the order of submission; c is still in its prompt.
    then = scheduled({"c": 4, "b": 1, "a": 2}, {"a": 3, "b": 2, "c": 3})
    assert moved(runner.execute_model(then)) == [5, 6]
    last = scheduled({"c": 2}, {"c": 7})
    assert moved(runner.execute_model(last)) == [1]


def test_no_step_is_left_after_a_pass(runner: Runner) -> None:
    steered = scheduled({"a": 3}, {"a": 0}, [("a", 3, "caa@1")])
    assert moved(runner.execute_model(steered)) == [2]
    assert custom_op.current_step() is None
    assert moved(runner._dummy_run(4)[0]) == []


def test_no_step_is_left_after_a_failure(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from odesteer.vllm.step import RowSteering

    def fail(*given: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(RowSteering, "apply", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        runner.execute_model(scheduled({"a": 3}, {"a": 0}, [("a", 3, "caa@1")]))
    assert custom_op.current_step() is None


def test_a_reused_id_is_another_request(runner: Runner) -> None:
    runner.execute_model(scheduled({"a": 3}, {"a": 0}, [("a", 3, "caa@1")]))
    again = scheduled({"a": 3}, {"a": 0}, [("a", 3, None)], finished=["a"])
    assert moved(runner.execute_model(again)) == []


def test_the_self_test_reaches_dummy_runs(runner: Runner) -> None:
    steering = PluginSteerers({"caa": Steerer(_caa(), Site(0))}).steering("caa@1")
    with custom_op.running_step(StepPlanner(torch.device("cpu")).on_all_rows(steering, 4)):
        assert moved(runner._dummy_run(4)[0]) == [0, 1, 2, 3]


def _caa() -> CAA:
    return CAA().fit(torch.ones(2, D), torch.tensor([[0.0] * D, [0.5] * D]))


@needs_vllm
@pytest.mark.parametrize("missing", ["prepare_inputs", "_remove_request", "req_states"])
def test_a_runner_with_other_internals_is_refused(missing: str) -> None:
    class Other(Runner):
        def __getattribute__(self, name: str) -> Any:
            if name == missing:
                raise AttributeError(name)
            return super().__getattribute__(name)

    with pytest.raises(ModelError, match=rf"Other has no .*{missing}.*tested with vLLM 0\.32"):
        runner_v2.attach(Other(), PluginSteerers({}), StepPlanner(torch.device("cpu")))


@needs_vllm
def test_a_runner_whose_functions_take_other_things_is_refused() -> None:
    class Other(Runner):
        def _remove_request(self, index: int) -> bool:  # the name is the same
            return False

    with pytest.raises(ModelError, match=r"_remove_request takes \(index\), and \(req_id\)"):
        runner_v2.attach(Other(), PluginSteerers({}), StepPlanner(torch.device("cpu")))


@needs_vllm
def test_the_runner_of_vllm_has_these_internals() -> None:
    from vllm.v1.worker.gpu import input_batch, model_runner, states

    methods = ("add_requests", "prepare_inputs", "_remove_request", "execute_model", "_dummy_run")
    assert all(callable(getattr(model_runner.GPUModelRunner, name)) for name in methods)
    fields = {"req_ids", "idx_mapping_np", "query_start_loc_np", "num_computed_tokens_np"}
    assert fields <= set(input_batch.InputBatch.__annotations__)
    assert hasattr(states.RequestState, "add_request")
