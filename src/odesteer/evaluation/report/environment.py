"""What a run was made with; kept apart from the tables, which must not depend on it."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from odesteer import __version__

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "scikit-learn", "datasets")


def environment() -> dict[str, Any]:
    """Versions and the machine, without names of users, hosts or folders."""
    import torch

    found: dict[str, Any] = {"odesteer": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["threads"] = torch.get_num_threads()
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
