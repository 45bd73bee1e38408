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
from odesteer.evaluation.suites import terrarium
from odesteer.terrarium import worlds


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


RESULTS = ("generations.jsonl", "scores.jsonl")
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


def assert_same_lines(words: list[object], folder: Path, least: int) -> list[str]:
    """A benchmark has the same results with both engines, and so many of them.

    Returns what the workers did, a word for each time that they were started.
    """
    done: list[str] = []
    inside = Cluster.map
    assert main([*map(str, words), "-o", str(folder / "one")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "map", lambda *a: done.append(a[1].__name__) or inside(*a))
        assert main([*map(str, words), "-o", str(folder / "two"), "--engine", "ray"]) == 0
    for name in RESULTS:
        one, two = (sorted(lines(folder / run / name)) for run in ("one", "two"))
        assert one == two
        assert len(one) >= least
    return done


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_fitting_writes_the_same_file_and_leaves_nothing_running(
    cluster: Cluster,
    folder: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["fit", folder, "--data", data, "--layer", 1, "--layer", 2]
    assert main([*map(str, words), "-o", str(tmp_path / "one"), "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    mark = str(tmp_path)
    done = odesteer(*words, "-o", "two", "--engine", "ray", "--json", folder=tmp_path, mark=mark)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["warnings"] == warnings
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
    done = assert_same_lines(words, tmp_path, least=8)
    # At equal cost, which is measured here, steered and unsteered.
    assert done == ["capture", "complete", "complete"]


def test_writing_texts_at_settings_chosen_on_workers(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terrarium, "worlds", lambda: worlds()[:1])
    words = ["bench", "terrarium", "--quick", "--methods", "none,caa", "--layers", "3,4"]
    words += ["--amounts", "strength=0.2,0.4", "--refinements", "0"]
    words += ["--limit", "4", "--batch-size", "3"]
    # Of both 4 to report on, of CAA 4 to choose by at each of four settings.
    done = assert_same_lines(words, tmp_path, least=24)
    # Unsteered, at the settings to choose among, to report on.
    assert done == ["complete", "capture", "complete", "complete"]
    # What workers have begun is finished here.
    wanted = {name: lines(tmp_path / "two" / name) for name in RESULTS}
    for name, own in wanted.items():
        (tmp_path / "two" / name).write_bytes(b"".join(own[: len(own) // 2]))
    assert main([*map(str, words), "-o", str(tmp_path / "two")]) == 0
    for name, own in wanted.items():
        found = lines(tmp_path / "two" / name)
        assert found[: len(own) // 2] == own[: len(own) // 2]
        assert sorted(found) == sorted(own)


def test_options_of_ray_want_ray(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", folder, "--data", data, "--layer", 1, "-o", tmp_path / "s"]
    for option in (("--workers", 3), ("--worker-threads", 2), ("--ray-address", "auto")):
        assert main([*map(str, words), *map(str, option)]) == 2
        assert f"{option[0]} {option[1]} is for --engine ray" in capsys.readouterr().err
    assert main([*map(str, words), "--engine", "ray", "--ray-address", "ray://a:1"]) == 1
    assert "give host:port" in capsys.readouterr().err
