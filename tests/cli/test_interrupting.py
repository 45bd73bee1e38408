"""Ctrl-C: exit code 130 and no partial files."""

import os
import signal
from pathlib import Path

import pytest
from command import Run, files_in, process, save_pairs


def test_an_interrupted_fit_leaves_nothing(model: str, tmp_path: Path) -> None:
    data = save_pairs(tmp_path / "many.jsonl", n=2000)
    before = files_in(tmp_path)
    words = ["fit", model, "--data", data, "--layer", 2, "-o", "s.safetensors", "--json"]
    with process(*words, folder=tmp_path) as started:
        assert started.stderr is not None
        assert started.stdout is not None
        line = started.stderr.readline()
        while line and "fitting" not in line:
            line = started.stderr.readline()
        started.send_signal(signal.SIGINT)
        err = started.stderr.read()
        out = started.stdout.read()
        assert started.wait(timeout=60) == 130
    # What was being written when the interrupt came may be written once more.
    assert err.endswith("error: interrupted; nothing half written was left.\n")
    assert "Traceback" not in err
    assert '"exit_code": 130' in out
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("existed", [False, True])
def test_an_interrupt_while_saving_leaves_the_old_file_or_none(
    run: Run, model: str, pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    if existed:
        Path("s").write_text("precious")
    before = files_in(tmp_path)

    def _interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", _interrupt)
    outcome = run("fit", model, "--data", pairs, "--layer", 2, "-o", "s", "--force")
    assert outcome.code == 130
    assert outcome.says("interrupted")
    assert files_in(tmp_path) == before
