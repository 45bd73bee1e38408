"""``odesteer fit`` and ``odesteer bench`` with ``--engine ray``."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from odesteer.cli import main
from odesteer.cluster import Cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of random words of two kinds."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    with path.open("w") as file:
        for i in range(24):
            kinds = (("positive", "sunny gay warm"), ("negative", "dull cold grey"))
            texts = {side: " ".join(rng.choices(words.split(), k=5)) for side, words in kinds}
            file.write(json.dumps({"prompt": f"Day {i}:", **texts}) + "\n")
    return path


MARK = "ODESTEER_TEST_RUN"
"""Inherited by all processes that a command starts."""


def odesteer(*words: object, folder: Path, mark: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "odesteer", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", MARK: mark}
    env.pop("RAY_ADDRESS", None)
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=900
    )


def started_by(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:  # it has just ended, or is somebody else's
            continue
    return found


def test_fitting_writes_the_same_file_and_leaves_nothing_running(
    cluster: Cluster, folder: Path, data: Path, tmp_path: Path
) -> None:
    words = ["fit", folder, "--data", data, "--layer", 1, "--layer", 2]
    assert main([*map(str, words), "-o", str(tmp_path / "one")]) == 0
    mark = str(tmp_path)
    done = odesteer(*words, "-o", "two", "--engine", "ray", "--json", folder=tmp_path, mark=mark)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["warnings"] == []
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    _, alive = psutil.wait_procs(started_by(mark), timeout=60)
    assert not alive


def test_a_running_cluster_is_joined_and_left_running(cluster: Cluster, tmp_path: Path) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    code = (
        "from odesteer.cluster import Cluster\n"
        f"with Cluster(workers=2, address={address!r}) as cluster: print(cluster)"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == f"2 workers on {address}"
    assert ray.cluster_resources()["CPU"] == 3


def test_benchmarking_writes_the_same_lines(
    cluster: Cluster, folder: Path, data: Path, tmp_path: Path
) -> None:
    words = ["bench", "contrast", "--model", folder, "--data", data, "--layers", 1]
    words += ["--methods", "none,odesteer-default", "--seeds", 1, "--limit", 4, "--batch-size", 3]
    assert main([*map(str, words), "-o", str(tmp_path / "one")]) == 0
    assert main([*map(str, words), "-o", str(tmp_path / "two"), "--engine", "ray"]) == 0
    for name in ("generations.jsonl", "scores.jsonl"):
        one, two = (
            sorted((tmp_path / run / name).read_bytes().splitlines()) for run in ("one", "two")
        )
        assert one == two
        assert len(one) >= 8


def test_options_of_ray_want_ray(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", folder, "--data", data, "--layer", 1, "-o", tmp_path / "s"]
    for option in (("--workers", 3), ("--worker-threads", 2), ("--ray-address", "auto")):
        assert main([*map(str, words), *map(str, option)]) == 2
        assert f"{option[0]} {option[1]} is for --engine ray" in capsys.readouterr().err
    assert main([*map(str, words), "--engine", "ray", "--ray-address", "ray://a:1"]) == 1
    assert "give host:port" in capsys.readouterr().err
