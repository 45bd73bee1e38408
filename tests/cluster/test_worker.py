"""A worker by itself: no Ray is needed."""

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray_jobs

from odesteer.cluster import ModelSource
from odesteer.cluster.worker import Attempts, Failure, Orders, Worker, table
from odesteer.errors import ClusterError, InvalidInputError, ModelError


@pytest.fixture
def orders(folder: Path) -> Orders:
    return Orders(ray_jobs.double, ModelSource.of(folder), "cpu", threads=1)


def outcome(worker: Worker, job: int) -> object:
    done = worker(table(job, job))
    assert done["number"].to_pylist() == [job]
    return pickle.loads(done["content"][0].as_py())


def worker(orders: Orders) -> Worker:
    shared = {"a": "even", "b": "odd"}
    return Worker(orders, ["a", "b"], shared.__getitem__, partial(Attempts().begin, 1))


def test_jobs_are_done_with_the_model_and_what_they_share(orders: Orders) -> None:
    one = worker(orders)
    assert [outcome(one, job) for job in (3, 4)] == [(6, 4, "odd"), (8, 4, "even")]


def test_what_jobs_share_is_fetched_when_it_is_needed(orders: Orders) -> None:
    fetched: list[str] = []
    one = Worker(
        orders, ["a", "b"], lambda handle: fetched.append(handle), partial(Attempts().begin, 1)
    )
    for job in (1, 3, 5):
        outcome(one, job)
    assert fetched == ["b"]


def test_an_error_comes_home_as_it_is_with_where_it_happened(orders: Orders) -> None:
    failed = outcome(worker(replace(orders, task=ray_jobs.refuse)), 1)
    assert isinstance(failed, Failure)
    with pytest.raises(InvalidInputError, match="job 1 is refused") as caught:
        failed.raise_here()
    assert "in refuse" in str(caught.value.__cause__)


def test_an_error_that_cannot_travel_is_told(orders: Orders) -> None:
    failed = outcome(worker(replace(orders, task=ray_jobs.fail_oddly)), 1)
    assert isinstance(failed, Failure)
    with pytest.raises(ClusterError, match="UnpicklableError: this and that"):
        failed.raise_here()


def test_a_folder_that_a_worker_cannot_see_is_named_with_the_remedy(
    orders: Orders, tmp_path: Path
) -> None:
    source = ModelSource(str(tmp_path / "elsewhere"))
    failed = outcome(worker(replace(orders, source=source)), 0)
    assert isinstance(failed, Failure)
    with pytest.raises(ModelError, match=r"no folder .*elsewhere .* same path .* shared file"):
        failed.raise_here()


def test_another_version_of_odesteer_is_refused(orders: Orders) -> None:
    failed = outcome(worker(replace(orders, version="0.0.9")), 0)
    assert isinstance(failed, Failure)
    with pytest.raises(ClusterError, match=r"called by 0\.0\.9; install the same version"):
        failed.raise_here()


def test_a_job_is_given_up_after_so_many_attempts(orders: Orders) -> None:
    one = worker(replace(orders, attempts=2))
    assert [outcome(one, 5) for _ in range(2)] == [(10, 4, "odd")] * 2
    failed = outcome(one, 5)
    assert isinstance(failed, Failure)
    with pytest.raises(ClusterError, match="job 5 has cost 2 workers their lives"):
        failed.raise_here()


def test_a_folder_is_named_so_that_others_find_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert ModelSource.of("tiny-llama").name == str(folder)
    assert ModelSource.of("owner/name").name == "owner/name"


def test_an_outline_has_everything_but_weights(folder: Path) -> None:
    model, _ = ModelSource.of(folder).outline()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    with pytest.raises(ModelError, match="cannot look up the model"):
        ModelSource.of(folder.parent).outline()
