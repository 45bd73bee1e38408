"""Where a command computes: in this process, or on workers of Ray (``--engine``)."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from odesteer.cli.errors import UsageError
from odesteer.cli.help import MACHINE, RAY
from odesteer.cli.model.opening import ModelChoice

if TYPE_CHECKING:
    from odesteer.cluster import Cluster
    from odesteer.cluster.completions import Completions
    from odesteer.models import SteeredModel

EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--engine",
        help="Compute in this process, or on many workers with Ray.",
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="How many workers, each with the model.  [default: 2]",
        rich_help_panel=RAY,
    ),
]
WorkerThreads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="CPUs for each worker.  [default: 1]",
        rich_help_panel=RAY,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="A running cluster, or auto for the one of this machine. Without it, and without"
        " RAY_ADDRESS in the environment, Ray is started on this machine and stopped at the end.",
        rich_help_panel=RAY,
    ),
]


@dataclass(frozen=True)
class Backend:
    """The options of the command line that choose where to compute.

    Raises `UsageError` for options of Ray without ``--engine ray``.
    """

    name: Literal["local", "ray"] = "local"
    workers: int | None = None
    threads: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        given = {
            "--workers": self.workers,
            "--worker-threads": self.threads,
            "--ray-address": self.address,
        }
        for option, value in given.items():
            if self.name == "local" and value is not None:
                raise UsageError(f"{option} {value} is for --engine ray; add that or leave it out.")

    @contextmanager
    def started(self) -> "Iterator[Cluster | None]":
        """The cluster of workers; None for this process."""
        if self.name == "local":
            yield None
            return
        from odesteer.cluster import Cluster

        address = self.address or os.environ.get("RAY_ADDRESS")
        # Messages of Ray about lost workers do not belong on stdout.
        with (
            redirect_stdout(sys.stderr),
            Cluster(self.workers or 2, address=address, threads=self.threads or 1) as cluster,
        ):
            yield cluster


def with_workers(
    lm: "SteeredModel", choice: ModelChoice, cluster: "Cluster | None"
) -> "tuple[SteeredModel, Completions | None]":
    """The model with captures on the workers, and the generator of completions there."""
    if cluster is None:
        return lm, None
    from odesteer.cluster import ClusterModel
    from odesteer.cluster.completions import Completions

    source = choice.worker_source()
    return ClusterModel(lm.model, lm.tokenizer, cluster, source), Completions(cluster, source)
