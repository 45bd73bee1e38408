"""Two workers on Ray: order of results, errors, lost workers."""

from pathlib import Path

import pytest
import ray_jobs

from odesteer.cluster import Cluster, ModelSource
from odesteer.errors import ClusterError, InvalidInputError


@pytest.fixture
def source(folder: Path) -> ModelSource:
    return ModelSource.of(folder)


def test_results_come_in_order_also_where_a_worker_is_lost(
    cluster: Cluster, source: ModelSource, tmp_path: Path
) -> None:
    mark = tmp_path / "died"
    done = list(cluster.map(ray_jobs.die_once, [(i, str(mark)) for i in range(12)], source))
    assert mark.exists()
    assert [job for job, _ in done] == list(range(12))
    assert len({process for _, process in done}) > 1


def test_a_job_that_kills_its_workers_is_given_up(cluster: Cluster, source: ModelSource) -> None:
    with (
        Cluster(workers=2, attempts=1) as again,
        pytest.raises(ClusterError, match="job 1 has cost 1 worker"),
    ):
        list(again.map(ray_jobs.die, range(3), source))


def test_an_error_of_a_job_ends_a_run_and_not_the_cluster(
    cluster: Cluster, source: ModelSource
) -> None:
    with pytest.raises(InvalidInputError, match="job 1 is refused") as caught:
        list(cluster.map(ray_jobs.refuse, range(3), source))
    assert "on worker" in str(caught.value.__cause__)
    shared = ["even", "odd"]
    done = cluster.map(ray_jobs.double, range(3), source, shared)
    assert list(done) == [(0, 4, "even"), (2, 4, "odd"), (4, 4, "even")]
    assert list(cluster.map(ray_jobs.double, [], source)) == []


def test_a_run_that_is_not_finished_ends_with_the_cluster(
    cluster: Cluster, source: ModelSource
) -> None:
    with Cluster(workers=1) as again:
        run = again.map(ray_jobs.double, range(50), source, ["even", "odd"])
        assert next(run) == (0, 4, "even")
    with pytest.raises(StopIteration):
        next(run)


def test_a_cluster_that_is_too_small_is_refused(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="has 3 CPUs and 6 are needed"):
        Cluster(workers=5).__enter__()
    with pytest.raises(ClusterError, match="0 GPUs and 2 are needed"):
        list(cluster.map(print, [1], ModelSource(None, device="cuda")))
