"""The worker class without Ray."""

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray_jobs

from odesteer.cluster import ModelSource
from odesteer.cluster.worker import AttemptCounter, JobFailure, Worker, WorkerConfig, as_table
from odesteer.errors import ClusterError, InvalidInputError, ModelError


@pytest.fixture
def config(folder: Path) -> WorkerConfig:
    return WorkerConfig(ray_jobs.double, ModelSource.of(folder), "cpu", threads=1)


def result(worker: Worker, job: int) -> object:
    done = worker(as_table(job, job))
    assert done["number"].to_pylist() == [job]
    return pickle.loads(done["content"][0].as_py())


def worker(config: WorkerConfig) -> Worker:
    shared = {"a": "even", "b": "odd"}
    return Worker(config, ["a", "b"], shared.__getitem__, partial(AttemptCounter().begin, 1))


def test_a_job_gets_the_model_and_the_shared_objects(config: WorkerConfig) -> None:
    one = worker(config)
    assert [result(one, job) for job in (3, 4)] == [(6, 4, "odd"), (8, 4, "even")]


def test_shared_objects_are_fetched_on_first_use(config: WorkerConfig) -> None:
    fetched: list[str] = []
    one = Worker(
        config,
        ["a", "b"],
        lambda handle: fetched.append(handle),
        partial(AttemptCounter().begin, 1),
    )
    for job in (1, 3, 5):
        result(one, job)
    assert fetched == ["b"]


def test_an_error_is_raised_unchanged_with_the_traceback_of_the_worker(
    config: WorkerConfig,
) -> None:
    failed = result(worker(replace(config, task=ray_jobs.refuse)), 1)
    assert isinstance(failed, JobFailure)
    with pytest.raises(InvalidInputError, match="job 1 is refused") as caught:
        failed.raise_here()
    assert "in refuse" in str(caught.value.__cause__)


def test_an_error_that_cannot_be_pickled_becomes_a_cluster_error(config: WorkerConfig) -> None:
    failed = result(worker(replace(config, task=ray_jobs.fail_oddly)), 1)
    assert isinstance(failed, JobFailure)
    with pytest.raises(ClusterError, match="UnpicklableError: this and that"):
        failed.raise_here()


def test_a_folder_that_a_worker_cannot_see_is_named_with_the_remedy(
    config: WorkerConfig, tmp_path: Path
) -> None:
    source = ModelSource(str(tmp_path / "elsewhere"))
    failed = result(worker(replace(config, source=source)), 0)
    assert isinstance(failed, JobFailure)
    with pytest.raises(ModelError, match=r"no folder .*elsewhere .* same path .* shared file"):
        failed.raise_here()


def test_another_version_of_odesteer_is_refused(config: WorkerConfig) -> None:
    failed = result(worker(replace(config, version="0.0.9")), 0)
    assert isinstance(failed, JobFailure)
    with pytest.raises(ClusterError, match=r"called by 0\.0\.9; install the same version"):
        failed.raise_here()


def test_a_job_is_given_up_after_so_many_attempts(config: WorkerConfig) -> None:
    one = worker(replace(config, attempts=2))
    assert [result(one, 5) for _ in range(2)] == [(10, 4, "odd")] * 2
    failed = result(one, 5)
    assert isinstance(failed, JobFailure)
    with pytest.raises(ClusterError, match="job 5 has cost 2 workers their lives"):
        failed.raise_here()


def test_a_folder_is_named_so_that_others_find_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert ModelSource.of("tiny-llama").name == str(folder)
    assert ModelSource.of("owner/name").name == "owner/name"
    (folder.parent / "m.gguf").touch()
    assert ModelSource.of("m.gguf").name == str(folder.parent / "m.gguf")


def test_an_outline_has_everything_but_weights(folder: Path) -> None:
    model, _ = ModelSource.of(folder).outline()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    with pytest.raises(ModelError, match="cannot look up the model"):
        ModelSource.of(folder.parent).outline()
