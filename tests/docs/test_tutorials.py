"""Tutorials run from top to bottom, and their pages show the code of today.

Here they run on tiny random models, in the place of those that `make llms` fetches, so what they
print means nothing. `make tutorials` runs them on the real ones and writes their pages.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_models

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "tutorials"
SCRIPTS = sorted(FOLDER.glob("*.py"))
# One that has not been executed on its real model yet has no page; the list says so.
WITH_PAGE = [script for script in SCRIPTS if script.with_suffix(".md").exists()]
WITHOUT_MODEL = {"write_a_method"}
NEEDS = {"serve_it": ("fastapi", "uvicorn", "openai")}
MODELS = ("SmolLM2-135M-Instruct", "gemma-3-270m")


def code_cells(script: Path) -> list[str]:
    """The cells of code of a script in percent format."""
    cells = re.split(r"^# %%(.*)\n", script.read_text(), flags=re.MULTILINE)
    return [
        code.strip()
        for kind, code in zip(cells[1::2], cells[2::2], strict=True)
        if "markdown" not in kind
    ]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tutorials, and tiny models where they look for the real ones."""
    project = tmp_path_factory.mktemp("project")
    copy = shutil.copytree(FOLDER, project / "docs" / "tutorials")
    for name in MODELS:
        chats = "Instruct" in name
        model = tiny_models.llama(num_hidden_layers=30, max_position_embeddings=512)
        model.save_pretrained(project / ".llms" / name)
        tiny_models.tokenizer(chats=chats).save_pretrained(project / ".llms" / name)
    _questions(project / "data")
    return copy


def _questions(folder: Path, n: int = 24) -> None:
    """A few questions in the files of TruthfulQA."""
    folder.mkdir()
    with (folder / "TruthfulQA.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("Question", "Best Answer", "Correct Answers", "Incorrect Answers"))
        writer.writerows(
            (f"Is {i} odd?", f"{i} is", f"{i} is; it is", "no; never") for i in range(n)
        )
    targets = [
        {"question": f"Is {i} odd?", "mc1_targets": {"a": 1}, "mc2_targets": {"a": 1}}
        for i in range(n)
    ]
    (folder / "mc_task.json").write_text(json.dumps(targets))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, marks=[pytest.mark.slow] if script.stem not in WITHOUT_MODEL else [])
        for script in SCRIPTS
    ],
    ids=lambda script: script.stem,
)
def test_tutorial_runs(script: Path, beside: Path) -> None:
    for package in ("matplotlib", *NEEDS.get(script.stem, ())):
        pytest.importorskip(package, reason=f"{package} is not installed: odesteer[tutorials]")
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=beside,
        env={
            **os.environ,
            "PYTHONPATH": paths,
            "MPLBACKEND": "agg",
            "HF_HUB_OFFLINE": "1",
            "ODESTEER_DATA": str(beside.parents[1] / "data"),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not done.returncode, done.stderr[-3000:]
    assert done.stdout.strip()


@pytest.mark.parametrize("script", WITH_PAGE, ids=lambda script: script.stem)
def test_page_shows_the_code_of_the_script(script: Path) -> None:
    page = script.with_suffix(".md").read_text()
    shown = re.findall(r"^```python\n(.*?)\n```$", page, flags=re.MULTILINE | re.DOTALL)
    remedy = f"run: python scripts/run_tutorials.py {script.stem}"
    assert [code.strip() for code in shown] == code_cells(script), remedy


def test_every_tutorial_is_in_the_list() -> None:
    listed = (FOLDER / "index.md").read_text()
    pages = [script.with_suffix(".md") if script in WITH_PAGE else script for script in SCRIPTS]
    assert not [page.name for page in pages if f"]({page.name})" not in listed]
