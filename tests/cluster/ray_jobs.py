"""Job functions in a module that workers can import."""

import os
from pathlib import Path
from typing import Any

from odesteer.cluster.worker import SharedObjects
from odesteer.errors import InvalidInputError
from odesteer.models import SteeredModel


def double(lm: SteeredModel, job: int, shared: SharedObjects) -> tuple[int, int, Any]:
    return 2 * job, lm.n_layers, shared[job % 2]


def die_once(lm: SteeredModel, job: tuple[int, str], shared: SharedObjects) -> tuple[int, int]:
    """The second job ends its worker, unless one did already."""
    number, mark = job
    if number == 1 and not Path(mark).exists():
        Path(mark).touch()
        os._exit(1)
    return number, os.getpid()


def die(lm: SteeredModel, job: int, shared: SharedObjects) -> int:
    if job == 1:
        os._exit(1)
    return job


def refuse(lm: SteeredModel, job: int, shared: SharedObjects) -> int:
    if job == 1:
        raise InvalidInputError("job 1 is refused.")
    return job


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly(lm: SteeredModel, job: int, shared: SharedObjects) -> int:
    raise UnpicklableError("this", "that")
