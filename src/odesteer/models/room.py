"""Where activations go while methods are fitted to them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def room_for(n_numbers: int, folder: str | Path | None) -> Iterator[str | Path | None]:
    """A folder for so many activations in float32, or None for memory.

    It is the given one, or a temporary one where they would fill more than half of the memory
    that is free.
    """
    if folder is not None or 4 * n_numbers <= free_memory() // 2:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="odesteer-activations-") as scratch:
        yield scratch


def free_memory() -> int:
    """Bytes of memory that can be had; more than any machine has where nobody tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        figures = dict(line.split(":", 1) for line in lines if ":" in line)
        return 1024 * int(figures["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return 2**62
