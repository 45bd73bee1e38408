"""Reproducible sampling that leaves the caller's random generators as they are."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.RLock()


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw from generators that start at ``seed``, and put the caller's back afterwards.

    With None the caller's own generators are drawn from. Threads share these generators, so those
    that ask for a seed wait for each other.
    """
    if seed is None:
        yield
        return
    with _lock, _forked(seed, device):
        yield


@contextmanager
def _forked(seed: int, device: torch.device) -> Iterator[None]:
    on_cpu = device.type == "cpu"
    devices = [] if on_cpu else [device.index or 0]
    kind = "cuda" if on_cpu else device.type
    with torch.random.fork_rng(devices=devices, device_type=kind):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif not on_cpu:
            getattr(torch, device.type).manual_seed(seed)
        yield


def batch_seed(seed: int | None, first_row: int) -> int | None:
    """The seed of the batch that begins at a row; the first batch has ``seed`` itself.

    Each batch draws from generators of its own, so that it is the same wherever, and in whatever
    order, batches are written.
    """
    if seed is None or first_row == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{first_row}".encode()).digest()[:7], "big")
