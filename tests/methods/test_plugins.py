"""Methods of other packages, as they come with a distribution's entry points."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = '''
from odesteer.methods import CAA


class Doubled(CAA):
    """a + 2T·(μ₊ - μ₋).

    Parameters:
        T: half of the multiplier.
    """

    def __init__(self, T: float = 1.0) -> None:
        super().__init__(T=2 * T, folds=0)
        self.T = T
'''

USE = """
import sys
import torch
import odesteer
from odesteer.errors import UnknownNameError
from odesteer.methods import registry

assert "doubled" in registry and "plugged_methods" not in sys.modules  # listed, not imported
cls = registry.get("doubled")
assert cls.__module__ == "plugged_methods" and registry.name_of(cls) == "doubled"
try:
    registry.get("duobled")
except UnknownNameError as error:
    assert "Did you mean 'doubled'" in str(error), error
else:
    raise AssertionError
method = cls().fit(torch.randn(9, 4) + 1, torch.randn(9, 4))
odesteer.save(method, sys.argv[1])
loaded = odesteer.load(sys.argv[1]).method
assert type(loaded) is cls
a = torch.randn(3, 4)
assert torch.equal(loaded.steer(a), method.steer(a))
"""


@pytest.fixture
def plugged(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which the throw-away distribution is installed."""
    (tmp_path / "plugged_methods.py").write_text(MODULE)
    install(tmp_path, "doubled = plugged_methods:Doubled")
    paths = [str(tmp_path), *sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def install(folder: Path, entry: str) -> None:
    metadata = folder / "plugged-1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[odesteer.methods]\n{entry}\n")


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )


def test_a_plugin_is_used_by_its_name(plugged: dict[str, str], tmp_path: Path) -> None:
    ended = run(plugged, "-W", "error", "-c", USE, str(tmp_path / "s.safetensors"))
    assert ended.returncode == 0, ended.stderr
    listed = run(plugged, "-m", "odesteer", "methods", "--json")
    rows = {row["name"]: row for row in json.loads(listed.stdout)["methods"]}
    assert rows["doubled"]["class"] == "Doubled"
    assert rows["doubled"]["parameters"] == {"T": 1.0}
    assert rows["doubled"]["meanings"] == {"T": "half of the multiplier."}
    # A file that needs the plugin says so where it is not installed.
    without = {name: value for name, value in plugged.items() if name != "PYTHONPATH"}
    without["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    code = "import odesteer, sys; odesteer.load(sys.argv[1])"
    refused = run(without, "-c", code, str(tmp_path / "s.safetensors"))
    assert "a plugin package that is not installed here" in refused.stderr


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("caa = plugged_methods:Doubled", "'caa' is already"),
        ("Doubled = plugged_methods:Doubled", "must be lower case"),
        ("doubled = plugged_methods", "must read 'package.module:Class'"),
    ],
)
def test_a_plugin_in_the_way_is_left_out(
    plugged: dict[str, str], tmp_path: Path, entry: str, told: str
) -> None:
    install(tmp_path, entry)
    code = (
        "from odesteer.methods import CAA, registry; assert registry.get('caa') is CAA;"
        "assert 'doubled' not in registry"
    )
    ended = run(plugged, "-c", code)
    assert ended.returncode == 0, ended.stderr
    assert told in ended.stderr
    assert ended.stderr.count("is left out") == 1
