"""A disk that is really full: a file system of a few pages in memory."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import bench_case
import pytest

from odesteer import SteeredModel
from odesteer.errors import DataError
from odesteer.evaluation.report import FINAL, write_report

pytestmark = pytest.mark.slow

Resize = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Resize]:
    """A disk of the size that it is called with, the same one each time."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def resize(size: str) -> Path:
        nonlocal mounted
        how = f"remount,size={size}" if mounted else f"size={size}"
        words = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)]
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted = True
        return folder

    yield resize
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("pages", [1, 6, 15])
def test_nothing_is_lost_and_the_same_command_goes_on(
    lm: SteeredModel, undisturbed: Path, disk: Resize, pages: int
) -> None:
    folder = disk(f"{4 * pages}k")
    with pytest.raises(DataError, match=r"No space left.*same command again"):
        bench_case.finish(lm, folder)
    kept = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    assert kept
    disk("64m")
    bench_case.finish(lm, folder)
    for name in FINAL:
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    for name, before in kept.items():
        # Whole lines stay; half a line at the end may have been cut off.
        whole = before[: before.rfind(b"\n") + 1]
        assert (folder / name).read_bytes().startswith(whole)


def test_a_report_for_which_there_is_no_room(
    lm: SteeredModel, undisturbed: Path, tmp_path: Path, disk: Resize
) -> None:
    outcome = bench_case.runner(lm, undisturbed).run()
    folder = disk("16k")
    with pytest.raises(DataError, match=r"cannot write the report.*All results are safe"):
        write_report(outcome, folder, title="numbers", about={})
    assert not list(folder.glob(".*.partial"))
    disk("64m")
    write_report(outcome, folder, title="numbers", about={})
    for name in FINAL:
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
