"""A run: resumed anywhere it ends the same, and a changed one takes nothing from an old one."""

import json
import os
import random
import signal
import time
import warnings
from pathlib import Path

import bench_case
import pytest
import torch

from odesteer import SteeredModel
from odesteer.evaluation.report import FINAL, write_report
from odesteer.evaluation.runner.pipeline import GENERATIONS, SCORES

_KILLS = int(os.environ.get("ODESTEER_KILLS", "4"))
"""By hand: ODESTEER_KILLS=50 pytest tests/evaluation/runner/test_run.py -k killed"""


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FINAL}


def test_the_same_seed_gives_the_same_bytes(
    lm: SteeredModel, undisturbed: Path, tmp_path: Path
) -> None:
    bench_case.finish(lm, tmp_path)
    assert _bytes(tmp_path) == _bytes(undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_it_ends_the_same(
    lm: SteeredModel, undisturbed: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    bench_case.finish(lm, tmp_path / "timed")
    whole = time.monotonic() - began
    rng = random.Random(0)
    folder = tmp_path / "killed"
    lost = 0
    for _ in range(_KILLS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
            child = os.fork()
        if not child:
            try:
                bench_case.finish(lm, folder)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.02, 2 * whole / _KILLS))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        lost += os.WIFSIGNALED(status)
    assert lost, "no run was killed before its end"
    bench_case.finish(lm, folder)
    assert _bytes(folder) == _bytes(undisturbed)
    for name in (GENERATIONS, SCORES):
        # In whatever order they came, each result is there once.
        ours, theirs = ((f / name).read_text().splitlines() for f in (folder, undisturbed))
        assert sorted(ours) == sorted(theirs)


def test_a_finished_run_writes_nothing_again(
    lm: SteeredModel, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (undisturbed / GENERATIONS).read_bytes()

    def never(*anything: object) -> None:
        raise AssertionError("it generated again")

    monkeypatch.setattr("odesteer.evaluation.runner.completions.generate_completions", never)
    bench_case.runner(lm, undisturbed).run()
    assert (undisturbed / GENERATIONS).read_bytes() == before


def test_half_a_batch_is_completed(lm: SteeredModel, undisturbed: Path, tmp_path: Path) -> None:
    lines = (undisturbed / GENERATIONS).read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:10]) + lines[10][:9]
    (tmp_path / GENERATIONS).write_bytes(kept)
    bench_case.finish(lm, tmp_path)
    assert _bytes(tmp_path) == _bytes(undisturbed)


@pytest.mark.parametrize("change", ["version", "seeds", "amounts"])
def test_a_changed_configuration_takes_nothing_from_the_old(
    lm: SteeredModel, tmp_path: Path, change: str
) -> None:
    bench_case.runner(lm, tmp_path, seeds=(0,), methods=("caa",)).run()
    old = (tmp_path / GENERATIONS).read_text().splitlines()
    if change == "version":
        task = bench_case.Numbers(version="2")
        changed = bench_case.runner(lm, tmp_path, seeds=(0,), methods=("caa",), task=task)
        expected = len(old)
    elif change == "seeds":
        changed = bench_case.runner(lm, tmp_path, seeds=(1,), methods=("caa",))
        expected = len(old)
    else:
        changed = bench_case.runner(lm, tmp_path, seeds=(0,), methods=("none",))
        expected = 0
    changed.run()
    new = (tmp_path / GENERATIONS).read_text().splitlines()
    assert new[: len(old)] == old
    assert len(new) - len(old) == expected


def test_results_do_not_depend_on_the_batch_size(
    lm: SteeredModel, undisturbed: Path, tmp_path: Path
) -> None:
    bench_case.finish(lm, tmp_path, batch_size=3)
    ours, theirs = (_texts(folder / GENERATIONS) for folder in (tmp_path, undisturbed))
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 0.9 * len(theirs)
    # Rounding may tip a token that is a toss-up, in a text or two.
    assert sum(ours[key] != theirs[key] for key in shared) <= 0.01 * len(shared)


def _texts(path: Path) -> dict[str, str]:
    records = map(json.loads, path.read_text().splitlines())
    return {record["key"]: record["text"] for record in records}


def test_progress_ends_at_all(lm: SteeredModel, tmp_path: Path) -> None:
    seen = []
    run = bench_case.runner(lm, tmp_path, seeds=(0,), methods=("caa",), on_progress=seen.append)
    run.run()
    assert seen[-1].done == seen[-1].total > 0
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].seconds_left == 0


def test_what_a_method_cannot_do_is_missing_and_the_rest_goes_on(
    lm: SteeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from odesteer import CAA, Amount
    from odesteer.errors import InvalidInputError

    check = CAA.check_amount

    def refuse(self: CAA, amount: Amount) -> None:
        # The default, which every fit checks, is a T.
        if amount.quantity == "strength" and (torch.as_tensor(amount.value) > 0.2).any():
            raise InvalidInputError("out of reach")
        check(self, amount)

    run = bench_case.runner(lm, tmp_path, seeds=(0,), methods=("caa",))
    monkeypatch.setattr(CAA, "check_amount", refuse)
    outcome = run.run()
    write_report(outcome, tmp_path, title="numbers", about={})
    caa = [point for point in outcome.curve if point.contender.name == "caa"]
    assert all(p.missing == p.n for p in caa if p.setting.value > 0.2)
    assert [p.setting.value <= 0.2 for p in caa if p.chosen] == [True, True]
    assert "numbers, caa, strength=0.3, layer 1: out of reach" in outcome.failures()
    assert "out of reach" in (tmp_path / "summary.md").read_text()
    assert not any("failed" in result.completion for result in outcome.results)
