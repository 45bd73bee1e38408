"""The command, as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from odesteer.terrarium import model_path

pytestmark = pytest.mark.slow


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "odesteer.evaluation.harness", *words],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=cwd,
        env={**os.environ, **offline, "HF_HOME": str(cwd / "hf")},
    )


def test_a_task_of_ones_own(
    tasks: dict[str, dict[str, Any]], truthful: Path, tmp_path: Path
) -> None:
    own = tmp_path / "tasks"
    own.mkdir()
    (own / "choosing.yaml").write_text(json.dumps(tasks["choosing"]))
    arguments = f"pretrained={model_path()},steer={truthful},level=1.5"
    done = command(
        *("--model", "odesteer", "--model_args", arguments, "--tasks", "choosing"),
        *("--include_path", str(own), "--device", "cpu", "--limit", "3", "--batch_size", "2"),
        *("--output_path", str(tmp_path / "out")),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(path.read_text())
    assert results["results"]["choosing"]["acc,none"] > 0.5
    assert results["config"]["steering"][0]["steerers"][0]["amount"] == "level=1.5"


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, tasks: dict[str, Any]) -> None:
    own = tmp_path / "choosing.yaml"
    own.write_text(json.dumps(tasks["choosing"]))
    done = command(
        *("--model", "odesteer", "--model_args", "steer=none.safetensors"),
        *("--tasks", str(own)),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "error: cannot load none.safetensors: there is no such file." in done.stderr
    assert "Traceback" not in done.stderr
