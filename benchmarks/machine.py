"""Description of the machine, and the peak memory of the process."""

import platform
import resource
from pathlib import Path

import torch

import odesteer


def describe_machine() -> dict[str, str]:
    """Processor, threads and versions."""
    return {
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "odesteer": odesteer.__version__,
    }


def peak_memory() -> float:
    """The most memory that this process has had, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
